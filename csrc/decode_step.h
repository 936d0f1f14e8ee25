// One decode step of a model as a table of steps that one kernel works off; see decode_step.cuh.
#pragma once

#include "api.h"

enum StepKind : int { kStepLinear, kStepAttention };
// Where a linear step's input comes from: a tensor; the exchange, as pairs or as bytes; or the
// exchange, as what each chunk of an attention's keys came to.
enum StepSource : int { kFromTensor, kFromPairs, kFromBytes, kFromParts };
enum StepNorm : int { kNoNorm, kLayerNorm, kRmsNorm };
// What a linear step's weight is made of. int4: packed as packing.py has it.
enum StepWeights : int { kInt8Weights, kFloat8Weights, kInt4Weights };

// Of a step, in order; an attention has those marked with *. The weights, the input, the rounded
// input of this warp and of all are there; the product of the first rows; the end.
enum StepMoment : int {
  kBegun,     // *
  kPrepared,  // What does not need the input.
  kWeightsThere,
  kInputThere,  // * The query.
  kRounded,
  kTogether,  // * This warp's share of the keys.
  kMultiplied,
  kEnded,       // *
  kMoments
};

extern "C" {

// Offsets in the exchange count its units (exchange.cuh) and are even; tensors are numbers of
// `DecodeLaunch::tensors`. -1: none.
struct DecodeStep {
  int kind;                  // enum StepKind
  int source, in;            // enum StepSource; offset or tensor [k]
  int integers;              // Whether the input is int8 too, or gets so here.
  int float8;                // Whether it is float8, or gets so here.
  int k, n, row_bytes;       // row_bytes: of the weight, a multiple of 16
  int rows;                  // of a group, which a warp multiplies at once: 2, 4 or, unless weights
                             // and inputs are int8, 8
  int row_groups;            // all of them
  int groups_each;           // those that a block has
  int stage_groups;          // groups of a stage of the ring
  int8_t const* weight;      // [n, row_bytes]
  int weights;               // enum StepWeights
  int record_bytes;          // a multiple of 8
  void const* parameters;    // [n or n + 1, even] records: see decode_linear.cuh
  int window, block_bits;    // of int4: half of a window of columns; log2 of a block's columns
  float const* norm_weight;  // [k] or null
  float const* norm_bias;    // [k] or null
  int norm;                  // enum StepNorm
  float eps, inverse_k;      // 1 / k
  float in_scale, inverse_in_scale;  // of int8 or float8 inputs that come in another type
  int activation;                 // enum Activation in epilogue.cuh
  int residual, residual_tensor;  // added last: offset in the exchange, or tensor
  int out, out_tensor;            // offset in the exchange; tensor
  float inverse_out_scale;        // of results of a byte; 0: results are of the activations' type
  // Attention: in [heads + 2 * groups, width]; out [heads, chunks, width / 2 + 2 units], of which a
  // linear step whose input is in parts needs the sizes and tensors too.
  int cache, position, lengths;  // tensors
  int heads, groups, width, capacity;
  int chunk, chunks;  // keys of a unit of work; units of a head
  float inverse_heads, inverse_group, inverse_chunk;  // 1 / heads, heads of a group, chunk
  float score_scale;  // times log2(e)
};

constexpr int kMostTensors = 256;

struct DecodeLaunch {
  DecodeStep const* steps;
  void* exchange;      // Units with the number of the launch that wrote them; zeros at first.
  unsigned* launches;  // [blocks]: how many there have been; zeros at first.
  unsigned* clocks;    // [blocks, count, kMoments] or null: see decode_clocks.cuh
  int count, type, blocks;
  // Which kernel: enum StepWeights of the steps whose weights are not int8, the size of a head, and
  // how many times four columns of a normalized input a thread may have (1, 2 or kMostQuads).
  int weights, width, quads;
  int stage_bytes, stages;  // Of the ring; a multiple of 128.
  int in_flight;            // Stages that are on their way at once.
  int copy_units;      // Units of each of the exchange's copies.
  void* tensors[kMostTensors];
};

// Launches on the stream. Returns a cudaError_t.
TRIPY_PUBLIC int tripy_decode_step(DecodeLaunch const* launch, void* stream);
TRIPY_PUBLIC int tripy_decode_step_size();
TRIPY_PUBLIC int tripy_decode_launch_size();
// Warps of a block that work, on which the keys of a chunk depend: 1024 / width each.
TRIPY_PUBLIC int tripy_decode_warps();
TRIPY_PUBLIC int tripy_decode_copies();  // of the exchange
TRIPY_PUBLIC int tripy_decode_clocks();  // Moments of a step that are noted: kMoments or 0.
}
