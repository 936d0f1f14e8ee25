// Packed weights of a stage in shared memory, as operands of the tensor cores in registers.
//
// A stage has 64 columns of K: 64 bytes of each output's row (int8, float8), or the low or the high
// halves of 64 bytes (int4 with windows of 64 or 128: each byte is fetched twice), or both halves of
// 32 bytes (int4 with windows of 32; the next 32 lie beside them unused). Columns are in x's order,
// which the tensor cores take from shared memory as it is: a thread's share of an operand is two
// neighbours here and two there.
#pragma once

#include <cstdint>

#include "mixed_gemm.h"
#include "mma.cuh"

namespace tripy {

constexpr int kMixedColumns = 64;     // Of x, in a stage: one swizzled row of 128 bytes.
constexpr int kMixedWeightBytes = 64;  // Of an output's row, in a stage.

struct MixedShape {
  int m, n, k, row_bytes, group, window;
};

// Where the columns of stage `i` begin: in x, and in bytes of a packed row.
template <int Kind>
__device__ __forceinline__ int2 stage_columns(int i, int window) {
  if constexpr (Kind == kWeightInt4) {
    if (window == 32) {
      return {i * kMixedColumns, i * 32};
    }
    int byte = i / 2 * kMixedWeightBytes;
    return {byte + (byte & -window) + i % 2 * window, byte};  // A power of two.
  } else {
    return {i * kMixedColumns, i * kMixedColumns};
  }
}

__device__ __forceinline__ uint32_t load_shared_pair(uint32_t address) {
  uint16_t bytes;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bytes) : "r"(address) : "memory");
  return bytes;
}

__device__ __forceinline__ uint32_t times(__half, uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

__device__ __forceinline__ uint32_t times(__nv_bfloat16, uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

__device__ __forceinline__ uint32_t twice(__half, float value) {
  __half2 both = __float2half2_rn(value);
  return reinterpret_cast<uint32_t&>(both);
}

__device__ __forceinline__ uint32_t twice(__nv_bfloat16, float value) {
  __nv_bfloat162 both = __float2bfloat162_rn(value);
  return reinterpret_cast<uint32_t&>(both);
}

// A thread's places in a stage, and its scales where they vary along the columns.
template <int Kind, class X, bool Blocks>
struct MixedWeight {
  uint32_t places[4];  // Of 16 columns each: bytes from the beginning of a stage.
  int window;
  float const* scales[2];  // Of its two outputs.
  float next[2];           // Of the 32 columns that are converted next.
  float blocks;            // Of 32 columns: 1 or a part of it.
  int last;                // Block of an output.

  // `slab` is the consumer's first output in a tile.
  __device__ __forceinline__ MixedWeight(MixedShape const& shape, int slab)
      : window(shape.window) {
    int thread = threadIdx.x % 128, row = slab + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int step = 0; step < 4; step++) {
      int piece = Kind == kWeightInt4 && window == 32 ? step % 2 : step;
      // The copy engine's swizzle of rows of 64 bytes.
      places[step] = row * kMixedWeightBytes + ((piece ^ (row >> 1 & 3)) << 4) + thread % 4 * 2;
    }
    if constexpr (Blocks) {
      blocks = 32.0f / shape.group;
      last = shape.k / shape.group - 1;
    }
  }

  // For outputs from `output` on, the consumer's first one.
  __device__ __forceinline__ void begin(MixedShape const& shape, float const* scale, int output) {
    if constexpr (Blocks) {
      int row = output + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
      scales[0] = scale + int64_t{min(row, shape.n - 1)} * (last + 1);
      scales[1] = scale + int64_t{min(row + 8, shape.n - 1)} * (last + 1);
      fetch(0, 0);
    }
  }

  // Asks for the scales of a half of a stage.
  __device__ __forceinline__ void fetch(int stage, int half) {
    if constexpr (Blocks) {
      int unit = stage_columns<Kind>(stage, window).x / 32 + half;
      // The half keeps the product away from whole numbers, where rounding would matter.
      int block = min(int((unit + 0.5f) * blocks), last);
      next[0] = __ldg(scales[0] + block);
      next[1] = __ldg(scales[1] + block);
    }
  }

  // A half of stage `i`, which lies at `address`: two steps of 16 columns.
  template <int Half>
  __device__ __forceinline__ void convert(uint32_t address, int i, uint32_t (&a)[2][4]) {
    uint32_t raw[2][2];
#pragma unroll
    for (int step = 0; step < 2; step++) {
      uint32_t place = address + places[2 * Half + step];
#pragma unroll
      for (int row = 0; row < 2; row++) {
        constexpr int kEightRows = 8 * kMixedWeightBytes;
        raw[step][row] = load_shared_pair(place + row * kEightRows) |
                         load_shared_pair(place + row * kEightRows + 8) << 16;
      }
    }
    uint32_t scale[2];
    if constexpr (Blocks) {
      scale[0] = twice(X(), next[0]);
      scale[1] = twice(X(), next[1]);
      fetch(i + Half, 1 - Half);
    }
    int shift = (window == 32 ? Half : i & 1) * 4;
#pragma unroll
    for (int step = 0; step < 2; step++) {
#pragma unroll
      for (int row = 0; row < 2; row++) {
        uint32_t pairs[2], w = raw[step][row];
        if constexpr (Kind == kWeightInt4) {
          from_int4(X(), w >> shift & 0x0f0f0f0f, pairs);
        } else if constexpr (Kind == kWeightInt8) {
          from_int8(X(), w, pairs);
        } else {
          from_float8(X(), w, pairs);
        }
        if constexpr (Blocks) {
          // Rounded once: layers have scales of x's type, as which these are exact.
          pairs[0] = times(X(), pairs[0], scale[row]);
          pairs[1] = times(X(), pairs[1], scale[row]);
        }
        a[step][row] = pairs[0];
        a[step][2 + row] = pairs[1];
      }
    }
  }
};

}  // namespace tripy
