// A whole decode step (some rows, one token each) in one kernel that stays on the GPU.
//
// Launched one by one, the layers of a small model take longer to start than to read their weights.
// Here one block a multiprocessor works off a table of steps. One of its warps streams the block's
// share of all weights, step after step, through a ring in shared memory: it depends on nothing,
// so memory never rests while the other warps wait for each other's results. These come through the
// exchange (exchange.cuh).
//
// Each row's arithmetic is the same whatever the other rows are, and in any run.
//
// A step takes two to four thousand clock cycles, most of them for instructions that each warp runs
// once: fewer warps with short ways through the code are faster than many.
#pragma once

#include "decode_step.h"
#include "epilogue.cuh"
#include "exchange.cuh"
#include "hopper.cuh"
#include "tiles.cuh"

namespace tripy {

constexpr int kWarps = 8;
constexpr int kWorkers = 32 * kWarps;
constexpr int kStepThreads = kWorkers + 128;  // Registers are given and taken by four warps.
constexpr int kRingBytes = 20480, kRingStages = 8;
constexpr int kInputBytes = 48 * 1024;
constexpr int kMostRows = 8;     // Of the input: columns of the tensor cores' instruction.
constexpr int kTileRows = 8;     // Of the weight, of its sixteen.
constexpr int kBlock = 64;       // Columns that a warp multiplies at once: 16 bytes a lane.
constexpr int kMostWidth = 128;  // Of a head.

struct Shared {
  alignas(128) uint8_t ring[kRingStages][kRingBytes];
  alignas(16) uint8_t input[kInputBytes];
  alignas(16) float sums[2][kWarps][kTileRows * kMostRows];
  alignas(16) float2 scratch[kMostRows][kWarps];
  float heads[kWarps][kMostWidth + 2];
  alignas(16) DecodeStep steps[2];
  uint64_t full[kRingStages], empty[kRingStages];
};

struct Worker {
  DecodeLaunch const& launch;
  Shared& shared;
  Exchange exchange;
  Ring<kRingStages> ring;

  __device__ __forceinline__ static void sync() { group_sync<kWorkers>(1); }
};

template <class T>
__device__ __forceinline__ float to_type(float x) {
  return float(T(x));
}

__device__ __forceinline__ float rounded_to(float x, int type) {
  if (type == kTypeInt8) {
    return rintf(fminf(fmaxf(x, -128.0f), 127.0f));
  }
  return float(__nv_fp8_e4m3(x));  // Saturates; NaN stays.
}

// The quotient x / scale, correctly rounded, from the reciprocal and what a product leaves over
// (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990).
__device__ __forceinline__ float divided(float x, float scale, float reciprocal) {
  float quotient = fminf(fmaxf(x * reciprocal, -1000.0f), 1000.0f);
  quotient = fmaf(fmaf(-quotient, scale, x), reciprocal, quotient);
  return x != x ? x : quotient;
}

}  // namespace tripy
