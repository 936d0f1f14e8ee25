// The library's C interface. No type of C++ and none of PyTorch's crosses it, so that one build
// serves every version of either.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

enum Type : int { kTypeFloat32, kTypeFloat16, kTypeBFloat16, kTypeInt8, kTypeFloat8 };

extern "C" {

// One product of matrices; see scaled_gemm.cuh for what it computes. All matrices are row-major and
// contiguous, all pointers are to memory of the current device and aligned to 16 bytes.
struct ScaledGemm {
  void const* a;           // [m, k]
  void const* b;           // [n, k]
  void* d;                 // [m, n]
  float const* scale;      // [n]
  float const* row_scale;  // [m] or null
  float const* bias;       // [n] or null
  void const* residual;    // [m, n] of d's type or null; null where d is int8 or float8
  float inverse_out_scale; // d = round(result * this) where d is int8 or float8
  int activation;          // enum Activation in epilogue.cuh
  int m, n, k;
  int in_type, out_type;   // enum Type; in_type int8 or float8
  int tile;                // row of the table in launch.cuh, or -1 for the best one
  int multiprocessors;     // of the device
  int early_launch;        // 1: may start while the kernel before it ends
};

#define TRIPY_PUBLIC __attribute__((visibility("default")))

// Launches on the stream (a cudaStream_t) of the current device. Returns a cudaError_t.
TRIPY_PUBLIC int tripy_scaled_gemm(ScaledGemm const* problem, void* stream);
TRIPY_PUBLIC char const* tripy_error(int error);
// Bytes of ScaledGemm: not those that the caller has if the two are of different versions.
TRIPY_PUBLIC int tripy_scaled_gemm_size();
}
