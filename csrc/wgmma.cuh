// The tensor cores' instruction for a warpgroup: D[64, N] += A[64, 32] · B[N, 32]ᵀ, one byte an
// element, A and B in shared memory, D in registers, asynchronous.
//
// Thread t of the warpgroup holds, of D, rows r = 16·(t / 32) + (t % 32) / 4 and r + 8, and of
// every eight columns the pair c = 2·(t % 4): d[4j + 0, 1] are (r, 8j + c) and (r, 8j + c + 1),
// d[4j + 2, 3] the same columns of row r + 8.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

namespace tripy {

// Where a matrix of one byte an element lies in shared memory: rows of 128 bytes, whose 16-byte
// pieces are permuted in groups of 8 rows ("128-byte swizzle"), so that no two rows of a group
// have the same column in the same banks. Eight rows are 1,024 bytes.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t shared_address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kBytesOfEightRows = uint64_t{1024 >> 4} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kBytesOfEightRows | kUnused | ((shared_address & 0x3FFFF) >> 4);
}

// 32 bytes further along a row: the next step of K.
constexpr uint64_t kNextStep = 32 >> 4;

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// After the wait: keeps the compiler from reading D before it.
template <int Count, class T>
__device__ __forceinline__ void wgmma_results(T (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i++) {
    if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(d[i])::"memory");
    } else {
      asm volatile("" : "+r"(d[i])::"memory");
    }
  }
}

#define TRIPY_R4(C, i) C(d[i]), C(d[i + 1]), C(d[i + 2]), C(d[i + 3])
#define TRIPY_R16(C, i) \
  TRIPY_R4(C, i), TRIPY_R4(C, i + 4), TRIPY_R4(C, i + 8), TRIPY_R4(C, i + 12)
#define TRIPY_R32(C, i) TRIPY_R16(C, i), TRIPY_R16(C, i + 16)
#define TRIPY_R64(C, i) TRIPY_R32(C, i), TRIPY_R32(C, i + 32)
#define TRIPY_R128(C, i) TRIPY_R64(C, i), TRIPY_R64(C, i + 64)

#define TRIPY_N16 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TRIPY_N32 \
  TRIPY_N16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TRIPY_N64                                                                              \
  TRIPY_N32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
            ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TRIPY_N128                                                                             \
  TRIPY_N64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
            ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
            ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109" \
            ", %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122"   \
            ", %123, %124, %125, %126, %127"

// The registers of D, then two descriptors (A, B) and whether D's present values count.
#define TRIPY_WGMMA(N, COUNT, TYPES, CONSTRAINT, A, B, ADD, SIGNS)                                \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\n"                               \
               "wgmma.mma_async.sync.aligned.m64n" #N "k32." TYPES " {" TRIPY_N##COUNT "}, " A    \
               ", " B ", add" SIGNS ";\n}"                                                        \
               : TRIPY_R##COUNT(CONSTRAINT, 0)                                                    \
               : "l"(a), "l"(b), "r"(add))

template <int N>
__device__ __forceinline__ void wgmma(
    int32_t (&d)[N / 2], uint64_t a, uint64_t b, int add, int8_t) {
  if constexpr (N == 256) {
    TRIPY_WGMMA(256, 128, "s32.s8.s8", "+r", "%128", "%129", "%130", "");
  } else if constexpr (N == 128) {
    TRIPY_WGMMA(128, 64, "s32.s8.s8", "+r", "%64", "%65", "%66", "");
  } else if constexpr (N == 64) {
    TRIPY_WGMMA(64, 32, "s32.s8.s8", "+r", "%32", "%33", "%34", "");
  } else {
    static_assert(N == 32);
    TRIPY_WGMMA(32, 16, "s32.s8.s8", "+r", "%16", "%17", "%18", "");
  }
}

// The sum is kept in the tensor core from step to step, with fewer bits than float32 has ("fast
// accumulation"); inference asks for no more.
template <int N>
__device__ __forceinline__ void wgmma(
    float (&d)[N / 2], uint64_t a, uint64_t b, int add, __nv_fp8_e4m3) {
  if constexpr (N == 256) {
    TRIPY_WGMMA(256, 128, "f32.e4m3.e4m3", "+f", "%128", "%129", "%130", ", 1, 1");
  } else if constexpr (N == 128) {
    TRIPY_WGMMA(128, 64, "f32.e4m3.e4m3", "+f", "%64", "%65", "%66", ", 1, 1");
  } else if constexpr (N == 64) {
    TRIPY_WGMMA(64, 32, "f32.e4m3.e4m3", "+f", "%32", "%33", "%34", ", 1, 1");
  } else {
    static_assert(N == 32);
    TRIPY_WGMMA(32, 16, "f32.e4m3.e4m3", "+f", "%16", "%17", "%18", ", 1, 1");
  }
}

}  // namespace tripy
