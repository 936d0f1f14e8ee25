// A whole decode step (one row, one token) in one kernel that stays on the GPU, for layers with
// int8, float8 or int4 weights, whose inputs are of the activations' type, or int8 or float8 too.
//
// There are kernels for models whose weights are all int8, and for each other type beside int8, for
// each size of heads, and for inputs of up to 896, 1792 and 4096 columns. One that could do all of it
// has 142 KB of instructions, of which a model runs 50; split up they are 66 (int8) to 93, and a step
// of GPT-2 in int8 takes a seventh less: see benchmarks/LOG.md.
//
// Launched one by one, the layers of a small model take longer to start than to read their weights.
// Here one block a multiprocessor works off a table of steps. One of its warps streams the block's
// share of all weights, step after step, through a ring in shared memory: it depends on nothing,
// so memory never rests while the other warps wait for each other's results. These come through the
// exchange (exchange.cuh).
//
// What a step takes is the way of one value: from the exchange, through the norm and the product,
// and back. So whatever does not need the input happens before it is waited for (parameters, keys
// and values are in registers, weights in shared memory by then), and no warp waits for another one
// between the product and the result: each has whole rows of the weight.
#pragma once

#include "decode_clocks.cuh"
#include "decode_step.h"
#include "epilogue.cuh"
#include "exchange.cuh"
#include "tiles.cuh"

namespace tripy {

// With the warp that streams weights they are eight, so that a thread may have 255 registers. With
// nine it may have 168, and what did not fit came from the L2 cache again: shared memory leaves the
// L1 cache little room.
constexpr int kWarps = 7;
static_assert(kWarps <= 8);  // The sums of a norm are added up as eight.
constexpr int kWorkers = 32 * kWarps;
constexpr int kStepThreads = kWorkers + 32;
constexpr int kRingBytes = 199680, kMostStages = 12;
constexpr int kInputBytes = 16384, kMostNormalized = 4096;  // Columns of a normalized input.
constexpr int kMostWidth = 128;  // Of a head.
constexpr int kMostQuads = (kMostNormalized / 4 + kWorkers - 1) / kWorkers;

struct Shared {
  alignas(128) uint8_t ring[kRingBytes];
  alignas(16) uint8_t input[kInputBytes];  // int8 or T.
  alignas(16) float heads[kWarps][kMostWidth];
  alignas(16) float2 states[kWarps];  // Of a softmax on its way: largest score, total.
  alignas(16) float2 sums[8];  // Of a norm; without a warp: zeros.
  alignas(16) DecodeStep steps[2];
  alignas(16) uint8_t zeros[16];
  uint64_t full[kMostStages], empty[kMostStages];
};

// Where the new key goes, and how many there are; read once for all steps with the same tensors.
struct Place {
  int position_tensor = -1, lengths_tensor = -1;
  int position = 0, length = 0;
};

// A place in the ring of weights; `phase` is the parity of the rounds made.
struct WeightRing {
  int stage = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ void next(DecodeLaunch const& launch) {
    if (++stage == launch.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
  __device__ __forceinline__ uint8_t* bytes(DecodeLaunch const& launch, Shared& shared) const {
    return shared.ring + stage * launch.stage_bytes;
  }
  __device__ __forceinline__ void wait_full(Shared& shared) const {
    barrier_wait(shared_address(&shared.full[stage]), phase);
  }
};

struct Worker {
  DecodeLaunch const& launch;
  Shared& shared;
  Exchange exchange;
  WeightRing ring;
  Place place;
  int step = 0;

  __device__ __forceinline__ static void sync() { group_sync<kWorkers>(1); }
  __device__ __forceinline__ void note(StepMoment moment) const {
    tripy::note(launch, step, moment);
  }
};

// With what its kernel is for: the type of weights beside int8, the size of a head, and how many
// quads of a normalized input a thread has.
template <int Weights, int Width, int Quads>
struct WorkerOf : Worker {
  static constexpr int kWeights = Weights, kWidth = Width, kQuads = Quads;
  // Whether int8 rows are in registers before an int8 input is there: decode_integers.cuh.
  static constexpr bool kKeeps = Weights == kInt8Weights && Quads > 1;
};

// Reads the place of a step's attention.
__device__ __forceinline__ void find_place(Worker& w, int position, int lengths) {
  if (w.place.position_tensor != position || w.place.lengths_tensor != lengths) {
    w.place = {position, lengths, __ldg(static_cast<int const*>(w.launch.tensors[position])),
               __ldg(static_cast<int const*>(w.launch.tensors[lengths]))};
  }
}

// n / d of small numbers: a division of integers is a hundred instructions.
__device__ __forceinline__ int quotient(int n, float inverse_of_d) {
  return int((float(n) + 0.5f) * inverse_of_d);
}

template <class T>
__device__ __forceinline__ float to_type(float x) {
  return float(T(x));
}

// The two values of a unit.
template <class T>
__device__ __forceinline__ float2 floats_of(uint32_t unit) {
  return Convert<T>::floats(*reinterpret_cast<typename Convert<T>::Pair*>(&unit));
}

template <class T>
__device__ __forceinline__ uint32_t unit_of(float x, float y) {
  auto pair = Convert<T>::pair(x, y);
  return *reinterpret_cast<uint32_t*>(&pair);
}

__device__ __forceinline__ int to_int8(float x) {
  return int(rintf(fminf(fmaxf(x, -128.0f), 127.0f)));
}

// The quotient x / scale, correctly rounded, from the reciprocal and what a product leaves over
// (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990).
__device__ __forceinline__ float divided(float x, float scale, float reciprocal) {
  float quotient = fminf(fmaxf(x * reciprocal, -1000.0f), 1000.0f);
  return fmaf(fmaf(-quotient, scale, x), reciprocal, quotient);  // NaN stays.
}

// What a largest score begins with: float32's least. It is finite, so that 2^(-infinity - top), the
// share of what is not there, is 0.
constexpr float kLeastScore = -3.402823466e38f;

// 1 / total, of a softmax, or 0 where nothing was added up.
__device__ __forceinline__ float inverse_of(float total) {
  return total == 0.0f ? 0.0f : approximate_reciprocal(total);
}

}  // namespace tripy
