// The input of weight_only.cuh: rows of x, normalized and rounded as asked for, put into shared
// memory in the type and the order in which the tensor cores take them.
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

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMaxNormRows = 16;

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

template <class T>
__device__ __forceinline__ void load_floats(
    void const* row, int column, int columns, float (&values)[kEight]) {
  load_eight<T>(static_cast<T const*>(row), column, columns).floats(values);
}

// Of the floating-point type of a parameter; the branch is the same for all threads.
__device__ __forceinline__ void load_floats(
    int type, void const* row, int column, int columns, float (&values)[kEight]) {
  if (type == kTypeFloat16) {
    load_floats<__half>(row, column, columns, values);
  } else if (type == kTypeBFloat16) {
    load_floats<__nv_bfloat16>(row, column, columns, values);
  } else {
    load_floats<float>(row, column, columns, values);
  }
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    value += __shfl_xor_sync(~0u, value, lane);
  }
  return value;
}

// Sums over rows of `term`, which all threads get; all of a row's sums are in one order.
template <class In, class Term>
__device__ __forceinline__ void sum_rows(
    In const* x, int rows, int columns, float (&parts)[kMaxNormRows][kWarps],
    float (&totals)[kMaxNormRows], Term term) {
  constexpr int kAtOnce = 4;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int first = 0; first < rows; first += kAtOnce) {
    float sums[kAtOnce] = {};
    for (int column = threadIdx.x * kEight; column < columns; column += kThreads * kEight) {
      Eight<In> eights[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) {
        int row = min(first + j, rows - 1);
        eights[j] = load_eight<In>(x + int64_t{row} * columns, column, columns);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) {
        float values[kEight];
        eights[j].floats(values);
#pragma unroll
        for (int i = 0; i < kEight; i++) {
          sums[j] += term(min(first + j, rows - 1), values[i]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) {
      float sum = warp_sum(sums[j]);
      if (lane == 0 && first + j < rows) {
        parts[first + j][warp] = sum;
      }
    }
  }
  __syncthreads();
  if (threadIdx.x < rows) {
    float total = 0.0f;
    for (int i = 0; i < kWarps; i++) {
      total += parts[threadIdx.x][i];
    }
    totals[threadIdx.x] = total;
  }
  __syncthreads();
}

struct Statistics {
  float parts[kMaxNormRows][kWarps];
  float mean[kMaxNormRows];
  float deviation[kMaxNormRows];  // 1 / √(variance + eps)
};

template <class In>
__device__ __forceinline__ void find_statistics(
    WeightOnly const& p, In const* x, int rows, Statistics& s) {
  if (threadIdx.x < rows) {
    s.mean[threadIdx.x] = 0.0f;
  }
  if (p.norm_kind == kLayerNorm) {
    sum_rows<In>(x, rows, p.k, s.parts, s.mean, [](int, float value) { return value; });
    if (threadIdx.x < rows) {
      s.mean[threadIdx.x] /= p.k;
    }
  }
  __syncthreads();
  sum_rows<In>(x, rows, p.k, s.parts, s.deviation, [&](int m, float value) {
    return (value - s.mean[m]) * (value - s.mean[m]);
  });
  if (threadIdx.x < rows) {
    s.deviation[threadIdx.x] = 1.0f / sqrtf(s.deviation[threadIdx.x] / p.k + p.eps);
  }
  __syncthreads();
}

// To the nearest int8 or float8, ties to even, saturating; NaN stays NaN in float8.
__device__ __forceinline__ float rounded(int type, float value) {
  if (type == kTypeInt8) {
    return rintf(fminf(fmaxf(value, -128.0f), 127.0f));
  }
  return static_cast<float>(__nv_fp8_e4m3(value));  // Saturates.
}

template <class In>
__device__ __forceinline__ void normalize(
    WeightOnly const& p, Statistics const& s, int row, int column, float (&values)[kEight]) {
  float weight[kEight], bias[kEight] = {};
  load_floats(p.param_type, p.norm_weight, column, p.k, weight);
  if (p.norm_bias != nullptr) {
    load_floats(p.param_type, p.norm_bias, column, p.k, bias);
  }
#pragma unroll
  for (int i = 0; i < kEight; i++) {
    float y = (values[i] - s.mean[row]) * s.deviation[row] * weight[i] + bias[i];
    // Rounded to x's type, as the result of a layer of its own would be.
    values[i] = column < p.k ? static_cast<float>(In(y)) : 0.0f;
  }
}

// Which part of x a block has: rows, and every `stride`-th chunk of columns from `chunk` on.
struct Part {
  int first, rows;
  int chunk, stride, chunks;
};

template <class In, class X, int ChunkColumns>
__device__ __forceinline__ void prepare_rows(
    WeightOnly const& p, Part const& part, Eight<X>* shared, Statistics& s) {
  constexpr int kUnits = ChunkColumns / 32;
  auto x = static_cast<In const*>(p.x) + int64_t{part.first} * p.k;
  bool normalizes = sizeof(In) > 1 && p.norm_kind != kNoNorm;
  bool rounds = sizeof(In) > 1 && p.round_type >= 0;
  if (normalizes) {
    find_statistics<In>(p, x, part.rows, s);
  }
  // Item i is part i % 4 of a unit of a row, with rows side by side: item / 4 = unit * rows + row.
  constexpr int kAtOnce = sizeof(In) > 2 ? 2 : 4, kStep = kThreads / 4;
  int unit = threadIdx.x / 4 / part.rows, row = threadIdx.x / 4 % part.rows;
  int items = part.chunks * kUnits * part.rows * 4;
  auto next = [&](int& column) {
    int chunk = part.chunk + unit / kUnits * part.stride, of = row;
    column = chunk * ChunkColumns + unit % kUnits * 32 + threadIdx.x % 4 * kEight;
    row += kStep % part.rows;
    unit += kStep / part.rows;
    if (row >= part.rows) {
      row -= part.rows;
      unit++;
    }
    return of;
  };
  if constexpr (std::is_same_v<In, X>) {
    if (!normalizes && !rounds) {
      // All at once: behind the weights that are on their way, each wait would be a long one.
      for (int item = threadIdx.x; item < items; item += kThreads) {
        int column, of = next(column);
        bool inside = column < p.k;
        In const* from = x + (inside ? int64_t{of} * p.k + column : 0);
        constexpr int kBytes = sizeof(Eight<X>);
        copy_async<kBytes>(shared_address(shared + item), from, inside ? kBytes : 0);
      }
      copy_async_wait();
      return;
    }
  }
  for (int start = threadIdx.x; start < items; start += kAtOnce * kThreads) {
    Eight<In> eights[kAtOnce];
    int rows[kAtOnce], columns[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      rows[i] = next(columns[i]);
      // What is beyond the last item is beyond the row, or read for nothing.
      int limit = start + i * kThreads < items ? p.k : 0;
      eights[i] = load_eight<In>(x + int64_t{rows[i]} * p.k, columns[i], limit);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      int item = start + i * kThreads;
      if (item >= items) {
        break;
      }
      float values[kEight];
      eights[i].floats(values);
      if (normalizes) {
        normalize<In>(p, s, rows[i], columns[i], values);
      }
      if (rounds) {
#pragma unroll
        for (int j = 0; j < kEight; j++) {
          values[j] = rounded(p.round_type, __fdiv_rn(values[j], p.in_scale));
        }
      }
      shared[item] = Eight<X>::of(values);
    }
  }
}

// The part in units of 32 columns, x[unit][row][column] of type X: a lane finds its 8 columns of
// its row in one load, and the lanes of a warp what they need side by side. Types are those that
// launches have: bfloat16 is multiplied as such or rounded, int8 goes to float16 beside float8.
template <class X, int ChunkColumns, bool Float8Weight>
__device__ __forceinline__ void prepare_input(
    WeightOnly const& p, Part const& part, Eight<X>* shared, Statistics& s) {
  constexpr bool kRounds = std::is_same_v<X, int8_t> || Float8Weight;
  if constexpr (std::is_same_v<X, __nv_bfloat16>) {
    prepare_rows<__nv_bfloat16, X, ChunkColumns>(p, part, shared, s);
  } else if (p.x_type == kTypeFloat16) {
    prepare_rows<__half, X, ChunkColumns>(p, part, shared, s);
  } else if (kRounds && p.x_type == kTypeBFloat16) {
    prepare_rows<__nv_bfloat16, X, ChunkColumns>(p, part, shared, s);
  } else if (kRounds && p.x_type == kTypeFloat32) {
    prepare_rows<float, X, ChunkColumns>(p, part, shared, s);
  } else if (kRounds && p.x_type == kTypeInt8) {
    prepare_rows<int8_t, X, ChunkColumns>(p, part, shared, s);
  } else if (!std::is_same_v<X, int8_t>) {
    prepare_rows<__nv_fp8_e4m3, X, ChunkColumns>(p, part, shared, s);
  }
}

}  // namespace tripy
