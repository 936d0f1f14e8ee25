// The input of weight_only.cuh: rows of x, rounded as asked for, put into shared memory in the type
// and the order in which the tensor cores take them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hopper.cuh"
#include "weight_only.h"

namespace tripy {

constexpr int kArrivals = 4;  // Parts of x, each of which is multiplied as soon as it is there.

// Neighbours that a thread reads at once.
constexpr int kEight = 8;

template <class T>
struct alignas(sizeof(T) * kEight < 16 ? 8 : 16) Eight {
  static constexpr int kWords = sizeof(T) * kEight / 4;
  uint32_t words[kWords];

  __device__ __forceinline__ void floats(float (&values)[kEight]) const {
    T each[kEight];
    memcpy(each, words, sizeof(words));
#pragma unroll
    for (int i = 0; i < kEight; i++) {
      values[i] = static_cast<float>(each[i]);
    }
  }

  static __device__ __forceinline__ Eight of(float const (&values)[kEight]) {
    T each[kEight];
#pragma unroll
    for (int i = 0; i < kEight; i++) {
      each[i] = T(values[i]);
    }
    Eight eight;
    memcpy(eight.words, each, sizeof(each));
    return eight;
  }
};

// Neighbours from `column` on of a row of `columns`, both multiples of eight; beyond it, zeros. No
// branch: loads of several do not wait for each other.
template <class T>
__device__ __forceinline__ Eight<T> load_eight(T const* row, int column, int columns) {
  Eight<T> eight = {};
  if (column < columns) {
    eight = *reinterpret_cast<Eight<T> const*>(row + column);
  }
  return eight;
}

// To the nearest int8 or float8, ties to even, saturating; NaN stays NaN in float8.
__device__ __forceinline__ float rounded(int type, float value) {
  if (type == kTypeInt8) {
    return rintf(fminf(fmaxf(value, -128.0f), 127.0f));
  }
  return static_cast<float>(__nv_fp8_e4m3(value));  // Saturates.
}

// Which part of x a block has: rows, and every `stride`-th chunk of columns from `chunk` on.
struct Part {
  int first, rows;
  int chunk, stride, chunks;

  // How many chunks arrive together.
  __device__ __forceinline__ int at_once() const { return (chunks + kArrivals - 1) / kArrivals; }
};

// A thread's units of the part, every `step`-th from one on, and the columns at which they begin.
template <int ChunkColumns>
struct Units {
  static constexpr int kUnits = ChunkColumns / 32;  // Of a chunk.
  int unit, column, inside, step, stride;           // `inside`: number within the chunk.

  __device__ __forceinline__ Units(Part const& part, int first, int step_)
      : unit(first),
        column((part.chunk + first / kUnits * part.stride) * ChunkColumns + first % kUnits * 32),
        inside(first % kUnits),
        step(step_),
        stride(part.stride) {}

  __device__ __forceinline__ void next() {
    unit += step;
    inside += step % kUnits;
    column += step / kUnits * stride * ChunkColumns + step % kUnits * 32;
    if (inside >= kUnits) {
      inside -= kUnits;
      column += (stride - 1) * ChunkColumns;
    }
  }
};

template <class In, class X, int ChunkColumns, int Threads>
__device__ __forceinline__ void prepare_rows(
    WeightOnly const& p, Part const& part, Eight<X>* shared, uint32_t arrived) {
  constexpr int kUnits = ChunkColumns / 32;
  // Rows side by side in a unit. Threads beyond the last whole unit of so many rows have none.
  int number = threadIdx.x / 4, step = max(Threads / 4 / part.rows, 1);
  int row = number % part.rows, quarter = threadIdx.x % 4 * kEight, all = part.chunks * kUnits;
  Units<ChunkColumns> units(part, number / part.rows, step);
  if (units.unit >= step) {
    units.unit = all;
  }
  auto x = static_cast<In const*>(p.x) + int64_t{part.first + row} * p.k + quarter;
  auto to = shared + row * 4 + threadIdx.x % 4;
  bool rounds = sizeof(In) > 1 && p.round_type >= 0;
  int at_once = part.at_once() * kUnits;
  if constexpr (std::is_same_v<In, X>) {
    if (!rounds) {
      // All at once: behind the weights that are on their way, each wait would be a long one.
      constexpr int kBytes = sizeof(Eight<X>);
      uint32_t address = shared_address(to + units.unit * part.rows * 4);
      int columns = p.k - quarter, address_step = step * part.rows * 4 * kBytes;
      for (int i = 1; i <= kArrivals; i++) {
        int last = min(i * at_once, all);
#pragma unroll 4
        for (; units.unit < last; units.next(), address += address_step) {
          bool inside = units.column < columns;
          void const* from = inside ? x + units.column : p.x;
          copy_async<kBytes>(address, from, inside ? kBytes : 0);
        }
        copy_async_arrive(arrived);
        arrived += 8;
      }
      return;
    }
  }
  constexpr int kAtOnce = sizeof(In) > 2 ? 2 : 4;
  for (int i = 1; i <= kArrivals; i++) {
    int last = min(i * at_once, all);
    while (units.unit < last) {
      Eight<In> eights[kAtOnce];
      auto then = units;
#pragma unroll
      for (int j = 0; j < kAtOnce; j++, units.next()) {
        int limit = units.unit < last ? p.k - quarter : 0;
        eights[j] = load_eight<In>(x, units.column, limit);
      }
      units = then;
#pragma unroll
      for (int j = 0; j < kAtOnce && units.unit < last; j++, units.next()) {
        float values[kEight];
        eights[j].floats(values);
        if (rounds) {
#pragma unroll
          for (int n = 0; n < kEight; n++) {
            values[n] = rounded(p.round_type, __fdiv_rn(values[n], p.in_scale));
          }
        }
        to[units.unit * part.rows * 4] = Eight<X>::of(values);
      }
    }
    barrier_arrive(arrived);
    arrived += 8;
  }
}

// The part in units of 32 columns, x[unit][row][column] of type X: a lane finds its 8 columns of
// its row in one load, and the lanes of a warp what they need side by side. Of the barriers at
// `arrived`, each of all threads, number i completes with the chunks from i * at_once() on. Types
// are those that launches have: bfloat16 is multiplied as such or rounded, int8 goes to float16
// beside float8.
template <class X, int ChunkColumns, int Threads, bool Float8Weight>
__device__ __forceinline__ void prepare_input(
    WeightOnly const& p, Part const& part, Eight<X>* shared, uint32_t arrived) {
  constexpr bool kRounds = std::is_same_v<X, int8_t> || Float8Weight;
  if constexpr (std::is_same_v<X, __nv_bfloat16>) {
    prepare_rows<__nv_bfloat16, X, ChunkColumns, Threads>(p, part, shared, arrived);
  } else if (p.x_type == kTypeFloat16) {
    prepare_rows<__half, X, ChunkColumns, Threads>(p, part, shared, arrived);
  } else if (kRounds && p.x_type == kTypeBFloat16) {
    prepare_rows<__nv_bfloat16, X, ChunkColumns, Threads>(p, part, shared, arrived);
  } else if (kRounds && p.x_type == kTypeFloat32) {
    prepare_rows<float, X, ChunkColumns, Threads>(p, part, shared, arrived);
  } else if (kRounds && p.x_type == kTypeInt8) {
    prepare_rows<int8_t, X, ChunkColumns, Threads>(p, part, shared, arrived);
  } else if (!std::is_same_v<X, int8_t>) {
    prepare_rows<__nv_fp8_e4m3, X, ChunkColumns, Threads>(p, part, shared, arrived);
  }
}

}  // namespace tripy
