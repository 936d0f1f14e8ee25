// A linear layer of a decode step: each warp has groups of rows of the weight, whose results are
// units of the exchange.
//
// Behind a stage's rows in the ring lie their records: each a row's scale, times that of an int8 or
// float8 input, and its bias; of int4 weights also the scales of its blocks of columns, in the
// activations' type.
#pragma once

#include "decode_input.cuh"
#include "decode_products.cuh"
#include "decode_tensor_products.cuh"

namespace tripy {

// What is added to a lane's result last: a unit with the launch that wrote it, or a float32's bits.
template <class T>
__device__ __forceinline__ uint2 residual_unit(Worker& w, DecodeStep const& s, int row) {
  if (row < s.n && s.residual >= 0) {
    return w.exchange.raw(s.residual + row / 2);
  }
  float value = 0.0f;
  if (row < s.n && s.residual_tensor >= 0) {
    value = float(static_cast<T const*>(w.launch.tensors[s.residual_tensor])[row]);
  }
  return {__float_as_uint(value), w.exchange.launch};
}

template <class T>
__device__ __forceinline__ float residual(Worker& w, DecodeStep const& s, int row, uint2 unit) {
#pragma unroll 1
  for (uint32_t tries = 0; unit.y != w.exchange.launch; tries++) {
    unit = w.exchange.raw(s.residual + row / 2);
    Exchange::give_up(tries);
  }
  float2 both = floats_of<T>(unit.x);
  return s.residual < 0 ? __uint_as_float(unit.x) : row % 2 ? both.y : both.x;
}

__device__ __forceinline__ float activated(float x, int activation) {
  float value[1] = {x};
  if (activation == kGeluTanh) {  // The switch is a table of jumps, which takes longer.
    activate(value, kGeluTanh);
  } else if (activation != kNone) {
    activate(value, activation);
  }
  return value[0];
}

// Lane l has row l % rows of a group. The lanes of a unit's first rows send it, each to another
// copy of the exchange, from `units` on.
template <class T>
struct Target {
  uint2* units;  // or null
  T* values;     // or null
};

template <class T>
__device__ __forceinline__ Target<T> target_of(Worker& w, DecodeStep const& s) {
  static_assert(kCopies <= 32 / 8);
  int lane = threadIdx.x % 32, copy = lane >> (s.rows / 4 + 1);  // / rows: 2, 4 or 8
  bool rounded = s.inverse_out_scale != 0.0f;
  bool sends = s.out >= 0 && lane % (rounded ? 4 : 2) == 0 && copy < kCopies;
  T* values = s.out_tensor < 0 ? nullptr : static_cast<T*>(w.launch.tensors[s.out_tensor]);
  return {sends ? w.exchange.all + int64_t{copy} * w.exchange.copy_units + s.out : nullptr,
          lane < s.rows ? values : nullptr};
}

enum Result : int { kPairs, kBytes, kFloat8Bytes };

template <class T, int Kind>
__device__ __forceinline__ void finish(
    Worker& w, DecodeStep const& s, Target<T> const& target, int row, float value) {
  constexpr unsigned kAll = 0xFFFFFFFF;
  uint32_t unit;
  if constexpr (Kind != kPairs) {
    float scaled = value * s.inverse_out_scale;
    unit = Kind == kBytes ? to_int8(scaled) & 0xFF : to_float8(scaled);
    unit |= __shfl_down_sync(kAll, unit, 1) << 8;
    unit |= __shfl_down_sync(kAll, unit, 2) << 16;
  } else {
    unit = unit_of<T>(value, __shfl_down_sync(kAll, value, 1));
  }
  bool there = row < s.n;  // The last group may have fewer rows.
  uint2* to = target.units + (Kind != kPairs ? row / 4 : row / 2);
  store_unit_if(there && target.units, to, {unit, w.exchange.launch});
  if (there && target.values) {
    target.values[row] = T(value);
  }
}

template <class T>
__device__ __forceinline__ float residual_now(Worker& w, DecodeStep const& s, int row) {
  return row < s.n ? residual<T>(w, s, row, residual_unit<T>(w, s, row)) : 0.0f;
}

// The block's groups from `first` on; `added` is this lane's residual of the warp's first one. Rows
// of a group are as many as the step says, or known to be `Rows`.
template <class T, int Rows, int Form, int Kind>
__device__ __forceinline__ void multiply_rows(
    Worker& w, DecodeStep const& s, Target<T> const& target, int first, int count, float added) {
  int const rows_each = Rows ? Rows : s.rows, record_bytes = record_bytes_of<Form>(s);
  int lane = threadIdx.x % 32, own = threadIdx.x / 32;
  int row = (first + own) * rows_each + (lane & (rows_each - 1));
#pragma unroll 1
  for (int begin = 0;;) {
    uint8_t const* rows = w.ring.bytes(w.launch, w.shared);
    uint8_t const* records = rows + s.stage_groups * rows_each * s.row_bytes;
#pragma unroll 1
    for (; own < min(begin + s.stage_groups, count); own += kWarps, row += kWarps * rows_each) {
      int at = (own - begin) * rows_each;
      uint8_t const* record = records + (at + (lane & (rows_each - 1))) * record_bytes;
      float2 scale_and_bias = *reinterpret_cast<float2 const*>(record);
      Operands operands = {rows + at * s.row_bytes, w.shared.input, s.row_bytes, s.k};
      float sum;
      if constexpr (Form == kInt8Both) {
        sum = integer_product<Rows>(w.shared, operands);
      } else {
        sum = tensor_product_of<T, Form>(w.shared, s, operands, records + at * record_bytes);
      }
      if (kClocks && own < kWarps) {
        w.note(kMultiplied);
      }
      float value = fmaf(sum, scale_and_bias.x, scale_and_bias.y);
      finish<T, Kind>(w, s, target, row, activated(value, s.activation) + added);
      if (own + kWarps < count) {
        added = residual_now<T>(w, s, row + kWarps * rows_each);
      }
    }
    // All lanes, which takes no longer than one for its warp: compute-sanitizer's racecheck then
    // sees that none reads the stage any more.
    barrier_arrive(shared_address(&w.shared.empty[w.ring.stage]));
    w.ring.next(w.launch);
    begin += s.stage_groups;
    if (begin >= count) {
      return;
    }
    // Warps without a group in this stage wait too: none arrives twice before all arrived once.
    w.ring.wait_full(w.shared);
  }
}

template <class T, class W>
__device__ __forceinline__ void linear(W& w, DecodeStep const& step) {
  DecodeStep const s = step;  // In registers: every wait would read it again.
  int first = blockIdx.x * s.groups_each, count = min(s.groups_each, s.row_groups - first);
  if (count <= 0) {
    return;
  }
  // All that does not need the input comes before it. A residual has been an input, or will be one
  // before this step's can be: waiting for it holds nobody up.
  Target<T> target = target_of<T>(w, s);
  int own = threadIdx.x / 32, row = (first + own) * s.rows + (threadIdx.x & (s.rows - 1));
  float added = own < count ? residual_now<T>(w, s, row) : 0.0f;
  w.note(kPrepared);
  w.ring.wait_full(w.shared);
  w.note(kWeightsThere);
  if (s.source == kFromParts) {
    read_parts<T>(w, s);
  } else {
    read_input<T>(w, s);
  }
  w.note(kRounded);
  Worker::sync();
  w.note(kTogether);
  if constexpr (W::kWeights == kFloat8Weights) {
    if (s.weights == kFloat8Weights) {
      if (s.inverse_out_scale != 0.0f) {
        multiply_rows<T, 0, kFloat8Both, kFloat8Bytes>(w, s, target, first, count, added);
      } else if (std::is_same_v<T, __half> || s.float8) {
        multiply_rows<T, 0, kFloat8Both, kPairs>(w, s, target, first, count, added);
      } else {
        multiply_rows<T, 0, kFloat8Only, kPairs>(w, s, target, first, count, added);
      }
      return;
    }
  } else if constexpr (W::kWeights == kInt4Weights) {
    if (s.weights == kInt4Weights) {
      multiply_rows<T, 0, kInt4Only, kPairs>(w, s, target, first, count, added);
      return;
    }
  }
  if (W::kKeeps || !s.integers) {  // The others have integer_linear().
    multiply_rows<T, 0, kInt8Only, kPairs>(w, s, target, first, count, added);
  } else if (s.inverse_out_scale != 0.0f) {
    multiply_rows<T, 4, kInt8Both, kBytes>(w, s, target, first, count, added);
  } else if (s.rows == 2) {
    multiply_rows<T, 2, kInt8Both, kPairs>(w, s, target, first, count, added);
  } else {
    multiply_rows<T, 4, kInt8Both, kPairs>(w, s, target, first, count, added);
  }
}

}  // namespace tripy
