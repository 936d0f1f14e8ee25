// A linear layer of a decode step with int8 weights and inputs, in the kernels for such models. All
// others: decode_linear.cuh.
//
// Code that was not run for a while comes slowly, or very slowly: a multiprocessor that has to fetch
// it stands still for up to 5,000 cycles, and all of them at once. So there is as little of it as
// possible, and what has to be run after the input has come is free of what could be before.
#pragma once

#include "decode_integers.cuh"
#include "decode_linear.cuh"

namespace tripy {

// The stages of the ring that a step's groups of rows are in.
struct Passage {
  int begin = 0;  // The first group of the stage at hand.

  // Goes on to the stage with `group`; those before it are free then. Warps without a group in one
  // wait for it too: none arrives twice before all arrived once.
  __device__ __forceinline__ void go_to(Worker& w, DecodeStep const& s, int group) {
#pragma unroll 1
    while (begin + s.stage_groups <= group) {
      next(w, s);
    }
    w.ring.wait_full(w.shared);
  }

  __device__ __forceinline__ void end(Worker& w, DecodeStep const& s, int count) {
#pragma unroll 1
    while (begin < count) {
      next(w, s);
    }
  }

  // All lanes arrive, as in decode_linear.cuh.
  __device__ __forceinline__ void next(Worker& w, DecodeStep const& s) {
    w.ring.wait_full(w.shared);
    barrier_arrive(shared_address(&w.shared.empty[w.ring.stage]));
    w.ring.next(w.launch);
    begin += s.stage_groups;
  }
};

// Calls `call` with the number of rows of a group as a constant.
template <class Call>
__device__ __forceinline__ float with_rows(int rows, Call call) {
  if (rows == 8) {
    return call(std::integral_constant<int, 8>());
  }
  return rows == 2 ? call(std::integral_constant<int, 2>())
                   : call(std::integral_constant<int, 4>());
}

template <class T, class W>
__device__ __forceinline__ void integer_linear(W& w, DecodeStep const& step) {
  DecodeStep const s = step;  // In registers: every wait would read it again.
  int first = blockIdx.x * s.groups_each, count = min(s.groups_each, s.row_groups - first);
  if (count <= 0) {
    return;
  }
  Target<T> target = target_of<T>(w, s);
  int own = threadIdx.x / 32, lane_row = threadIdx.x & (s.rows - 1);
  int row = (first + own) * s.rows + lane_row;
  float added = own < count ? residual_now<T>(w, s, row) : 0.0f;
  Passage passage;
  float2 scale_and_bias;
  auto rows_of = [&](int group) {
    uint8_t const* rows = w.ring.bytes(w.launch, w.shared);
    uint8_t const* records = rows + s.stage_groups * s.rows * s.row_bytes;
    int at = (group - passage.begin) * s.rows;
    scale_and_bias = reinterpret_cast<float2 const*>(records)[at + lane_row];
    return Operands{rows + at * s.row_bytes, w.shared.input, s.row_bytes, s.k};
  };
  auto finish_row = [&](float sum) {
    float value = activated(fmaf(sum, scale_and_bias.x, scale_and_bias.y), s.activation);
    value += added;
    if (s.inverse_out_scale != 0.0f) {
      finish<T, kBytes>(w, s, target, row, value);
    } else {
      finish<T, kPairs>(w, s, target, row, value);
    }
    own += kWarps, row += kWarps * s.rows;
    added = own < count ? residual_now<T>(w, s, row) : 0.0f;
  };
  w.note(kPrepared);
  if (step.source == kFromParts) {
    read_parts<T>(w, step);  // Which needs the registers.
    w.note(kRounded);
    Worker::sync();
    w.note(kTogether);
  } else {
    // Warps without a group keep the last one's rows: what some do not write would never be free.
    int group = min(own, count - 1);
    passage.go_to(w, s, group);
    KeptRows kept;
    Operands o = rows_of(group);
    with_rows(s.rows, [&](auto rows) {
      kept.load<decltype(rows)::value>(o.rows, s.row_bytes, w.shared.zeros);
      return 0.0f;
    });
    w.note(kWeightsThere);
    read_input<T>(w, step);
    w.note(kRounded);
    Worker::sync();
    w.note(kTogether);
    if (own < count) {
      float sum = with_rows(s.rows, [&](auto rows) {
        return kept.product<decltype(rows)::value>(w.shared, o);
      });
      w.note(kMultiplied);
      finish_row(sum);
    }
  }
#pragma unroll 1
  while (own < count) {
    passage.go_to(w, s, own);
    Operands o = rows_of(own);
    finish_row(with_rows(s.rows, [&](auto rows) {
      return unkept_product<decltype(rows)::value>(w.shared, o);
    }));
  }
  passage.end(w, s, count);
}

}  // namespace tripy
