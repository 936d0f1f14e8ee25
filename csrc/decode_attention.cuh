// Attention of a decode step: the new key and value go into the cache, the query of a head attends.
//
// A unit of work is one chunk of the keys of one head. Width / 16 neighbouring lanes share a key,
// 16 columns each: eight, and eight from the other half of the head. Each such group of lanes has
// two keys, and so a block kKeys, which is a chunk.
#pragma once

#include "decode_step.cuh"

namespace tripy {

template <int Width>
struct Split {
  static constexpr int kLanes = Width / 16, kGroups = 32 / kLanes;
  static constexpr int kOfWarp = 2 * kGroups, kKeys = kWarps * kOfWarp;
};

// A thread's columns of one head: 16 values as the cache and the exchange have them.
struct Sixteen {
  uint4 low, high;
};

template <class T>
__device__ __forceinline__ void unpack(Sixteen const& raw, float (&x)[16]) {
  uint32_t const words[8] = {raw.low.x,  raw.low.y,  raw.low.z,  raw.low.w,
                             raw.high.x, raw.high.y, raw.high.z, raw.high.w};
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float2 two = floats_of<T>(words[i]);
    x[2 * i] = two.x, x[2 * i + 1] = two.y;
  }
}

// The same with the numbers of their launches.
struct SixteenUnits {
  uint4 two[4];

  __device__ __forceinline__ void load(Exchange const& exchange, int at, int half) {
    two[0] = load_two_units(exchange.units + at);
    two[1] = load_two_units(exchange.units + at + 2);
    two[2] = load_two_units(exchange.units + at + half);
    two[3] = load_two_units(exchange.units + at + half + 2);
  }

  __device__ __forceinline__ bool are_of(uint32_t launch) const {
    bool there = true;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      there &= two[i].y == launch & two[i].w == launch;
    }
    return there;
  }

  __device__ __forceinline__ Sixteen values() const {
    return {{two[0].x, two[0].z, two[1].x, two[1].z}, {two[2].x, two[2].z, two[3].x, two[3].z}};
  }
};

// Adds up what the groups of lanes have, halving each time what a lane is left with: it keeps
// Count / kGroups of the values from the place that is returned.
template <int Width, int Count = 16, int Distance = 16>
__device__ __forceinline__ int add_groups(float (&x)[16]) {
  if constexpr (Distance < Split<Width>::kLanes) {
    return 0;
  } else {
    bool upper = threadIdx.x & Distance;
#pragma unroll
    for (int i = 0; i < Count / 2; i++) {
      float mine = upper ? x[i + Count / 2] : x[i], other = upper ? x[i] : x[i + Count / 2];
      x[i] = mine + __shfl_xor_sync(0xFFFFFFFF, other, Distance);
    }
    return (upper ? Count / 2 : 0) + add_groups<Width, Count / 2, Distance / 2>(x);
  }
}

// Adds up the warps and sends the result with its largest score and total, from which whoever reads
// several chunks finds their shares. Four lanes to a pair of columns, each with a quarter of the
// warps, and each of which writes another copy.
template <class T, int Width>
__device__ __forceinline__ void add_warps(Worker& w, int out) {
  static_assert(kCopies == 4);
  constexpr unsigned kAll = 0xFFFFFFFF;
  constexpr int kQuarter = (kWarps + 3) / 4;
  int copy = threadIdx.x % 4, first = copy * kQuarter;
#pragma unroll 1
  for (int pair = threadIdx.x / 4; pair < Width / 2; pair += kWorkers / 4) {
    float2 states[kQuarter], sums[kQuarter], sum = {0.0f, 0.0f};
    float top = kLeastScore, total = 0.0f;
#pragma unroll
    for (int i = 0; i < kQuarter; i++) {
      states[i] = {kLeastScore, 0.0f}, sums[i] = {0.0f, 0.0f};
      if (first + i < kWarps) {
        states[i] = w.shared.states[first + i];
        sums[i] = *reinterpret_cast<float2 const*>(&w.shared.heads[first + i][2 * pair]);
      }
      top = fmaxf(top, states[i].x);
    }
    top = fmaxf(top, __shfl_xor_sync(kAll, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAll, top, 2));
#pragma unroll
    for (int i = 0; i < kQuarter; i++) {
      float share = approximate_exp2(states[i].x - top);
      total = fmaf(share, states[i].y, total);
      sum = {fmaf(share, sums[i].x, sum.x), fmaf(share, sums[i].y, sum.y)};
    }
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      total += __shfl_xor_sync(kAll, total, lanes);
      sum.x += __shfl_xor_sync(kAll, sum.x, lanes);
      sum.y += __shfl_xor_sync(kAll, sum.y, lanes);
    }
    float inverse = inverse_of(total);
    w.exchange.write(out + pair, unit_of<T>(sum.x * inverse, sum.y * inverse), copy);
    if (pair == 0) {
      w.exchange.write(out + Width / 2, __float_as_uint(top), copy);
      w.exchange.write(out + Width / 2 + 1, __float_as_uint(total), copy);
    }
  }
}

