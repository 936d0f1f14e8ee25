// Products of a decode step with float8 and int4 weights, by tensor cores.
//
// An instruction multiplies 16 rows of weights by 8 columns of an input, and here there is one
// input. So eight groups of four lanes have columns of their own: what a group reads of two rows of
// the weight are two rows of the instruction, what it reads of the input is one column, and of all
// sums those are wanted whose rows and column are of the same group. A warp's 2, 4 or 8 rows are
// thus shared out to 8, 4 or 2 groups for each two of them, and every lane has weights of its own,
// however many rows there are.
#pragma once

#include <type_traits>

#include "decode_products.cuh"

namespace tripy {

// int8 weights and inputs of the activations' type, or of int8; float8 weights and inputs of the
// activations' type, or in float16; int4 weights and inputs of the activations' type.
enum Form : int { kFloats, kIntegers, kFloat8Only, kFloat8Both, kInt4Only, kInt8Only };

constexpr int kRecordBytes = sizeof(float2);

template <int Form>
__device__ __forceinline__ int record_bytes_of(DecodeStep const& s) {
  return Form == kInt4Only ? s.record_bytes : kRecordBytes;
}

// Which groups of lanes have which rows.
struct Shares {
  int each, row, share;  // groups of two rows; the first of this lane's rows; its place in them

  __device__ __forceinline__ explicit Shares(int rows) {
    int bits = 3 - rows / 4, group = threadIdx.x % 32 / 4;  // log2(16 / rows)
    each = 1 << bits;
    row = group >> bits << 1;
    share = group & (each - 1);
  }

  // The sum of row l % rows in lane l, from those of each group's two rows, of which its lane
  // number group / 2 has the right ones.
  __device__ __forceinline__ float add_up(float2 own, int rows) const {
    constexpr unsigned kAll = 0xFFFFFFFF;
    bool odd = threadIdx.x & 4;
    // Two neighbours have that lane in common: one adds up the first rows, one the second ones.
    float sum = odd ? own.y : own.x;
    sum += __shfl_xor_sync(kAll, odd ? own.x : own.y, 4);
    int row = threadIdx.x & (rows - 1), first = row / 2 * (each / 2);
    float all = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {  // All are on their way at once.
      int two = first + min(i, each / 2 - 1);
      float other = __shfl_sync(kAll, sum, 4 * (2 * two + row % 2) + two);
      all += i < each / 2 ? other : 0.0f;
    }
    return all;
  }
};

// Of an instruction's sums, those of the group's two rows: in the lane with the number group / 2.
__device__ __forceinline__ float2 own_sums(float const (&sums)[4]) {
  bool odd = threadIdx.x & 4;
  return {odd ? sums[1] : sums[0], odd ? sums[3] : sums[2]};
}

// sums += four weights of two rows, as pairs, times four columns of the input.
template <class X>
__device__ __forceinline__ void multiply_four(
    float (&sums)[4], uint32_t const (&pairs)[2][2], uint32_t x_low, uint32_t x_high) {
  uint32_t const a[4] = {pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]};
  multiply(X(), sums, a, x_low, x_high);
}

