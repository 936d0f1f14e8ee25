// What happens to a sum on its way out: activation, and conversion to the type of the output.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "hopper.cuh"

namespace tripy {

enum Activation : int { kNone = 0, kRelu = 1, kSilu = 2, kGelu = 3, kGeluTanh = 4 };

// x / (1 + 2^y), within about 2^-21 of it: two instructions of the special function unit.
__device__ __forceinline__ float over_one_plus_exp2(float x, float y) {
  return x * approximate_reciprocal(1.0f + approximate_exp2(y));
}

// One switch for many values: the branch is the same for all threads.
template <int Count>
__device__ __forceinline__ void activate(float (&values)[Count], int activation) {
  switch (activation) {
    case kRelu:
#pragma unroll
      for (int i = 0; i < Count; i++) {
        values[i] = values[i] < 0.0f ? 0.0f : values[i];  // NaN stays.
      }
      break;
    case kSilu:
#pragma unroll
      for (int i = 0; i < Count; i++) {
        values[i] = over_one_plus_exp2(values[i], -1.44269504f * values[i]);
      }
      break;
    case kGelu:
#pragma unroll
      for (int i = 0; i < Count; i++) {
        values[i] = 0.5f * values[i] * (1.0f + erff(values[i] * 0.70710678f));
      }
      break;
    case kGeluTanh:
      // (1 + tanh(y)) / 2 = 1 / (1 + e^(-2y)), y = √(2/π)·(x + 0.044715·x³). The instruction for
      // tanh would be cheaper, but its absolute error is as large as the result where x < -2.5.
#pragma unroll
      for (int i = 0; i < Count; i++) {
        float x = values[i];
        values[i] = over_one_plus_exp2(x, x * (-2.30220820f - 0.102943240f * x * x));
      }
      break;
    default:
      break;
  }
}

// Two neighbours in the type of the output; floating-point types keep NaN, the eight-bit ones
// round to nearest even and saturate.
template <class Out>
struct Convert;

template <>
struct Convert<float> {
  using Pair = float2;
  static __device__ __forceinline__ Pair pair(float x, float y) { return {x, y}; }
  static __device__ __forceinline__ float2 floats(Pair p) { return p; }
};

template <>
struct Convert<__half> {
  using Pair = __half2;
  static __device__ __forceinline__ Pair pair(float x, float y) {
    return __floats2half2_rn(x, y);
  }
  static __device__ __forceinline__ float2 floats(Pair p) { return __half22float2(p); }
};

template <>
struct Convert<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  static __device__ __forceinline__ Pair pair(float x, float y) {
    return __floats2bfloat162_rn(x, y);
  }
  static __device__ __forceinline__ float2 floats(Pair p) { return __bfloat1622float2(p); }
};

template <>
struct Convert<int8_t> {
  using Pair = uint16_t;
  static __device__ __forceinline__ Pair pair(float x, float y) {
    int low = __float2int_rn(x), high = __float2int_rn(y);
    uint32_t packed;
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(packed) : "r"(high), "r"(low));
    return static_cast<uint16_t>(packed);
  }
};

template <>
struct Convert<__nv_fp8_e4m3> {
  using Pair = __nv_fp8x2_storage_t;
  static __device__ __forceinline__ Pair pair(float x, float y) {
    return __nv_cvt_float2_to_fp8x2({x, y}, __NV_SATFINITE, __NV_E4M3);
  }
};

}  // namespace tripy
