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

// Four int4, each plus 8, in the low halves of bytes.
__device__ __forceinline__ void from_int4(__half type, uint32_t w, uint32_t (&pairs)[2]) {
  pairs[0] = subtract(type, __byte_perm(w, 0x64646464, 0x4140), 0x64086408);
  pairs[1] = subtract(type, __byte_perm(w, 0x64646464, 0x4342), 0x64086408);
}

__device__ __forceinline__ void from_int4(__nv_bfloat16 type, uint32_t w, uint32_t (&pairs)[2]) {
  pairs[0] = subtract(type, __byte_perm(w, 0x43434343, 0x4140), 0x43084308);
  pairs[1] = subtract(type, __byte_perm(w, 0x43434343, 0x4342), 0x43084308);
}

__device__ __forceinline__ void from_float8(__half, uint32_t w, uint32_t (&pairs)[2]) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    auto two = static_cast<__nv_fp8x2_storage_t>(w >> 16 * i);
    __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3);
    memcpy(&pairs[i], &pair, sizeof(pair));
  }
}

__device__ __forceinline__ void from_float8(__nv_bfloat16, uint32_t w, uint32_t (&pairs)[2]) {
  from_float8(__half(), w, pairs);
#pragma unroll
  for (uint32_t& pair : pairs) {
    float2 values = __half22float2(reinterpret_cast<__half2&>(pair));
    __nv_bfloat162 rounded = __floats2bfloat162_rn(values.x, values.y);
    pair = reinterpret_cast<uint32_t&>(rounded);
  }
}

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
