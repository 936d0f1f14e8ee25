// Products of a decode step of int8 weights with int8 inputs, in kernels that have nothing else.
//
// Most of a step's time is the way from the input to the result, so a warp's first group of rows is
// in registers before the input has come: to read it from shared memory (128 bytes a cycle, 90 KB a
// step in GPT-2 XL) takes longer than to multiply it. Tensor cores would take as long as the
// instruction for four bytes does, as seven eighths of what they do here is not wanted.
#pragma once

#include "decode_products.cuh"

namespace tripy {

__device__ __forceinline__ int dot(uint4 const& a, uint4 const& b, int sum) {
  sum = __dp4a(int(a.x), int(b.x), sum);
  sum = __dp4a(int(a.y), int(b.y), sum);
  sum = __dp4a(int(a.z), int(b.z), sum);
  return __dp4a(int(a.w), int(b.w), sum);
}

__device__ __forceinline__ uint4 sixteen(uint8_t const* from) {
  return *reinterpret_cast<uint4 const*>(from);
}

// Of all lanes' sums of each row, those of row l % Rows in lane l: by the bits of l. In these kernels
// the compiler makes of other ways an array in memory.
template <int Rows>
__device__ __forceinline__ float sum_of_own_row(int (&sums)[Rows]) {
#pragma unroll
  for (int r = 0; r < Rows; r++) {
    sums[r] = __reduce_add_sync(0xFFFFFFFF, sums[r]);
  }
#pragma unroll
  for (int bit = 1; bit < Rows; bit *= 2) {
#pragma unroll
    for (int r = 0; r < Rows; r += 2 * bit) {
      sums[r] = threadIdx.x & bit ? sums[r + bit] : sums[r];
    }
  }
  return float(sums[0]);
}

// A lane's part of a group of rows: 16 columns of each of them at a time, 512 a warp. What remains of
// all rows beyond such pieces, if that is no more than one piece of one row, is read later, but by
// all lanes.
struct KeptRows {
  static constexpr int kCount = 24;  // Enough for GPT-2 XL.
  uint4 pieces[kCount];
  int end, rest_row, rest_column;  // `end`: of the columns in pieces; `rest_row`: -1 for none.

  // All registers are written, whatever a row has, as others would never be free: with zeros.
  template <int Rows>
  __device__ __forceinline__ void load(
      uint8_t const* rows, int row_bytes, uint8_t const* zeros) {
    int lane = threadIdx.x % 32, whole = row_bytes & -512, count = (row_bytes - whole) / 16;
    bool packed = count * Rows <= 32 && whole <= 512 * (kCount / Rows);
    end = packed ? whole : row_bytes;
    rest_row = -1, rest_column = 0;
    if (packed && lane < count * Rows) {
      rest_row = quotient(lane, 1.0f / float(count));
      rest_column = whole + (lane - rest_row * count) * 16;
    }
#pragma unroll
    for (int i = 0; i < kCount / Rows; i++) {
      int at = 512 * i + 16 * lane;
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        pieces[i * Rows + r] = sixteen(at < end ? rows + r * row_bytes + at : zeros);
      }
    }
  }

  // The sum of row l % Rows in lane l. What lies in the input beyond the last column is multiplied
  // with zeros. What of long rows is not kept is read now.
  template <int Rows>
  __device__ __forceinline__ float product(Shared const& shared, Operands const& o) const {
    int sums[Rows] = {}, lane_at = 16 * (threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < kCount / Rows; i++) {
      if (i > 0 && i % 2 == 0 && 512 * i >= end) {
        break;
      }
      uint4 x = sixteen(o.input + 512 * i + lane_at);
#pragma unroll
      for (int r = 0; r < Rows; r++) {
        sums[r] = dot(pieces[i * Rows + r], x, sums[r]);
      }
    }
    uint8_t const* rest = o.rows + rest_row * o.row_bytes + rest_column;
    int more = dot(sixteen(rest_row < 0 ? shared.zeros : rest), sixteen(o.input + rest_column), 0);
#pragma unroll
    for (int r = 0; r < Rows; r++) {
      sums[r] += rest_row == r ? more : 0;
    }
    if (end > 512 * (kCount / Rows)) {
      add_columns<Rows>(shared, o, 512 * (kCount / Rows), sums);
    }
    return sum_of_own_row(sums);
  }
};

// The same of rows of which nothing is kept.
template <int Rows>
__device__ __forceinline__ float unkept_product(Shared const& shared, Operands const& o) {
  int sums[Rows] = {};
  add_columns<Rows>(shared, o, 0, sums);
  return sum_of_own_row(sums);
}

}  // namespace tripy
