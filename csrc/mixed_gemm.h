// The C interface of mixed_gemm.cuh: linear layers with packed weights for many rows of input.
#pragma once

#include "weight_only.h"

extern "C" {

// All matrices are row-major and contiguous; pointers are to memory of the current device, those of
// x and of the weight aligned to 16 bytes.
struct MixedGemm {
  void const* x;         // [m, k] of x_type, k a multiple of 8
  void const* weight;    // [n, row_bytes], as tripy's packing.py has it
  float const* scale;    // [1], [n] or [n, k / group]
  float const* bias;     // [n] or null
  void const* residual;  // [m, n] of out_type or null
  void* out;             // [m, n] of out_type
  float factor;          // what the sums are multiplied with
  int m, n, k, row_bytes;
  int group;             // columns that share a scale, a multiple of 32; 0: all; 1: one an output
  int window;            // of int4: half the columns of a window
  int weight_kind;       // enum WeightKind
  int x_type;            // kTypeFloat16 or kTypeBFloat16
  int out_type;          // one of these or kTypeFloat32
  int activation;        // enum Activation in epilogue.cuh
  int tile;              // row of the table in mixed_launch.cuh
  int multiprocessors;   // of the device
};

// Launches on the stream of the current device. Returns a cudaError_t.
TRIPY_PUBLIC int tripy_mixed_gemm(MixedGemm const* problem, void* stream);
TRIPY_PUBLIC int tripy_mixed_gemm_size();
}
