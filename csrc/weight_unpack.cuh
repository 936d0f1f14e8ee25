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

}  // namespace tripy
