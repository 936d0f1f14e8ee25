// The input of a linear step: waited for, normalized, rounded, and put where the tensor cores read.
#pragma once

#include "decode_step.cuh"

namespace tripy {

// Where the parts of an input are in shared memory: first, if it is worked on, its values as floats
// [rows, k]; then [rows, stride] bytes in the type that is multiplied, whose strides spread the rows
// over the banks.
struct InputPlan {
  bool integers, again;
  int stride, operand;

  __device__ __forceinline__ InputPlan(DecodeStep const& s, int rows) {
    integers = s.in_type == kTypeInt8;
    again = s.quads == 0 && (s.norm != kNoNorm || s.in_scale != 0.0f);
    int bytes = integers ? s.k : 2 * s.k;
    stride = (bytes + 127) / 128 * 128 + (integers ? 64 : 16);
    operand = again ? (rows * s.k * 4 + 15) / 16 * 16 : 0;
  }
};

template <class T>
__device__ __forceinline__ void store_operand(
    uint8_t* input, InputPlan const& plan, int m, int k, float2 v) {
  uint8_t* row = input + plan.operand + m * plan.stride;
  if (plan.integers) {
    *reinterpret_cast<char2*>(row + k) = make_char2(char(int(v.x)), char(int(v.y)));
  } else {
    reinterpret_cast<typename Convert<T>::Pair*>(row)[k / 2] = Convert<T>::pair(v.x, v.y);
  }
}

// Two neighbouring values of what several chunks of an attention have left.
template <class T>
__device__ __forceinline__ float2 combined(Worker& w, DecodeStep const& s, int m, int k) {
  constexpr int kAtOnce = 4;
  int length = __ldg(static_cast<int const*>(w.launch.tensors[s.lengths]) + m);
  int active = min(s.chunks, max(1, (length + s.chunk - 1) / s.chunk));
  int head = k / s.width, column = k % s.width;
  int at = s.in + (m * s.heads + head) * s.chunks * (s.width + 2);
  float top = -INFINITY, total = 0.0f;
  float2 sum = {0.0f, 0.0f};
#pragma unroll 1
  for (int first = 0; first < active; first += kAtOnce) {
    float2 parts[kAtOnce], states[kAtOnce];
    bool missing = true;
    for (uint32_t tries = 0; missing; tries++) {
      missing = false;
#pragma unroll
      for (int i = 0; i < kAtOnce; i++) {
        int from = at + min(first + i, active - 1) * (s.width + 2);
        missing |= !w.exchange.try_pair(from + column, parts[i]);
        missing |= !w.exchange.try_pair(from + s.width, states[i]);
      }
      Exchange::give_up(tries);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      float other = first + i < active ? states[i].x : -INFINITY;
      float higher = fmaxf(top, other);
      float keep = top == -INFINITY ? 0.0f : exp2f(top - higher);
      float add = other == -INFINITY ? 0.0f : exp2f(other - higher);
      sum = {sum.x * keep + parts[i].x * add, sum.y * keep + parts[i].y * add};
      total = total * keep + states[i].y * add;
      top = higher;
    }
  }
  float inverse = length <= 0 ? 0.0f : 1.0f / total;
  return {to_type<T>(sum.x * inverse), to_type<T>(sum.y * inverse)};
}

// Each thread's pairs of neighbours, of all rows one after the other.
template <class T>
__device__ __forceinline__ void fetch(
    Worker& w, DecodeStep const& s, InputPlan const& plan, int rows) {
  constexpr int kAtOnce = 4;
  int pairs = rows * s.k / 2;
  auto keep = [&](int p, float2 v) {
    if (plan.again) {
      reinterpret_cast<float2*>(w.shared.input)[p] = v;
    } else {
      int m = rows == 1 ? 0 : 2 * p / s.k;
      store_operand<T>(w.shared.input, plan, m, 2 * p - m * s.k, v);
    }
  };
  if (s.source == kFromExchange) {
#pragma unroll 1
    for (int base = threadIdx.x; base < pairs; base += kAtOnce * kWorkers) {
      float2 values[kAtOnce];
      bool missing = true;
#pragma unroll 1
      for (uint32_t tries = 0; missing; tries++) {
        missing = false;
#pragma unroll
        for (int j = 0; j < kAtOnce; j++) {
          int p = base + j * kWorkers;
          if (p < pairs) {
            missing |= !w.exchange.try_pair(s.in + 2 * p, values[j]);
          }
        }
        Exchange::give_up(tries);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) {
        if (base + j * kWorkers < pairs) {
          keep(base + j * kWorkers, values[j]);
        }
      }
    }
    return;
  }
#pragma unroll 1
  for (int p = threadIdx.x; p < pairs; p += kWorkers) {
    if (s.source == kFromTensor) {
      auto x = static_cast<typename Convert<T>::Pair const*>(w.launch.tensors[s.in]);
      keep(p, Convert<T>::floats(x[p]));
    } else {
      int m = rows == 1 ? 0 : 2 * p / s.k;
      keep(p, combined<T>(w, s, m, 2 * p - m * s.k));
    }
  }
}

// A row's statistics are added up in the same order for any number of rows, and by read_one.
__device__ __forceinline__ void add_to_sums(float2& sums, float v) {
  sums = {sums.x + v, fmaf(v, v, sums.y)};
}

__device__ __forceinline__ void share_sums(Worker& w, float2 sums, int m) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sums.x += __shfl_xor_sync(0xFFFFFFFF, sums.x, lanes);
    sums.y += __shfl_xor_sync(0xFFFFFFFF, sums.y, lanes);
  }
  if (threadIdx.x % 32 == 0) {
    w.shared.scratch[m][threadIdx.x / 32] = sums;
  }
}

