// The C interface of weight_only.cuh: linear layers with packed weights for few rows of input.
#pragma once

#include "api.h"

enum WeightKind : int { kWeightInt8, kWeightInt4, kWeightFloat8 };

extern "C" {

// All matrices are row-major and contiguous; pointers are to memory of the current device. Those of
// `weight` and `x` are aligned to 16 bytes.
struct WeightOnly {
  void const* x;            // [m, k] of x_type
  void const* weight;       // [n, row_bytes], as tripy's packing.py has it
  float const* scale;       // [1], [n] or [n, k / group]
  void const* bias;         // [n] of param_type, or null
  void const* residual;     // [m, n] of result_type, or null
  void* out;                // [m, n] of out_type
  float in_scale;           // what x is divided by before it is rounded to round_type
  float factor;             // what the sums are multiplied with
  float out_scale;          // what the result is divided by where out is int8 or float8
  int m, n, k, row_bytes;
  int group;                // columns that share a scale: 0 for all, 1 for one an output
  int window;               // of int4: half the columns of a window
  int weight_kind;          // enum WeightKind
  int x_type, out_type, param_type;  // enum Type
  int result_type;          // of the layer: out's, or what the result has before out_scale
  int round_type;           // kTypeInt8 or kTypeFloat8, or -1: x is not rounded
  int compute_type;         // kTypeFloat16, kTypeBFloat16 or kTypeInt8
  int activation;           // enum Activation in epilogue.cuh
  int row_tiles;            // of 16 outputs, of a warp: 1 or 2; streaming x, 2
  int cluster;              // blocks that share the columns: 1, 2, 4 or 8; streaming x, 1
  int slots;                // of a warp, 1 to 8; of a block that streams x, stages
  int rows_at_once;         // of x, by one block: up to 16, or 17 to 64 that are streamed
  int warps;                // of a block: 8 or 16; streaming x, 8 that multiply
  int streams_x;            // 1: x comes with the weights (weight_stream.cuh)
  int passes;               // of a block over x, each for other outputs; streaming x, 1
  int early_launch;         // 1: may start while the kernel before it ends
};

// Launches on the stream of the current device. Returns a cudaError_t.
TRIPY_PUBLIC int tripy_weight_only(WeightOnly const* problem, void* stream);
TRIPY_PUBLIC int tripy_weight_only_size();
}
