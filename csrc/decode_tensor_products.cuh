// Products of a decode step with float8 and int4 weights, by tensor cores.
//
// An instruction multiplies 16 rows of an input by 8 columns of weights, and here there is one
// input. So eight groups of four lanes have columns of their own: what a group reads of a row of
// the weight is one column of the instruction, what it reads of the input one row, and of all sums
// those on the diagonal are wanted. A warp's 2, 4 or 8 rows are thus shared out to 4, 2 or 1 groups
// each, and every lane has weights of its own, however many rows there are.
#pragma once

#include <type_traits>

#include "decode_products.cuh"

namespace tripy {

// int8 weights and inputs of the activations' type, or of int8; float8 weights and inputs of the
// activations' type, or in float16; int4 weights and inputs of the activations' type.
enum Form : int { kFloats, kIntegers, kFloat8Only, kFloat8Both, kInt4Only };

constexpr int kRecordBytes = sizeof(float2);

template <int Form>
__device__ __forceinline__ int record_bytes_of(DecodeStep const& s) {
  return Form == kInt4Only ? s.record_bytes : kRecordBytes;
}

// Of the diagonal, what a lane's group has: in the group's lane number group / 2.
__device__ __forceinline__ float on_diagonal(float const (&sums)[4]) {
  return threadIdx.x / 4 % 2 ? sums[1] : sums[0];
}

// Which groups have which rows.
struct Shares {
  int each, row, share;  // groups of a row; this lane's row and place in it

  __device__ __forceinline__ explicit Shares(int rows) {
    int bits = 2 - rows / 4, group = threadIdx.x % 32 / 4;  // log2(8 / rows)
    each = 1 << bits;
    row = group >> bits;
    share = group & (each - 1);
  }

  // The sum of row l % rows in lane l.
  __device__ __forceinline__ float add_up(float own, int rows) const {
    int first = (threadIdx.x & (rows - 1)) * each;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {  // All are on their way at once.
      int group = first + min(i, each - 1);
      float other = __shfl_sync(0xFFFFFFFF, own, 4 * group + group / 2);
      sum += i < each ? other : 0.0f;
    }
    return sum;
  }
};

// sums += the product of a word's weights, as pairs, with four columns of the input.
template <class X>
__device__ __forceinline__ void multiply_word(
    float (&sums)[4], uint32_t low, uint32_t high, uint32_t const (&pairs)[2]) {
  uint32_t const a[4] = {low, 0, high, 0};
  multiply(X(), sums, a, pairs[0], pairs[1]);
}

// A lane has 16 neighbours of a row at a time. Beyond the last one it multiplies zeros, since that
// all do the same spares branches.
template <class X>
__device__ __forceinline__ float float8_product(
    Shared const& shared, Operands const& o, int rows) {
  constexpr int kAtOnce = 3;
  Shares shares(rows);
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  int at = 64 * shares.share + 16 * (threadIdx.x % 4), step = 64 * shares.each;
  float sums[2][4] = {};
#pragma unroll 1
  for (int begin = 0; begin < o.k; begin += kAtOnce * step) {
    uint4 weights[kAtOnce], low[kAtOnce], high[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      int column = begin + at + i * step;
      uint8_t const* x = o.input + 2 * column;
      weights[i] = *reinterpret_cast<uint4 const*>(row + (column < o.k ? column : 0));
      low[i] = *reinterpret_cast<uint4 const*>(column < o.k ? x : shared.zeros);
      high[i] = *reinterpret_cast<uint4 const*>(column + 8 < o.k ? x + 16 : shared.zeros);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      uint32_t const words[4] = {weights[i].x, weights[i].y, weights[i].z, weights[i].w};
      uint32_t const x[8] = {low[i].x,  low[i].y,  low[i].z,  low[i].w,
                             high[i].x, high[i].y, high[i].z, high[i].w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t pairs[2];
        from_float8(X(), words[j], pairs);
        multiply_word<X>(sums[j % 2], x[2 * j], x[2 * j + 1], pairs);
      }
    }
  }
  return shares.add_up(on_diagonal(sums[0]) + on_diagonal(sums[1]), rows);
}

// A lane has 8 bytes of a row at a time: 8 neighbours in their low halves, and 8 in the high ones
// that lie `window` columns further on. What a group of lanes has of each is 32 columns, which are
// of one block. `records` are those of the rows.
template <class X>
__device__ __forceinline__ float int4_product(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  constexpr int kAtOnce = 3;
  Shares shares(s.rows);
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  auto scales = reinterpret_cast<X const*>(records + shares.row * s.record_bytes + kRecordBytes);
  int at = 32 * shares.share + 8 * (threadIdx.x % 4), step = 32 * shares.each;
  float totals[2] = {0.0f, 0.0f};
#pragma unroll 1
  for (int begin = 0; begin < o.row_bytes; begin += kAtOnce * step) {
    uint2 weights[kAtOnce];
    uint4 x[kAtOnce][2];
    float scale[kAtOnce][2];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      int byte = begin + at + i * step;
      bool there = byte < o.row_bytes;
      byte = there ? byte : 0;
      int column = byte + (byte & -s.window);
      weights[i] = *reinterpret_cast<uint2 const*>(row + byte);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int own = column + half * s.window;
        x[i][half] = *reinterpret_cast<uint4 const*>(there ? o.input + 2 * own : shared.zeros);
        scale[i][half] = float(scales[own >> s.block_bits]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t low[2], high[2];
        from_int4(X(), weights[i].x >> 4 * half & 0x0F0F0F0F, low);
        from_int4(X(), weights[i].y >> 4 * half & 0x0F0F0F0F, high);
        float sums[4] = {};
        multiply_word<X>(sums, x[i][half].x, x[i][half].y, low);
        multiply_word<X>(sums, x[i][half].z, x[i][half].w, high);
        totals[half] = fmaf(on_diagonal(sums), scale[i][half], totals[half]);
      }
    }
  }
  return shares.add_up(totals[0] + totals[1], s.rows);
}

template <class T, int Form>
__device__ __forceinline__ float tensor_product_of(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  if constexpr (Form == kInt4Only) {
    return int4_product<T>(shared, s, o, records);
  } else {
    using X = std::conditional_t<Form == kFloat8Both, __half, T>;
    return float8_product<X>(shared, o, s.rows);
  }
}

}  // namespace tripy
