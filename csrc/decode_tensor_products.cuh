// Products of a decode step by tensor cores: with inputs of the activations' type or float8.
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
#include "mma.cuh"

namespace tripy {

// Which of the two are of which type: the weight only, with an input of the activations' type; or
// both, where a float8 input is in float16.
enum Form : int { kInt8Both, kInt8Only, kFloat8Both, kFloat8Only, kInt4Only };

constexpr int kRecordBytes = sizeof(float2);

template <int Form>
__device__ __forceinline__ int record_bytes_of(DecodeStep const& s) {
  return Form == kInt4Only ? s.record_bytes : kRecordBytes;
}

// Which groups of lanes have which rows.
template <int Rows>
struct Shares {
  static constexpr int kEach = 16 / Rows;  // groups of two rows
  int row, share;  // the first of this lane's rows; its place in them

  __device__ __forceinline__ Shares() {
    int group = threadIdx.x % 32 / 4;
    row = group / kEach * 2;
    share = group % kEach;
  }

  // The sum of row l % rows in lane l, from those of each group's two rows, of which its lane
  // number group / 2 has the right ones.
  __device__ __forceinline__ float add_up(float2 own) const {
    constexpr unsigned kAll = 0xFFFFFFFF;
    bool odd = threadIdx.x & 4;
    // Two neighbours have that lane in common: one adds up the first rows, one the second ones.
    float sum = odd ? own.y : own.x;
    sum += __shfl_xor_sync(kAll, odd ? own.x : own.y, 4);
    int row = threadIdx.x % Rows, first = row / 2 * (kEach / 2);
    float all = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach / 2; i++) {  // All are on their way at once.
      int two = first + i;
      all += __shfl_sync(kAll, sum, 4 * (2 * two + row % 2) + two);
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

// Beyond the last column a lane multiplies zeros: that all do the same spares branches. Whether a
// column is there is looked at only in the last few.
template <class X, int Weights, int Slots, bool Checked>
__device__ __forceinline__ void add_bytes(
    Shared const& shared, Operands const& o, uint8_t const* row, int first, int step,
    float (&sums)[Slots][4]) {
  uint2 weights[Slots][2];
  uint4 x[Slots];
#pragma unroll
  for (int i = 0; i < Slots; i++) {
    int column = first + i * step;
    bool there = !Checked || column < o.k;
    uint8_t const* from = row + (there ? column : 0);
    weights[i][0] = *reinterpret_cast<uint2 const*>(from);
    weights[i][1] = *reinterpret_cast<uint2 const*>(from + o.row_bytes);
    x[i] = *reinterpret_cast<uint4 const*>(there ? o.input + 2 * column : shared.zeros);
  }
#pragma unroll
  for (int i = 0; i < Slots; i++) {
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

// A lane has 8 neighbours of two rows at a time.
template <class X, int Weights, int Rows>
__device__ __forceinline__ float byte_product(Shared const& shared, Operands const& o) {
  constexpr int kAtOnce = Rows == 8 ? 4 : 3, kStep = 32 * Shares<Rows>::kEach;
  Shares<Rows> shares;
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  int at = 32 * shares.share + 8 * (threadIdx.x % 4), begin = 0;
  float sums[kAtOnce][4] = {}, last[1][4] = {};
#pragma unroll 1
  for (; begin + kAtOnce * kStep <= o.k; begin += kAtOnce * kStep) {
    add_bytes<X, Weights, kAtOnce, false>(shared, o, row, begin + at, kStep, sums);
  }
#pragma unroll 1
  for (; begin < o.k; begin += kStep) {
    add_bytes<X, Weights, 1, true>(shared, o, row, begin + at, kStep, last);
  }
#pragma unroll
  for (int i = 0; i < kAtOnce; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      last[0][j] += sums[i][j];
    }
  }
  return shares.add_up(own_sums(last[0]));
}

// Of the scales, those of two rows' blocks of a column.
template <class X>
__device__ __forceinline__ float2 block_scales(
    DecodeStep const& s, uint8_t const* scales, int column) {
  scales += (column >> s.block_bits) * int(sizeof(X));
  return {float(*reinterpret_cast<X const*>(scales)),
          float(*reinterpret_cast<X const*>(scales + s.record_bytes))};
}

template <class X, int Slots, bool Checked>
__device__ __forceinline__ void add_int4(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* row,
    uint8_t const* scales, int first, int step, float2 (&totals)[2]) {
  uint2 weights[Slots][2];
  uint4 x[Slots][2];
  float2 scale[Slots][2];
#pragma unroll
  for (int i = 0; i < Slots; i++) {
    int byte = first + i * step;
    bool there = !Checked || byte < o.row_bytes;
    byte = there ? byte : 0;
    int column = byte + (byte & -s.window);
    weights[i][0] = *reinterpret_cast<uint2 const*>(row + byte);
    weights[i][1] = *reinterpret_cast<uint2 const*>(row + byte + o.row_bytes);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int own = column + half * s.window;
      x[i][half] = *reinterpret_cast<uint4 const*>(there ? o.input + 2 * own : shared.zeros);
      scale[i][half] = block_scales<X>(s, scales, own);
    }
  }
#pragma unroll
  for (int i = 0; i < Slots; i++) {
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

// A lane has 8 bytes of two rows at a time: 8 neighbours in their low halves, and 8 in the high
// ones, `window` columns further on. What a group of lanes has of each is 32 columns, which are of
// one block. `records` are those of the rows.
template <class X, int Rows>
__device__ __forceinline__ float int4_product(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  constexpr int kAtOnce = Rows == 2 ? 2 : 3, kStep = 32 * Shares<Rows>::kEach;
  Shares<Rows> shares;
  uint8_t const* row = o.rows + shares.row * o.row_bytes;
  uint8_t const* scales = records + shares.row * s.record_bytes + kRecordBytes;
  int at = 32 * shares.share + 8 * (threadIdx.x % 4), begin = 0;
  float2 totals[2] = {};
#pragma unroll 1
  for (; begin + kAtOnce * kStep <= o.row_bytes; begin += kAtOnce * kStep) {
    add_int4<X, kAtOnce, false>(shared, s, o, row, scales, begin + at, kStep, totals);
  }
  if (begin < o.row_bytes) {
    add_int4<X, kAtOnce, true>(shared, s, o, row, scales, begin + at, kStep, totals);
  }
  return shares.add_up({totals[0].x + totals[1].x, totals[0].y + totals[1].y});
}

template <class T, int Form, int Rows>
__device__ __forceinline__ float product_of_rows(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  if constexpr (Form == kInt4Only) {
    return int4_product<T, Rows>(shared, s, o, records);
  } else {
    using X = std::conditional_t<Form == kFloat8Both, __half, T>;
    constexpr int kWeights = Form == kInt8Only ? kInt8Weights : kFloat8Weights;
    return byte_product<X, kWeights, Rows>(shared, o);
  }
}

// What goes before and after is there only once for all numbers of rows.
template <class T, int Form>
__device__ __forceinline__ float tensor_product_of(
    Shared const& shared, DecodeStep const& s, Operands const& o, uint8_t const* records) {
  if (s.rows == 4) {
    return product_of_rows<T, Form, 4>(shared, s, o, records);
  }
  if (s.rows == 2) {
    return product_of_rows<T, Form, 2>(shared, s, o, records);
  }
  return product_of_rows<T, Form, 8>(shared, s, o, records);
}

}  // namespace tripy
