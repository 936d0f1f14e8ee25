// float8 (E4M3) inputs and results of a decode step's linear layers.
//
// An E4M3 value is exact in float16, in which tensor cores multiply: such an input lies in shared
// memory in float16, whatever the activations' type.
#pragma once

#include "decode_step.cuh"
#include "mma.cuh"

namespace tripy {

// To the nearest one, ties to even, saturating; NaN stays.
__device__ __forceinline__ uint32_t to_float8(float x) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

// Four numbers, divided by the scale and rounded.
__device__ __forceinline__ uint32_t to_float8(DecodeStep const& s, float const (&x)[4]) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    float2 two = {divided(x[i], s.in_scale, s.inverse_in_scale),
                  divided(x[i + 1], s.in_scale, s.inverse_in_scale)};
    uint32_t bytes = __nv_cvt_float2_to_fp8x2(two, __NV_SATFINITE, __NV_E4M3);
    word |= bytes << 8 * i;
  }
  return word;
}

__device__ __forceinline__ void store_float8_quad(
    Worker& w, DecodeStep const& s, int quad, float const (&x)[4]) {
  uint32_t pairs[2];
  from_float8(__half(), to_float8(s, x), pairs);
  reinterpret_cast<uint2*>(w.shared.input)[quad] = {pairs[0], pairs[1]};
}

// Eight neighbours that have been rounded, to float8 or int8.
template <class W>
__device__ __forceinline__ void store_bytes(W& w, DecodeStep const& s, int eight, uint2 bytes) {
  if (W::kWeights != kFloat8Weights || !s.float8) {
    reinterpret_cast<uint2*>(w.shared.input)[eight] = bytes;
    return;
  }
  uint32_t low[2], high[2];
  from_float8(__half(), bytes.x, low);
  from_float8(__half(), bytes.y, high);
  reinterpret_cast<uint4*>(w.shared.input)[eight] = {low[0], low[1], high[0], high[1]};
}

}  // namespace tripy
