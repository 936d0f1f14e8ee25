// Packed weights as operands of the tensor cores, and the instructions that multiply them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "hopper.cuh"

namespace tripy {

#ifndef TRIPY_EMULATOR

__device__ __forceinline__ uint32_t subtract(__half, uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

__device__ __forceinline__ uint32_t subtract(__nv_bfloat16, uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

// sums[16, 8] += a[16, k] · b[k, 8]
__device__ __forceinline__ void multiply(
    __half, float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void multiply(
    __nv_bfloat16, float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void multiply(
    int8_t, int (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four float8 as pairs.
__device__ __forceinline__ void from_float8(__half, uint32_t w, uint32_t (&pairs)[2]) {
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n"
      "}"
      : "=r"(pairs[0]), "=r"(pairs[1])
      : "r"(w));
}

#endif

// Four int8 as pairs of float16. With an exponent of 1024 the low bits of a float16 are the
// integers 0 … 1023: bytes, biased by 128, go below such exponents by a permutation.
__device__ __forceinline__ void from_int8(__half type, uint32_t w, uint32_t (&pairs)[2]) {
  w ^= 0x80808080;
  pairs[0] = subtract(type, __byte_perm(w, 0x64646464, 0x4140), 0x64806480);
  pairs[1] = subtract(type, __byte_perm(w, 0x64646464, 0x4342), 0x64806480);
}

// The same as float32: a byte plus 128 below the exponent of 2^23 is 2^23 + 128 + the byte.
__device__ __forceinline__ void from_int8(uint32_t w, float (&x)[4]) {
  w ^= 0x80808080;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[i] = __uint_as_float(__byte_perm(w, 0x4B000000, 0x7650 + i)) - 8388736.0f;
  }
}

// bfloat16 has too few bits for that, but is float32's upper half.
__device__ __forceinline__ void from_int8(__nv_bfloat16, uint32_t w, uint32_t (&pairs)[2]) {
  float x[4];
  from_int8(w, x);
  pairs[0] = __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x7632);
  pairs[1] = __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x7632);
}

// The same of four int4, each plus 8, in the low halves of bytes.
__device__ __forceinline__ void from_int4(__half type, uint32_t w, uint32_t (&pairs)[2]) {
  pairs[0] = subtract(type, __byte_perm(w, 0x64646464, 0x4140), 0x64086408);
  pairs[1] = subtract(type, __byte_perm(w, 0x64646464, 0x4342), 0x64086408);
}

__device__ __forceinline__ void from_int4(__nv_bfloat16 type, uint32_t w, uint32_t (&pairs)[2]) {
  pairs[0] = subtract(type, __byte_perm(w, 0x43434343, 0x4140), 0x43084308);
  pairs[1] = subtract(type, __byte_perm(w, 0x43434343, 0x4342), 0x43084308);
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

}  // namespace tripy
