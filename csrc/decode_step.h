// One decode step of a model as a table of steps that one kernel works off; see decode_step.cuh.
#pragma once

#include "api.h"

enum StepKind : int { kStepLinear, kStepAttention };
// Where a linear step's input comes from: a tensor; the exchange; or the exchange, as parts of an
// attention over several chunks.
enum StepSource : int { kFromTensor, kFromExchange, kFromParts };
enum StepNorm : int { kNoNorm, kLayerNorm, kRmsNorm };

extern "C" {

// Offsets in the exchange count values; tensors are numbers of `DecodeLaunch::tensors`. -1: none.
struct DecodeStep {
  void const* weight;        // [n, row_bytes], int8 or float8
  float const* scale;        // [n], times the input's scale
  float const* bias;         // [n] or null
  float const* norm_weight;  // [k] or null
  float const* norm_bias;    // [k] or null
  int kind;                  // enum StepKind
  int source, in;            // enum StepSource; offset or tensor [rows, k]
  int quads;                 // Of a thread, where one row's input is held in registers; else 0.
  int k, n, row_bytes;
  int stride;       // of rows in the ring, so that they are spread over the banks
  int weight_type;  // kTypeInt8 or kTypeFloat8
  int norm;         // enum StepNorm
  float eps;
  float in_scale;  // The input is divided by it and rounded to in_type; 0: it is not.
  int in_type;     // kTypeInt8, kTypeFloat8, or -1: a floating-point input
  int activation;  // enum Activation in epilogue.cuh
  int residual, residual_tensor;  // added last: offset in the exchange, or tensor
  float inverse_out_scale;        // for an out_type of one byte
  int out_type;                   // kTypeInt8, kTypeFloat8, or -1: the activations' type
  int out, out_tensor;            // offset in the exchange; tensor
  int rows_each;                  // rows of the weight that belong to a block
  int stage_rows;                 // rows of a stage of the ring
  // Attention: in [rows, heads + 2 * groups, width] in the exchange; out [rows, heads, width].
  int cache, position, lengths;  // tensors
  int heads, groups, width, capacity;
  int chunk, chunks;   // keys of a unit of work; units of a row and group
  float score_scale;   // times log2(e)
  int partial;         // offset of [rows, heads, chunks, width + 2] where chunks > 1
};

constexpr int kMostTensors = 256;

struct DecodeLaunch {
  DecodeStep const* steps;
  void* exchange;      // Values with the number of the launch that wrote them; zeros at first.
  unsigned* launches;  // [blocks]: how many there have been; zeros at first.
  int count, rows, type, blocks;
  void* tensors[kMostTensors];
};

// Launches on the stream. Returns a cudaError_t.
TRIPY_PUBLIC int tripy_decode_step(DecodeLaunch const* launch, void* stream);
TRIPY_PUBLIC int tripy_decode_step_size();
TRIPY_PUBLIC int tripy_decode_launch_size();
}
