// The input of a linear step: waited for, normalized, rounded, and put into shared memory.
#pragma once

#include "decode_columns.cuh"
#include "decode_float8.cuh"

namespace tripy {

// Mean and 1 / deviation of the columns of all threads.
//
// Sums of x - x[0] and of its squares in one pass: no value of a row of k is further from the mean
// than sqrt(k) deviations, so the variance loses at most a factor of k of float32's precision.
template <int Quads>
__device__ __forceinline__ float2 statistics(
    Worker& w, DecodeStep const& s, Columns<Quads> const& x, float shift) {
  float2 sums = {0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    if (4 * (int(threadIdx.x) + j * kWorkers) < s.k) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float v = x[j][i] - shift;
        sums = {sums.x + v, fmaf(v, v, sums.y)};
      }
    }
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sums.x += __shfl_xor_sync(0xFFFFFFFF, sums.x, lanes);
    sums.y += __shfl_xor_sync(0xFFFFFFFF, sums.y, lanes);
  }
  if (threadIdx.x % 32 == 0) {
    w.shared.sums[threadIdx.x / 32] = sums;
  }
  Worker::sync();
  float4 parts[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    parts[i] = reinterpret_cast<float4 const*>(w.shared.sums)[i];
  }
#pragma unroll
  for (int half = 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; i++) {
      float4 a = parts[i], b = parts[i + half];
      parts[i] = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
    }
  }
  float mean = 0.0f, variance = (parts[0].y + parts[0].w) * s.inverse_k;
  if (s.norm == kLayerNorm) {
    float offset = (parts[0].x + parts[0].z) * s.inverse_k;
    mean = shift + offset;
    variance = fmaxf(variance - offset * offset, 0.0f);
  }
  return {mean, rsqrtf(variance + s.eps)};
}

template <class T, class W>
__device__ __forceinline__ void store_quad(
    W& w, DecodeStep const& s, int quad, float const (&x)[4]) {
  if constexpr (W::kWeights == kFloat8Weights) {
    if (s.float8) {
      store_float8_quad(w, s, quad, x);
      return;
    }
  }
  if (!s.integers) {
    auto input = reinterpret_cast<uint2*>(w.shared.input);
    input[quad] = {unit_of<T>(x[0], x[1]), unit_of<T>(x[2], x[3])};
    return;
  }
  int own[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    own[i] = to_int8(divided(x[i], s.in_scale, s.inverse_in_scale));
  }
  reinterpret_cast<char4*>(w.shared.input)[quad] =
      make_char4(char(own[0]), char(own[1]), char(own[2]), char(own[3]));
}

template <class T, int Quads, class W>
__device__ __forceinline__ void read_normalized(W& w, DecodeStep const& s) {
  if (4 * (int(threadIdx.x) / 32 * 32) >= s.k) {  // Issue slots are for warps that have columns.
    w.shared.sums[threadIdx.x / 32] = {0.0f, 0.0f};
    Worker::sync();
    return;
  }
  // On their way before the input is waited for, where registers suffice.
  constexpr bool kEarly = Quads <= 2;
  float4 weights[kEarly ? Quads : 1], biases[kEarly ? Quads : 1];
  auto read_parameters = [&](int quad, float4& weight, float4& bias) {
    weight = bias = {0.0f, 0.0f, 0.0f, 0.0f};
    if (4 * quad < s.k) {
      weight = __ldg(reinterpret_cast<float4 const*>(s.norm_weight) + quad);
      if (s.norm_bias) {
        bias = __ldg(reinterpret_cast<float4 const*>(s.norm_bias) + quad);
      }
    }
  };
#pragma unroll
  for (int j = 0; kEarly && j < Quads; j++) {
    read_parameters(threadIdx.x + j * kWorkers, weights[j], biases[j]);
  }
  float first = 0.0f;
  Columns<Quads> x;
  if (s.source == kFromPairs) {
    wait_for_pairs<T>(w, s, threadIdx.x, x, s.norm == kLayerNorm, first);
  } else {
    read_tensor<T>(w, s, x, first);
  }
  w.note(kInputThere);
  float2 moments = statistics(w, s, x, s.norm == kLayerNorm ? first : 0.0f);
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    int quad = threadIdx.x + j * kWorkers;
    int own = kEarly ? j : 0;
    if (!kEarly) {
      read_parameters(quad, weights[0], biases[0]);
    }
    float4 weight = weights[own], bias = biases[own];
    float const g[4] = {weight.x, weight.y, weight.z, weight.w};
    float const b[4] = {bias.x, bias.y, bias.z, bias.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[j][i] = to_type<T>(fmaf((x[j][i] - moments.x) * moments.y, g[i], b[i]));
    }
    if (4 * quad < s.k) {
      store_quad<T>(w, s, quad, x[j]);
    }
  }
}

