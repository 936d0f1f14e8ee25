// Packed weights as operands of the tensor cores. The instructions that multiply them: mma.cuh.
//
// A weight is the operand of 16 rows, x the one of 8 columns. Which column of K is called which is
// free, as long as both operands agree: a lane has 8 neighbours of a row, loaded at once, and they
// are its share of two steps of 16 columns (one of 32 where both are int8).
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "mma.cuh"
#include "weight_only.h"

namespace tripy {

// Four weights of the given half of their bytes (int4 has two), as what is multiplied: two pairs,
// or one word of int8. int4 becomes int8 times 16, which needs no extension of the sign.
template <int Kind, class X, int Half>
__device__ __forceinline__ void unpack(uint32_t w, uint32_t (&operand)[2]) {
  if constexpr (std::is_same_v<X, int8_t>) {
    if constexpr (Kind == kWeightInt4) {
      w ^= 0x88888888;
      operand[0] = (Half == 0 ? w << 4 : w) & 0xf0f0f0f0;
    } else {
      operand[0] = w;
    }
  } else if constexpr (Kind == kWeightInt4) {
    from_int4(X(), (Half == 0 ? w : w >> 4) & 0x0f0f0f0f, operand);
  } else if constexpr (Kind == kWeightInt8) {
    from_int8(X(), w, operand);
  } else {
    from_float8(X(), w, operand);
  }
}

// What a lane reads at once of 16 x Tiles rows of a weight: 8 bytes of two rows of each tile.
template <int Tiles>
using RawTiles = uint2[Tiles][2];

// From rows of `RowBytes`, `row` of each eight; `byte` is the place within a row.
template <int RowBytes, int Tiles>
__device__ __forceinline__ void load_tiles(
    char const* from, int row, int byte, RawTiles<Tiles>& w) {
#pragma unroll
  for (int tile = 0; tile < Tiles; tile++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int address = (tile * 16 + i * 8 + row) * RowBytes + byte;
      w[tile][i] = *reinterpret_cast<uint2 const*>(from + address);
    }
  }
}

// A half of the bytes as operands: two steps of 16 columns, or one of 32 where both are int8.
template <int Kind, class X, int Half, int Tiles, int Steps>
__device__ __forceinline__ void unpack_tiles(
    RawTiles<Tiles> const& w, uint32_t (&a)[Tiles][Steps][4]) {
#pragma unroll
  for (int tile = 0; tile < Tiles; tile++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      uint32_t first[2], second[2];
      unpack<Kind, X, Half>(w[tile][i].x, first);
      unpack<Kind, X, Half>(w[tile][i].y, second);
      if constexpr (Steps == 1) {
        a[tile][0][i] = first[0], a[tile][0][2 + i] = second[0];
      } else {
        a[tile][0][i] = first[0], a[tile][0][2 + i] = first[1];
        a[tile][1][i] = second[0], a[tile][1][2 + i] = second[1];
      }
    }
  }
}

// totals += sums · scale, of which `scales` has that of each row.
template <int Tiles, int N, class Sum>
__device__ __forceinline__ void add_scaled(
    float (&totals)[Tiles][N][4], Sum const (&sums)[Tiles][N][4], float const* scales, int row) {
#pragma unroll
  for (int tile = 0; tile < Tiles; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float by = scales[tile * 16 + i / 2 * 8 + row];
#pragma unroll
      for (int n = 0; n < N; n++) {
        totals[tile][n][i] += static_cast<float>(sums[tile][n][i]) * by;
      }
    }
  }
}

}  // namespace tripy