// Sums of x - x[0] and of its squares in one pass: no value of a row of k is further from the mean
// than sqrt(k) deviations, so the variance loses at most a factor of k of float32's precision.
__device__ __forceinline__ void sum_rows(Worker& w, DecodeStep const& s, int rows) {
#pragma unroll 1
  for (int m = 0; m < rows; m++) {
    float const* x = reinterpret_cast<float const*>(w.shared.input) + m * s.k;
    float shift = s.norm == kLayerNorm ? x[0] : 0.0f;
    float2 sums = {0.0f, 0.0f};
    for (int k = 4 * threadIdx.x; k < s.k; k += 4 * kWorkers) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        add_to_sums(sums, k + i < s.k ? x[k + i] - shift : 0.0f);
      }
    }
    share_sums(w, sums, m);
  }
}

// Mean and 1 / deviation of a row.
__device__ __forceinline__ float2 statistics(
    Worker& w, DecodeStep const& s, int m, float shift) {
  float2 sums = {0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < kWarps / 2; i++) {
    float4 two = reinterpret_cast<float4 const*>(w.shared.scratch[m])[i];
    sums = {sums.x + two.x + two.z, sums.y + two.y + two.w};
  }
  float inverse = 1.0f / s.k, mean = 0.0f, variance = sums.y * inverse;
  if (s.norm == kLayerNorm) {
    float offset = sums.x * inverse;
    mean = shift + offset;
    variance = fmaxf(variance - offset * offset, 0.0f);
  }
  return {mean, rsqrtf(variance + s.eps)};
}

// One row, four neighbouring columns a quad, kept in registers on the way to the operand.
template <class T, int Quads>
__device__ __forceinline__ void read_one(Worker& w, DecodeStep const& s) {
  bool norm = s.norm != kNoNorm, integers = s.in_type == kTypeInt8;
  float4 weights[Quads], biases[Quads];
#pragma unroll
  for (int j = 0; j < Quads; j++) {
    int k = 4 * (int(threadIdx.x) + j * kWorkers);
    weights[j] = biases[j] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (norm && k < s.k) {  // On their way while the input is waited for.
      weights[j] = __ldg(reinterpret_cast<float4 const*>(s.norm_weight + k));
      if (s.norm_bias) {
        biases[j] = __ldg(reinterpret_cast<float4 const*>(s.norm_bias + k));
      }
    }
  }
  // One round where the input is normalized.
#pragma unroll 1
  for (int base = 4 * threadIdx.x; base < s.k || norm; base += 4 * Quads * kWorkers) {
    float x[Quads][4];
    float2 front = {0.0f, 0.0f};
    if (s.source == kFromExchange) {
      bool missing = true;
#pragma unroll 1
      for (uint32_t tries = 0; missing; tries++) {
        missing = s.norm == kLayerNorm && !w.exchange.try_pair(s.in, front);
#pragma unroll
        for (int j = 0; j < Quads; j++) {
          int k = base + 4 * j * kWorkers;
          float2 low = {0.0f, 0.0f}, high = {0.0f, 0.0f};
          if (k < s.k) {
            missing |= !w.exchange.try_pair(s.in + k, low);
            missing |= !w.exchange.try_pair(s.in + k + 2, high);
          }
          x[j][0] = low.x, x[j][1] = low.y, x[j][2] = high.x, x[j][3] = high.y;
        }
        Exchange::give_up(tries);
      }
    } else {
#pragma unroll
      for (int j = 0; j < Quads; j++) {
        int k = base + 4 * j * kWorkers;
        float2 low = {0.0f, 0.0f}, high = {0.0f, 0.0f};
        if (k < s.k && s.source == kFromTensor) {
          auto in = static_cast<typename Convert<T>::Pair const*>(w.launch.tensors[s.in]);
          front = Convert<T>::floats(in[0]);
          low = Convert<T>::floats(in[k / 2]), high = Convert<T>::floats(in[k / 2 + 1]);
        } else if (k < s.k) {
          low = combined<T>(w, s, 0, k), high = combined<T>(w, s, 0, k + 2);
        }
        x[j][0] = low.x, x[j][1] = low.y, x[j][2] = high.x, x[j][3] = high.y;
      }
    }
    if (norm) {
      float shift = s.norm == kLayerNorm ? front.x : 0.0f;
      float2 sums = {0.0f, 0.0f};
#pragma unroll
      for (int j = 0; j < Quads; j++) {
        if (base + 4 * j * kWorkers < s.k) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            add_to_sums(sums, x[j][i] - shift);
          }
        }
      }
      share_sums(w, sums, 0);
      w.sync();
      float2 moments = statistics(w, s, 0, shift);
#pragma unroll
      for (int j = 0; j < Quads; j++) {
        float const* g = &weights[j].x;
        float const* b = &biases[j].x;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          x[j][i] = to_type<T>(fmaf((x[j][i] - moments.x) * moments.y, g[i], b[i]));
        }
      }
    }
