// The tensor cores' instruction for a warpgroup with A in registers:
// D[64, N] += A[64, 16] · B[N, 16]ᵀ of float16 or bfloat16, B in shared memory, D in registers,
// asynchronous.
//
// Thread t has, of A, rows r = 16·(t / 32) + (t % 32) / 4 and r + 8 and, with p = 2·(t % 4),
// columns p, p + 1 (a[0] of r, a[1] of r + 8) and p + 8, p + 9 (a[2], a[3]). Of D: see wgmma.cuh.
// These registers are read until the instruction has been waited for.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "wgmma.cuh"

namespace tripy {

// Before wgmma_fence: keeps the compiler from computing A after it.
template <int Steps>
__device__ __forceinline__ void wgmma_operands(uint32_t (&a)[Steps][4]) {
#pragma unroll
  for (int step = 0; step < Steps; step++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      asm volatile("" : "+r"(a[step][i])::"memory");
    }
  }
}

#define TRIPY_R96(C, i) TRIPY_R64(C, i), TRIPY_R32(C, i + 64)
#define TRIPY_N96                                                                              \
  TRIPY_N64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
            ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

// The registers of D, then four of A, the descriptor of B and whether D's present values count.
#define TRIPY_WGMMA_MIXED(N, COUNT, TYPES, A0, A1, A2, A3, B, ADD)                                \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\n"                               \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPES " {" TRIPY_N##COUNT "}, {" \
               A0 ", " A1 ", " A2 ", " A3 "}, " B ", add, 1, 1, 0;\n}"                            \
               : TRIPY_R##COUNT("+f", 0)                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define TRIPY_WGMMA_MIXED_256(TYPES) \
  TRIPY_WGMMA_MIXED(256, 128, TYPES, "%128", "%129", "%130", "%131", "%132", "%133")
#define TRIPY_WGMMA_MIXED_192(TYPES) \
  TRIPY_WGMMA_MIXED(192, 96, TYPES, "%96", "%97", "%98", "%99", "%100", "%101")
#define TRIPY_WGMMA_MIXED_128(TYPES) \
  TRIPY_WGMMA_MIXED(128, 64, TYPES, "%64", "%65", "%66", "%67", "%68", "%69")
#define TRIPY_WGMMA_MIXED_64(TYPES) \
  TRIPY_WGMMA_MIXED(64, 32, TYPES, "%32", "%33", "%34", "%35", "%36", "%37")

template <int N, class X>
__device__ __forceinline__ void wgmma_mixed(
    float (&d)[N / 2], uint32_t const (&a)[4], uint64_t b, int add) {
  static_assert(N == 256 || N == 192 || N == 128 || N == 64);
  if constexpr (std::is_same_v<X, __half>) {
    if constexpr (N == 256) {
      TRIPY_WGMMA_MIXED_256("f16.f16");
    } else if constexpr (N == 192) {
      TRIPY_WGMMA_MIXED_192("f16.f16");
    } else if constexpr (N == 128) {
      TRIPY_WGMMA_MIXED_128("f16.f16");
    } else {
      TRIPY_WGMMA_MIXED_64("f16.f16");
    }
  } else {
    if constexpr (N == 256) {
      TRIPY_WGMMA_MIXED_256("bf16.bf16");
    } else if constexpr (N == 192) {
      TRIPY_WGMMA_MIXED_192("bf16.bf16");
    } else if constexpr (N == 128) {
      TRIPY_WGMMA_MIXED_128("bf16.bf16");
    } else {
      TRIPY_WGMMA_MIXED_64("bf16.bf16");
    }
  }
}

}  // namespace tripy
