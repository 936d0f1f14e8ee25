// Packed weights of a stage in shared memory, as operands of the tensor cores in registers.
//
// A stage has 64 columns of K: 64 bytes of each output's row (int8, float8), or the low or the high
// halves of 64 bytes (int4 with windows of 64 or 128: all bytes are fetched twice), or both halves
// of 32 bytes (int4 with windows of 32; the next 32 lie beside them unused). Columns are in x's
// order, which the tensor cores take from shared memory as it is: a thread's share of an operand is
// two neighbours here and two there.
#pragma once

#include <cstdint>

#include "mixed_gemm.h"
#include "mma.cuh"

namespace tripy {

constexpr int kMixedColumns = 64;     // Of x, in a stage: one swizzled row of 128 bytes.
constexpr int kMixedWeightBytes = 64;  // Of an output's row, in a stage.
constexpr int kMixedTileOutputs = 128;

struct MixedShape {
  int m, n, k, row_bytes, group, window;
  int cluster;  // Blocks with tiles side by side, which fetch their common rows of x together.
  int split;    // Blocks of one tile, each with a part of K; not with the above.
};

// Where stage `i` begins in a packed row; its columns of x are from 64·i on.
template <int Kind>
__device__ __forceinline__ int stage_byte(int i, int window) {
  if constexpr (Kind == kWeightInt4) {
    if (window == 32) {
      return i * 32;
    }
    // Of a window first all low halves: its columns in their order.
    int column = i * kMixedColumns;
    return (column / 2 & -window) + (column & window - 1);
  } else {
    return i * kMixedColumns;
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

// What a thread reads of a half of a stage: two steps of 16 columns, of each two outputs.
using MixedRaw = uint32_t[2][2];

// A thread's places in a stage, and its scales where they vary along the columns.
template <int Kind, class X, bool Blocks>
struct MixedWeight {
  uint32_t places[4];  // Of 16 columns each: bytes from the beginning of a stage's weights.
  int window, group, last;
  float const* scales[2];  // Of its two outputs.
  uint32_t scale[2];       // Of the present block, twice in x's type.
  float next[2];           // Of the block after it, on the way from memory.
  int left, block;         // Columns of the present block.

  // `slab` is the consumer's first output in a tile.
  __device__ __forceinline__ MixedWeight(MixedShape const& shape, int slab)
      : window(shape.window), group(shape.group) {
    int thread = threadIdx.x % 128, row = slab + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int step = 0; step < 4; step++) {
      int piece = Kind == kWeightInt4 && window == 32 ? step % 2 : step;
      // The copy engine's swizzle of rows of 64 bytes.
      places[step] = row * kMixedWeightBytes + ((piece ^ (row >> 1 & 3)) << 4) + thread % 4 * 2;
    }
  }

  // For a thread's outputs `output` and output + 8, from a stage on.
  __device__ __forceinline__ void begin(
      MixedShape const& shape, float const* from, int output, int stage) {
    if constexpr (Blocks) {
      last = shape.k / group - 1;
      scales[0] = from + int64_t{min(output, shape.n - 1)} * (last + 1);
      scales[1] = from + int64_t{min(output + 8, shape.n - 1)} * (last + 1);
      block = stage * kMixedColumns / group;
      left = (block + 1) * group - stage * kMixedColumns;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        scale[i] = twice(X(), __ldg(scales[i] + min(block, last)));
        next[i] = __ldg(scales[i] + min(block + 1, last));
      }
    }
  }

  // A half of a stage whose weights lie at `address`.
  template <int Half>
  __device__ __forceinline__ void load(uint32_t address, MixedRaw& raw) const {
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
  }

  // The same as operands; `i` is the stage.
  template <int Half>
  __device__ __forceinline__ void convert(MixedRaw& raw, int i, uint32_t (&a)[2][4]) {
    bool high = window == 32 ? Half == 1 : (i * kMixedColumns & window) != 0;
    int shift = high ? 4 : 0;  // Of int4.
#pragma unroll
    for (int step = 0; step < 2; step++) {
#pragma unroll
      for (int row = 0; row < 2; row++) {
        asm volatile("" : "+r"(raw[step][row])::"memory");  // Not before the wait in front.
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
    if constexpr (Blocks) {
      left -= kMixedColumns / 2;
      if (left == 0) {
        left = group;
        block++;
#pragma unroll
        for (int row = 0; row < 2; row++) {
          scale[row] = twice(X(), next[row]);
          next[row] = __ldg(scales[row] + min(block + 1, last));
        }
      }
    }
  }
};

}  // namespace tripy