#pragma unroll
    for (int j = 0; j < Quads; j++) {
      int k = base + 4 * j * kWorkers;
      if (s.in_scale != 0.0f) {
        float reciprocal = 1.0f / s.in_scale;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          x[j][i] = rounded_to(divided(x[j][i], s.in_scale, reciprocal), s.in_type);
        }
      }
      if (k < s.k && integers) {
        *reinterpret_cast<char4*>(w.shared.input + k) = make_char4(
            char(int(x[j][0])), char(int(x[j][1])), char(int(x[j][2])), char(int(x[j][3])));
      } else if (k < s.k) {
        auto pairs = reinterpret_cast<typename Convert<T>::Pair*>(w.shared.input) + k / 2;
        pairs[0] = Convert<T>::pair(x[j][0], x[j][1]);
        pairs[1] = Convert<T>::pair(x[j][2], x[j][3]);
      }
    }
    if (norm) {
      return;
    }
  }
}

// After this and a barrier the operand is there.
template <class T>
__device__ __forceinline__ void read_input(Worker& w, DecodeStep const& s, InputPlan const& plan) {
  // Zeros behind each row's end, to the end of a block.
  int rows = w.launch.rows, tail = (s.k + kBlock - 1) / kBlock * kBlock - s.k;
  for (int i = threadIdx.x; i < rows * tail / 2; i += kWorkers) {
    store_operand<T>(w.shared.input, plan, 2 * i / tail, s.k + 2 * i % tail, {0.0f, 0.0f});
  }
  if (s.quads == 1) {
    return read_one<T, 1>(w, s);
  } else if (s.quads > 1) {
    return read_one<T, 4>(w, s);
  }
  bool norm = s.norm != kNoNorm;
  // Parameters are on their way while the input is waited for: of the columns below 2,048.
  float2 weights[2] = {}, biases[2] = {};
#pragma unroll
  for (int j = 0; j < 2; j++) {
    int k = 2 * (int(threadIdx.x) + j * kWorkers);
    if (norm && k < s.k) {
      weights[j] = __ldg(reinterpret_cast<float2 const*>(s.norm_weight + k));
      if (s.norm_bias) {
        biases[j] = __ldg(reinterpret_cast<float2 const*>(s.norm_bias + k));
      }
    }
  }
  fetch<T>(w, s, plan, rows);
  if (!plan.again) {
    return;
  }
  if (norm) {
    w.sync();
    sum_rows(w, s, rows);
    w.sync();
  }
  float reciprocal = s.in_scale != 0.0f ? 1.0f / s.in_scale : 0.0f;
  int row = -1;
  float2 moments = {0.0f, 1.0f};
#pragma unroll 1
  for (int p = threadIdx.x, j = 0; p < rows * s.k / 2; p += kWorkers, j++) {
    int m = rows == 1 ? 0 : 2 * p / s.k, k = 2 * p - m * s.k;
    float2 v = reinterpret_cast<float2*>(w.shared.input)[p];
    if (norm) {
      if (m != row) {
        float const* x = reinterpret_cast<float const*>(w.shared.input) + m * s.k;
        moments = statistics(w, s, m, x[0]);
        row = m;
      }
      float2 weight = j == 0 ? weights[0] : weights[1], bias = j == 0 ? biases[0] : biases[1];
      if (m > 0 || j > 1) {
        weight = __ldg(reinterpret_cast<float2 const*>(s.norm_weight + k));
        bias = s.norm_bias ? __ldg(reinterpret_cast<float2 const*>(s.norm_bias + k)) : float2{};
      }
      v = {to_type<T>(fmaf((v.x - moments.x) * moments.y, weight.x, bias.x)),
           to_type<T>(fmaf((v.y - moments.x) * moments.y, weight.y, bias.y))};
    }
    if (s.in_scale != 0.0f) {
      v = {rounded_to(divided(v.x, s.in_scale, reciprocal), s.in_type),
           rounded_to(divided(v.y, s.in_scale, reciprocal), s.in_type)};
    }
    store_operand<T>(w.shared.input, plan, m, k, v);
  }
}

}  // namespace tripy
