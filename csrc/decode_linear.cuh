// A linear layer of a decode step: each warp has groups of rows of the weight, whose results are one
// unit of the exchange.
#pragma once

#include "decode_input.cuh"

namespace tripy {

// What a lane's result needs beside its sum; a residual in the exchange with the launch that wrote it.
struct Extras {
  float scale, bias;
  uint2 residual;
};

template <class T>
__device__ __forceinline__ Extras extras(Worker& w, DecodeStep const& s, int row) {
  Extras e = {__ldg(s.scale + row), s.bias ? __ldg(s.bias + row) : 0.0f, {0, 0}};
  if (s.residual >= 0) {
    e.residual = w.exchange.raw(s.residual + row / 2);
  } else if (s.residual_tensor >= 0) {
    float value = float(static_cast<T const*>(w.launch.tensors[s.residual_tensor])[row]);
    e.residual.x = __float_as_uint(value);
  }
  return e;
}

template <class T>
__device__ __forceinline__ float residual(Worker& w, DecodeStep const& s, int row, Extras& e) {
  if (s.residual < 0) {
    return __uint_as_float(e.residual.x);
  }
#pragma unroll 1
  for (uint32_t tries = 0; e.residual.y != w.exchange.launch; tries++) {
    e.residual = w.exchange.raw(s.residual + row / 2);
    Exchange::give_up(tries);
  }
  float2 both = floats_of<T>(e.residual.x);
  return row % 2 ? both.y : both.x;
}

// Of `Group` neighbouring rows with an int8 input; each lane gets all sums.
template <int Group>
__device__ __forceinline__ void products(
    Worker& w, DecodeStep const& s, uint8_t const* rows, int (&sums)[Group]) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < Group; r++) {
    sums[r] = 0;
  }
#pragma unroll 4
  for (int at = 16 * lane; at < s.row_bytes; at += 512) {
    // What lies in the input beyond column k is multiplied with zeros of the weight.
    int4 x = *reinterpret_cast<int4 const*>(w.shared.input + at);
#pragma unroll
    for (int r = 0; r < Group; r++) {
      int4 a = *reinterpret_cast<int4 const*>(rows + r * s.row_bytes + at);
      sums[r] = __dp4a(a.x, x.x, sums[r]);
      sums[r] = __dp4a(a.y, x.y, sums[r]);
      sums[r] = __dp4a(a.z, x.z, sums[r]);
      sums[r] = __dp4a(a.w, x.w, sums[r]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < Group; r++) {
    sums[r] = __reduce_add_sync(0xFFFFFFFF, sums[r]);
  }
}

// Four int8 values, exactly: a byte plus 128 below the exponent of 2^23 is 2^23 + 128 + the byte.
__device__ __forceinline__ void unpack_int8(uint32_t bytes, float (&x)[4]) {
  bytes ^= 0x80808080;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[i] = __uint_as_float(__byte_perm(bytes, 0x4B000000, 0x7650 + i)) - 8388736.0f;
  }
}

// The same with an input of type T, of 16 columns a lane at a time.
template <class T, int Group>
__device__ __forceinline__ void float_products(
    Worker& w, DecodeStep const& s, uint8_t const* rows, float (&sums)[Group]) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < Group; r++) {
    sums[r] = 0.0f;
  }
