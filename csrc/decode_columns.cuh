// The columns of a decode step's input, as threads get them: from the exchange, a tensor, or what
// chunks of an attention came to.
//
// Threads have four neighbouring columns each ("a quad"), or `Quads` times four that are kWorkers
// quads apart.
#pragma once

#include "decode_step.cuh"

namespace tripy {

template <int Quads>
using Columns = float[Quads][4];

template <class T>
__device__ __forceinline__ void unpack_quad(uint2 units, float (&x)[4]) {
  float2 low = floats_of<T>(units.x), high = floats_of<T>(units.y);
  x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
}

// From quad `begin` on; columns beyond the last one are zeros, `first` becomes column 0 if wanted.
template <class T, int Quads>
__device__ __forceinline__ void wait_for_pairs(
    Worker& w, DecodeStep const& s, int begin, Columns<Quads>& x, bool with_first, float& first) {
  uint2 units[Quads] = {}, front = {};
  bool missing = true;
#pragma unroll 1
  for (uint32_t tries = 0; missing; tries++) {
    missing = with_first && !w.exchange.try_two(s.in, front);
#pragma unroll
    for (int j = 0; j < Quads; j++) {
      int quad = begin + j * kWorkers;
      if (4 * quad < s.k) {
        missing |= !w.exchange.try_two(s.in + 2 * quad, units[j]);
      }
    }
    Exchange::give_up(tries);
  }
  first = floats_of<T>(front.x).x;
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    unpack_quad<T>(units[j], x[j]);
  }
}

template <class T, int Quads>
__device__ __forceinline__ void read_tensor(
    Worker& w, DecodeStep const& s, Columns<Quads>& x, float& first) {
  auto quads = static_cast<uint2 const*>(w.launch.tensors[s.in]);
  first = floats_of<T>(quads[0].x).x;
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    int quad = threadIdx.x + j * kWorkers;
    unpack_quad<T>(4 * quad < s.k ? quads[quad] : uint2{}, x[j]);
  }
}

// Quads of what `active` chunks of an attention came to, from `begin` on, with up to `AtOnce` chunks
// in flight. Beyond the last column they are the last one again.
template <class T, int AtOnce, int Quads, class W>
__device__ __forceinline__ void combine(
    W& w, DecodeStep const& s, int begin, int active, Columns<Quads>& x) {
  constexpr int kWidth = W::kWidth, kStride = kWidth / 2 + 2;
  int head_at[Quads], column_at[Quads];
  float top[Quads], total[Quads];
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    int column = min(4 * (begin + j * kWorkers), s.k - 4);
    head_at[j] = s.in + column / kWidth * s.chunks * kStride;
    column_at[j] = column % kWidth / 2;
    top[j] = kLeastScore, total[j] = 0.0f;
#pragma unroll
    for (int c = 0; c < 4; c++) {
      x[j][c] = 0.0f;
    }
  }
#pragma unroll 1
  for (int first = 0; first < active; first += AtOnce) {
    uint2 values[Quads][AtOnce], states[Quads][AtOnce];
    bool missing = true;
#pragma unroll 1
    for (uint32_t tries = 0; missing; tries++) {
      missing = false;
#pragma unroll
      for (int j = 0; j < Quads; j++) {
#pragma unroll
        for (int i = 0; i < AtOnce; i++) {
          int from = head_at[j] + min(first + i, active - 1) * kStride;
          missing |= !w.exchange.try_two(from + column_at[j], values[j][i]);
          missing |= !w.exchange.try_two(from + kWidth / 2, states[j][i]);
        }
      }
      Exchange::give_up(tries);
    }
#pragma unroll
    for (int j = 0; j < Quads; j++) {
      float higher = top[j];
#pragma unroll
      for (int i = 0; i < AtOnce; i++) {  // The last one may come repeatedly.
        higher = fmaxf(higher, __uint_as_float(states[j][i].x));
      }
      float keep = approximate_exp2(top[j] - higher);
      top[j] = higher;
      total[j] *= keep;
#pragma unroll
      for (int c = 0; c < 4; c++) {
        x[j][c] *= keep;
      }
#pragma unroll
      for (int i = 0; i < AtOnce; i++) {
        float own[4], share = approximate_exp2(__uint_as_float(states[j][i].x) - higher);
        share = first + i < active ? share * __uint_as_float(states[j][i].y) : 0.0f;
        unpack_quad<T>(values[j][i], own);
#pragma unroll
        for (int c = 0; c < 4; c++) {
          x[j][c] = fmaf(own[c], share, x[j][c]);
        }
        total[j] += share;
      }
    }
  }
  w.note(kInputThere);
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    float inverse = inverse_of(total[j]);
#pragma unroll
    for (int c = 0; c < 4; c++) {
      x[j][c] = to_type<T>(x[j][c] * inverse);
    }
  }
}

}  // namespace tripy
