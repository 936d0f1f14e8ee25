// Products of a decode step: rows of int8 weights, in shared memory, times its int8 input. All
// others: decode_tensor_products.cuh.
//
// A warp has `Rows` neighbouring rows, each of all columns; lane l gets the sum of row l % Rows. No
// other warp has to add to it.
#pragma once

#include "decode_step.cuh"

namespace tripy {

struct Operands {
  uint8_t const *rows, *input;
  int row_bytes, k;
};

// Columns from `begin` on. Lanes beyond the last one multiply zeros: that every lane does the same
// spares branches, which cost more than what they skip.
template <int Rows>
__device__ __forceinline__ void add_columns(
    Shared const& shared, Operands const& o, int begin, int (&sums)[Rows]) {
#pragma unroll 1
  for (; begin < o.row_bytes; begin += 1024) {
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
}

template <int Rows>
__device__ __forceinline__ float integer_product(Shared const& shared, Operands const& o) {
  int sums[Rows] = {};
  add_columns<Rows>(shared, o, 0, sums);
#pragma unroll
  for (int r = 0; r < Rows; r++) {
    sums[r] = __reduce_add_sync(0xFFFFFFFF, sums[r]);
  }
#pragma unroll
  for (int r = 1; r < Rows; r++) {
    sums[0] = threadIdx.x % Rows == r ? sums[r] : sums[0];
  }
  return float(sums[0]);
}

}  // namespace tripy
