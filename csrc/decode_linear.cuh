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

// Of `Group` neighbouring rows; each lane gets all sums.
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

// Lane l finishes row l % Group of the group; lane 0 sends the unit.
template <class T, int Group>
__device__ __forceinline__ void finish(
    Worker& w, DecodeStep const& s, int group, int const (&sums)[Group], Extras& e) {
  constexpr unsigned kAll = 0xFFFFFFFF;
  int lane = threadIdx.x % 32, row = group * Group + lane % Group, sum = sums[0];
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
  if (lane == 0) {
    w.exchange.write(s.out + group, unit);
  }
  if (s.out_tensor >= 0 && lane < Group) {
    static_cast<T*>(w.launch.tensors[s.out_tensor])[row] = T(value[0]);
  }
}

template <class T, int Group>
__device__ __forceinline__ void linear_rows(Worker& w, DecodeStep const& s) {
  int first = blockIdx.x * s.groups_each, count = min(s.groups_each, s.n / Group - first);
  if (count <= 0) {
    return;
  }
  int lane = threadIdx.x % 32, own = threadIdx.x / 32;
  auto extras_of = [&](int group) {
    return group < count ? extras<T>(w, s, (first + group) * Group + lane % Group) : Extras{};
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
      int sums[Group];
      products<Group>(w, s, rows + (own - begin) * Group * s.row_bytes, sums);
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
  if (s.inverse_out_scale != 0.0f) {
    linear_rows<T, 4>(w, s);
  } else {
    linear_rows<T, 2>(w, s);
  }
}

}  // namespace tripy
