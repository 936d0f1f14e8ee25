// Where a decode step's time goes: a multiprocessor's clock at some moments of each step, which
// benchmarks/gpu_decode_kernel.py sets side by side. Only in libraries built for that (cmake
// -DTRIPY_CLOCKS=ON); in others there is no instruction of it.
#pragma once

#include "decode_step.h"
#include "hopper.cuh"

namespace tripy {

#ifdef TRIPY_CLOCKS
constexpr bool kClocks = true;
#else
constexpr bool kClocks = false;
#endif

// Of the first warp of a block, which has the first of its rows.
__device__ __forceinline__ void note(DecodeLaunch const& launch, int step, StepMoment moment) {
#ifdef TRIPY_CLOCKS
  if (threadIdx.x == 0 && launch.clocks != nullptr) {
    unsigned now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    launch.clocks[(blockIdx.x * launch.count + step) * kMoments + moment] = now;
  }
#endif
}

}  // namespace tripy