#pragma unroll 1
  for (int at = 16 * lane; at < s.k; at += 512) {
    auto input = reinterpret_cast<uint4 const*>(w.shared.input + 2 * at);
    uint4 low = input[0], high = at + 8 < s.k ? input[1] : uint4{};
    uint32_t const units[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    uint4 weights[Group];
#pragma unroll
    for (int r = 0; r < Group; r++) {
      weights[r] = *reinterpret_cast<uint4 const*>(rows + r * s.row_bytes + at);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float2 x = floats_of<T>(units[2 * i]), y = floats_of<T>(units[2 * i + 1]);
#pragma unroll
      for (int r = 0; r < Group; r++) {
        uint32_t const words[4] = {weights[r].x, weights[r].y, weights[r].z, weights[r].w};
        float a[4];
        unpack_int8(words[i], a);
        float first = fmaf(a[0], x.x, a[1] * x.y), second = fmaf(a[2], y.x, a[3] * y.y);
        sums[r] += first + second;
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
#pragma unroll
    for (int r = 0; r < Group; r++) {
      sums[r] += __shfl_xor_sync(0xFFFFFFFF, sums[r], lanes);
    }
  }
}

// Lane l finishes row l % Group of the group; lane 0 sends the unit.
template <class T, int Group, class Sum>
__device__ __forceinline__ void finish(
    Worker& w, DecodeStep const& s, int group, Sum const (&sums)[Group], Extras& e) {
  constexpr unsigned kAll = 0xFFFFFFFF;
  int lane = threadIdx.x % 32, row = group * Group + lane % Group;
  Sum sum = sums[0];
#pragma unroll
  for (int r = 1; r < Group; r++) {
    sum = lane % Group == r ? sums[r] : sum;
  }
  float value[1] = {fmaf(float(sum), e.scale, e.bias)};
  activate(value, s.activation);
  value[0] += residual<T>(w, s, row, e);
  uint32_t unit;
  if constexpr (Group == 4) {
    unit = to_int8(value[0] * s.inverse_out_scale) & 0xFF;
    unit |= __shfl_down_sync(kAll, unit, 1) << 8;
    unit |= __shfl_down_sync(kAll, unit, 2) << 16;
  } else {
    value[0] = to_type<T>(value[0]);
    unit = unit_of<T>(value[0], __shfl_down_sync(kAll, value[0], 1));
  }
  if (s.out >= 0 && lane == 0) {
    w.exchange.write(s.out + group, unit);
  }
  if (s.out_tensor >= 0 && lane < Group && row < s.n) {
    static_cast<T*>(w.launch.tensors[s.out_tensor])[row] = T(value[0]);
  }
}

template <class T, int Group, bool Integers>
__device__ __forceinline__ void linear_rows(Worker& w, DecodeStep const& s) {
  // The last group may have a row less, for which it repeats the last one's parameters.
  int first = blockIdx.x * s.groups_each;
  int count = min(s.groups_each, (s.n + Group - 1) / Group - first);
  if (count <= 0) {
    return;
  }
  int lane = threadIdx.x % 32, own = threadIdx.x / 32;
  auto extras_of = [&](int group) {
    int row = min((first + group) * Group + lane % Group, s.n - 1);
    return group < count ? extras<T>(w, s, row) : Extras{};
  };
  Extras now = extras_of(own);
  read_input<T>(w, s);
  Worker::sync();
#pragma unroll 1
  for (int begin = 0; begin < count; begin += s.stage_groups, w.ring.next()) {
    uint8_t const* rows = w.shared.ring[w.ring.stage];
    // Warps without a group in this stage wait too: none arrives twice before all arrived once.
    barrier_wait(shared_address(&w.shared.full[w.ring.stage]), w.ring.phase);
#pragma unroll 1
    for (; own < min(begin + s.stage_groups, count); own += kWarps) {
      Extras next = extras_of(own + kWarps);
      uint8_t const* weights = rows + (own - begin) * Group * s.row_bytes;
      std::conditional_t<Integers, int, float> sums[Group];
      if constexpr (Integers) {
        products<Group>(w, s, weights, sums);
      } else {
        float_products<T, Group>(w, s, weights, sums);
      }
      finish<T, Group>(w, s, first + own, sums, now);
      now = next;
    }
    __syncwarp();
    if (lane == 0) {
      barrier_arrive(shared_address(&w.shared.empty[w.ring.stage]));
    }
  }
}

template <class T>
__device__ __forceinline__ void linear(Worker& w, DecodeStep const& step) {
  DecodeStep const s = step;  // In registers: every wait would read it again.
  if (!s.integers) {
    linear_rows<T, 2, false>(w, s);
  } else if (s.inverse_out_scale != 0.0f) {
    linear_rows<T, 4, true>(w, s);
  } else {
    linear_rows<T, 2, true>(w, s);
  }
}

}  // namespace tripy