// A lane has 8 neighbours of two rows at a time. Beyond the last one it multiplies zeros, since that
// all do the same spares branches.
template <class X, int Weights>
__device__ __forceinline__ float byte_product(Shared const& shared, Operands const& o, int rows) {
  constexpr int kAtOnce = 3;
  Shares shares(rows);
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  int at = 32 * shares.share + 8 * (threadIdx.x % 4), step = 32 * shares.each;
  float sums[kAtOnce][4] = {};
#pragma unroll 1
  for (int begin = 0; begin < o.k; begin += kAtOnce * step) {
    uint2 weights[kAtOnce][2];
    uint4 x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      int column = begin + at + i * step;
      bool there = column < o.k;
      uint8_t const* from = row + (there ? column : 0);
      weights[i][0] = *reinterpret_cast<uint2 const*>(from);
      weights[i][1] = *reinterpret_cast<uint2 const*>(from + o.row_bytes);
      x[i] = *reinterpret_cast<uint4 const*>(there ? o.input + 2 * column : shared.zeros);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      uint32_t low[2][2], high[2][2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        if constexpr (Weights == kFloat8Weights) {
          from_float8(X(), weights[i][r].x, low[r]);
          from_float8(X(), weights[i][r].y, high[r]);
        } else {
          from_int8(X(), weights[i][r].x, low[r]);
          from_int8(X(), weights[i][r].y, high[r]);
        }
      }
      multiply_four<X>(sums[i], low, x[i].x, x[i].y);
      multiply_four<X>(sums[i], high, x[i].z, x[i].w);
    }
  }
#pragma unroll
  for (int i = 1; i < kAtOnce; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      sums[0][j] += sums[i][j];
    }
  }
  return shares.add_up(own_sums(sums[0]), rows);
}

// A lane has 8 bytes of two rows at a time: 8 neighbours in their low halves, and 8 in the high
// ones, `window` columns further on. What a group of lanes has of each is 32 columns, which are of
// one block. `records` are those of the rows.
template <class X>
__device__ __forceinline__ float int4_product(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  constexpr int kAtOnce = 3;
  Shares shares(s.rows);
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  uint8_t const* scales = records + shares.row * s.record_bytes + kRecordBytes;
  int at = 32 * shares.share + 8 * (threadIdx.x % 4), step = 32 * shares.each;
  float2 totals[2] = {};
#pragma unroll 1
  for (int begin = 0; begin < o.row_bytes; begin += kAtOnce * step) {
    uint2 weights[kAtOnce][2];
    uint4 x[kAtOnce][2];
    float2 scale[kAtOnce][2];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      int byte = begin + at + i * step;
      bool there = byte < o.row_bytes;
      byte = there ? byte : 0;
      int column = byte + (byte & -s.window);
      weights[i][0] = *reinterpret_cast<uint2 const*>(row + byte);
      weights[i][1] = *reinterpret_cast<uint2 const*>(row + byte + o.row_bytes);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int own = column + half * s.window;
        x[i][half] = *reinterpret_cast<uint4 const*>(there ? o.input + 2 * own : shared.zeros);
        auto of_block = reinterpret_cast<X const*>(scales) + (own >> s.block_bits);
        auto of_next = reinterpret_cast<X const*>(
            reinterpret_cast<uint8_t const*>(of_block) + s.record_bytes);
        scale[i][half] = {float(*of_block), float(*of_next)};
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t low[2][2], high[2][2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
          from_int4(X(), weights[i][r].x >> 4 * half & 0x0F0F0F0F, low[r]);
          from_int4(X(), weights[i][r].y >> 4 * half & 0x0F0F0F0F, high[r]);
        }
        float sums[4] = {};
        multiply_four<X>(sums, low, x[i][half].x, x[i][half].y);
        multiply_four<X>(sums, high, x[i][half].z, x[i][half].w);
        float2 own = own_sums(sums);
        totals[half].x = fmaf(own.x, scale[i][half].x, totals[half].x);
        totals[half].y = fmaf(own.y, scale[i][half].y, totals[half].y);
      }
    }
  }
  float2 sum = {totals[0].x + totals[1].x, totals[0].y + totals[1].y};
  return shares.add_up(sum, s.rows);
}

template <class T, int Form>
__device__ __forceinline__ float tensor_product_of(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  if constexpr (Form == kInt4Only) {
    return int4_product<T>(shared, s, o, records);
  } else {
    using X = std::conditional_t<Form == kFloat8Both, __half, T>;
    return byte_product<X, Form == kInt8Only ? kInt8Weights : kFloat8Weights>(shared, o, s.rows);
  }
}

}  // namespace tripy