// An input without normalization.
template <class T, int Quads, class W>
__device__ __forceinline__ void read_pairs(W& w, DecodeStep const& s) {
  Columns<Quads> x;
  float first;
#pragma unroll 1
  for (int begin = threadIdx.x; 4 * begin < s.k; begin += Quads * kWorkers) {
    wait_for_pairs<T>(w, s, begin, x, false, first);
    w.note(kInputThere);
#pragma unroll
    for (int j = 0; j < Quads; j++) {
      if (4 * (begin + j * kWorkers) < s.k) {
        store_quad<T>(w, s, begin + j * kWorkers, x[j]);
      }
    }
  }
}

// What chunks of an attention came to. All of a model's usual inputs are on their way at once.
template <class T, class W>
__device__ __forceinline__ void read_parts(W& w, DecodeStep const& step) {
  constexpr int kQuads = W::kQuads == 1 ? 1 : 2;
  DecodeStep const s = step;  // In registers: every wait would read it again.
  find_place(w, s.position, s.lengths);
  int active = min(s.chunks, max(1, quotient(w.place.length + s.chunk - 1, s.inverse_chunk)));
#pragma unroll 1
  for (int begin = threadIdx.x; 4 * begin < s.k; begin += kQuads * kWorkers) {
    Columns<kQuads> x;
    if (active == 1) {
      combine<T, 1>(w, s, begin, active, x);
    } else {
      combine<T, 4>(w, s, begin, active, x);
    }
#pragma unroll
    for (int j = 0; j < kQuads; j++) {
      if (4 * (begin + j * kWorkers) < s.k) {
        store_quad<T>(w, s, begin + j * kWorkers, x[j]);
      }
    }
  }
}

// Eight columns at a time, of which `AtOnce` are in flight.
template <int AtOnce, class W>
__device__ __forceinline__ void read_bytes(W& w, DecodeStep const& s) {
#pragma unroll 1
  for (int begin = threadIdx.x; 8 * begin < s.k; begin += AtOnce * kWorkers) {
    uint2 bytes[AtOnce];
    bool missing = true;
#pragma unroll 1
    for (uint32_t tries = 0; missing; tries++) {
      missing = false;
#pragma unroll
      for (int j = 0; j < AtOnce; j++) {
        int eight = begin + j * kWorkers;
        if (8 * eight < s.k) {
          missing |= !w.exchange.try_two(s.in + 2 * eight, bytes[j]);
        }
      }
      Exchange::give_up(tries);
    }
    w.note(kInputThere);
#pragma unroll
    for (int j = 0; j < AtOnce; j++) {
      if (8 * (begin + j * kWorkers) < s.k) {
        store_bytes(w, s, begin + j * kWorkers, bytes[j]);
      }
    }
  }
}

// Any other input. After either of them and a barrier it is there.
template <class T, class W>
__device__ __forceinline__ void read_input(W& w, DecodeStep const& step) {
  DecodeStep const s = step;
  if (s.source == kFromBytes) {
    read_bytes<W::kQuads == 1 ? 2 : 4>(w, s);
  } else if (s.norm == kNoNorm) {
    read_pairs<T, 4>(w, s);
  } else {
    read_normalized<T, W::kQuads>(w, s);
  }
}

}  // namespace tripy