template <class T, int Width>
__device__ __forceinline__ void attend(
    Worker& w, DecodeStep const& s, int head, int chunk, int length, int position) {
  using S = Split<Width>;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = lane % S::kLanes * 8;
  int group = quotient(head, s.inverse_group);
  int64_t size = int64_t{s.capacity} * Width;
  T* keys = static_cast<T*>(w.launch.tensors[s.cache]) + group * size + column;
  T* values = keys + s.groups * size;
  // This thread's two keys, of which one may be new.
  int mine = chunk * S::kKeys + warp * S::kOfWarp + lane / S::kLanes;
  bool has_new[2];
  Sixteen key[2], value[2], query;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int p = mine + i * S::kGroups;
    has_new[i] = p == position && position < s.capacity;
    key[i] = value[i] = {};
    if (p < length && !has_new[i]) {
      auto load = [p](T const* from) {
        auto at = from + int64_t{p} * Width;
        return Sixteen{*reinterpret_cast<uint4 const*>(at),
                       *reinterpret_cast<uint4 const*>(at + Width / 2)};
      };
      key[i] = load(keys);
      value[i] = load(values);
    }
  }
  // All that is waited for is asked for at once: the query, and a new key with its value.
  int in = s.in + column / 2, from = in + (s.heads + group) * (Width / 2);
  bool has_one = has_new[0] || has_new[1];
  SixteenUnits units, new_key, new_value;
  bool missing = true;
#pragma unroll 1
  for (uint32_t tries = 0; missing; tries++) {
    units.load(w.exchange, in + head * (Width / 2), Width / 4);
    if (has_one) {
      new_key.load(w.exchange, from, Width / 4);
      new_value.load(w.exchange, from + s.groups * (Width / 2), Width / 4);
      missing = !(new_key.are_of(w.exchange.launch) & new_value.are_of(w.exchange.launch));
    } else {
      missing = false;
    }
    missing |= !units.are_of(w.exchange.launch);
    Exchange::give_up(tries);
  }
  w.note(kInputThere);
  query = units.values();
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (has_new[i]) {
      key[i] = new_key.values();
      value[i] = new_value.values();
      auto store = [position](T* to, Sixteen const& x) {
        auto at = to + int64_t{position} * Width;
        *reinterpret_cast<uint4*>(at) = x.low;
        *reinterpret_cast<uint4*>(at + Width / 2) = x.high;
      };
      store(keys, key[i]);
      store(values, value[i]);
    }
  }
  __syncwarp();
  float scores[2], top = kLeastScore, x[16], q[16];
  unpack<T>(query, q);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    unpack<T>(key[i], x);
    scores[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < 16; c++) {
      scores[i] = fmaf(q[c], x[c], scores[i]);
    }
#pragma unroll
    for (int lanes = 1; lanes < S::kLanes; lanes *= 2) {
      scores[i] += __shfl_xor_sync(0xFFFFFFFF, scores[i], lanes);
    }
    scores[i] = mine + i * S::kGroups < length ? scores[i] * s.score_scale : -INFINITY;
    top = fmaxf(top, scores[i]);
  }
#pragma unroll
  for (int lanes = S::kLanes; lanes < 32; lanes *= 2) {
    top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFF, top, lanes));
  }
  float sums[16] = {}, total = 0.0f;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float share = approximate_exp2(scores[i] - top);
    total += share;
    unpack<T>(value[i], x);
#pragma unroll
    for (int c = 0; c < 16; c++) {
      sums[c] = fmaf(share, x[c], sums[c]);
    }
  }
#pragma unroll
  for (int lanes = S::kLanes; lanes < 32; lanes *= 2) {
    total += __shfl_xor_sync(0xFFFFFFFF, total, lanes);
  }
  int place = add_groups<Width>(sums);
#pragma unroll
  for (int i = 0; i < 16 / S::kGroups; i++) {
    int c = place + i;
    w.shared.heads[warp][column + (c < 8 ? c : Width / 2 - 8 + c)] = sums[i];
  }
  if (lane == 0) {
    w.shared.states[warp] = {top, total};
  }
  Worker::sync();
  w.note(kTogether);
  add_warps<T, Width>(w, s.out + (head * s.chunks + chunk) * (Width / 2 + 2));
}

template <class T, class W>
__device__ __forceinline__ void attention(W& w, DecodeStep const& step) {
  DecodeStep const s = step;
  int units = s.heads * s.chunks;
  if (int(blockIdx.x) >= units) {
    return;
  }
  find_place(w, s.position, s.lengths);
  int length = min(w.place.length, s.capacity), position = w.place.position;
#pragma unroll 1
  for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
    int chunk = quotient(unit, s.inverse_heads), begin = chunk * s.chunk;
    int head = unit - chunk * s.heads;
    // What nobody reads is left out, but a new key is written wherever it lies.
    bool has_new = position >= begin && position < begin + s.chunk;
    if (chunk > 0 && begin >= length && !has_new) {
      continue;
    }
    if (unit != int(blockIdx.x)) {
      Worker::sync();  // The unit before this one has read what is shared.
    }
    attend<T, W::kWidth>(w, s, head, chunk, length, position);
  }
}

}  // namespace tripy
