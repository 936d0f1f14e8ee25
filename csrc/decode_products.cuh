// Products of a decode step: rows of int8 weights, in shared memory, times its input.
//
// A warp has `Rows` neighbouring rows, each of all columns; lane l gets the sum of row l % Rows. No
// other warp has to add to it.
#pragma once

#include "decode_step.cuh"
#include "mma.cuh"

namespace tripy {

struct Operands {
  uint8_t const *rows, *input;
  int row_bytes, k;
};

template <class Sum, int Rows>
__device__ __forceinline__ Sum own_row(Sum const (&sums)[Rows]) {
  Sum sum = sums[0];
#pragma unroll
  for (int r = 1; r < Rows; r++) {
    sum = threadIdx.x % Rows == r ? sums[r] : sum;
  }
  return sum;
}

// With an int8 input. Lanes beyond the last column multiply zeros: that every lane does the same
// spares branches, which cost more than what they skip.
template <int Rows>
__device__ __forceinline__ float integer_product(Shared const& shared, Operands const& o) {
  int sums[Rows] = {};
#pragma unroll 1
  for (int begin = 0; begin < o.row_bytes; begin += 1024) {
    int4 x[2], a[2][Rows];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int at = begin + 512 * i + 16 * (threadIdx.x % 32);
      bool there = at < o.row_bytes;
      // What lies in the input beyond column k is multiplied with zeros of the weight.
      x[i] = *reinterpret_cast<int4 const*>(there ? o.input + at : shared.zeros);
      uint8_t const* from = o.rows + (there ? at : 0);
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        a[i][r] = *reinterpret_cast<int4 const*>(from + r * o.row_bytes);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        sums[r] = __dp4a(a[i][r].x, x[i].x, sums[r]);
        sums[r] = __dp4a(a[i][r].y, x[i].y, sums[r]);
        sums[r] = __dp4a(a[i][r].z, x[i].z, sums[r]);
        sums[r] = __dp4a(a[i][r].w, x[i].w, sums[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < Rows; r++) {
    sums[r] = __reduce_add_sync(0xFFFFFFFF, sums[r]);
  }
  return float(own_row(sums));
}

// With an input of type T, of which a lane has 8 columns at a time: 8 divides more sizes than 16.
template <class T, int Rows>
__device__ __forceinline__ float float_product(Operands const& o) {
  float sums[Rows] = {}, others[Rows] = {};
#pragma unroll 3
  for (int at = 8 * (threadIdx.x % 32); at < o.k; at += 256) {
    uint4 units = *reinterpret_cast<uint4 const*>(o.input + 2 * at);
    float2 const x[4] = {floats_of<T>(units.x), floats_of<T>(units.y), floats_of<T>(units.z),
                         floats_of<T>(units.w)};
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      uint2 weights = *reinterpret_cast<uint2 const*>(o.rows + r * o.row_bytes + at);
      float a[4], b[4];
      from_int8(weights.x, a);
      from_int8(weights.y, b);
      sums[r] = fmaf(a[0], x[0].x, fmaf(a[1], x[0].y, sums[r]));
      others[r] = fmaf(b[0], x[2].x, fmaf(b[1], x[2].y, others[r]));
      sums[r] = fmaf(a[2], x[1].x, fmaf(a[3], x[1].y, sums[r]));
      others[r] = fmaf(b[2], x[3].x, fmaf(b[3], x[3].y, others[r]));
    }
  }
#pragma unroll
  for (int r = 0; r < Rows; r++) {
    sums[r] += others[r];
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      sums[r] += __shfl_xor_sync(0xFFFFFFFF, sums[r], lanes);
    }
  }
  return own_row(sums);
}

// 64 columns of eight rows: a lane has 16 neighbours of a row, which are its share of four steps.
template <class T>
__device__ __forceinline__ void tensor_step(
    uint4 weights, uint4 low, uint4 high, float (&sums)[2][4]) {
  uint32_t const words[4] = {weights.x, weights.y, weights.z, weights.w};
  uint32_t const x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t const a[4] = {x[2 * i], 0, x[2 * i + 1], 0};
    uint32_t pairs[2];
    from_int8(T(), words[i], pairs);
    multiply(T(), sums[i % 2], a, pairs[0], pairs[1]);
  }
}

// The same for eight rows by tensor cores, whose weights are the operand of 8 columns. The input is
// in 8 of the 16 rows of the other one, always the same, since all lanes read it. Which column is
// called which is free.
template <class T>
__device__ __forceinline__ float tensor_product(Operands const& o) {
  constexpr int kAtOnce = 4;
  int lane = threadIdx.x % 32, at = 16 * (lane % 4);
  uint8_t const* row = o.rows + lane / 4 * o.row_bytes;
  auto weights_at = [&](int column) { return *reinterpret_cast<uint4 const*>(row + column); };
  auto input_at = [&](int column) {
    return *reinterpret_cast<uint4 const*>(o.input + 2 * column);
  };
  float sums[2][4] = {};
#pragma unroll 1
  for (; at - 16 * (lane % 4) + 64 * kAtOnce <= o.k; at += 64 * kAtOnce) {
    uint4 weights[kAtOnce], low[kAtOnce], high[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      weights[i] = weights_at(at + 64 * i);
      low[i] = input_at(at + 64 * i);
      high[i] = input_at(at + 64 * i + 8);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      tensor_step<T>(weights[i], low[i], high[i], sums);
    }
  }
#pragma unroll 1
  for (; at - 16 * (lane % 4) < o.k; at += 64) {
    uint4 weights = {}, low = {}, high = {};
    if (at < o.k) {
      weights = weights_at(at);
      low = input_at(at);
      high = at + 8 < o.k ? input_at(at + 8) : high;
    }
    tensor_step<T>(weights, low, high, sums);
  }
  float even = __shfl_sync(0xFFFFFFFF, sums[0][0] + sums[1][0], lane % 8 / 2);
  float odd = __shfl_sync(0xFFFFFFFF, sums[0][1] + sums[1][1], lane % 8 / 2);
  return lane % 2 ? odd : even;
}

template <class T, int Rows, bool Integers>
__device__ __forceinline__ float product(Shared const& shared, Operands const& o) {
  if constexpr (Integers) {
    return integer_product<Rows>(shared, o);
  } else if constexpr (Rows == 8) {
    return tensor_product<T>(o);
  } else {
    return float_product<T, Rows>(o);
  }
}

}  // namespace tripy
