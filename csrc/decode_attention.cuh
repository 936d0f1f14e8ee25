// Attention of a decode step: each row's new key and value go into the cache, its queries attend.
#pragma once

#include "decode_step.cuh"

namespace tripy {

constexpr int kTile = 2;  // Keys that a thread has its columns of at once.

// Eight neighbours of the cache as floats.
template <class T>
__device__ __forceinline__ void unpack_eight(uint4 const& raw, float (&x)[8]) {
  auto pairs = reinterpret_cast<typename Convert<T>::Pair const*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 two = Convert<T>::floats(pairs[i]);
    x[2 * i] = two.x;
    x[2 * i + 1] = two.y;
  }
}

__device__ __forceinline__ void read_eight(Exchange const& exchange, int at, float (&x)[8]) {
  bool missing = true;
  for (uint32_t tries = 0; missing; tries++) {
    missing = false;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float2 two;
      missing |= !exchange.try_pair(at + 2 * i, two);
      x[2 * i] = two.x;
      x[2 * i + 1] = two.y;
    }
    Exchange::give_up(tries);
  }
}

template <class T>
__device__ __forceinline__ void store_eight(T* to, float const (&x)[8]) {
  uint4 raw;
  auto pairs = reinterpret_cast<typename Convert<T>::Pair*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    pairs[i] = Convert<T>::pair(x[2 * i], x[2 * i + 1]);
  }
  *reinterpret_cast<uint4*>(to) = raw;
}

// A softmax on its way: the largest score, and sums with respect to it.
struct Running {
  float top, total, sums[8];

  __device__ __forceinline__ void add(Running const& other) {
    float higher = fmaxf(top, other.top);
    float keep = top == -INFINITY ? 0.0f : exp2f(top - higher);
    float add = other.top == -INFINITY ? 0.0f : exp2f(other.top - higher);
    total = total * keep + other.total * add;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      sums[i] = sums[i] * keep + other.sums[i] * add;
    }
    top = higher;
  }
};

// The product of a query and a key, whose columns lie in `lanes` neighbouring lanes.
__device__ __forceinline__ float score(float const (&q)[8], float const (&k)[8], int lanes) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    sum = fmaf(q[i], k[i], sum);
  }
#pragma unroll 1
  for (int other = 1; other < lanes; other *= 2) {
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, other);
  }
  return sum;
}

// A unit of work: one chunk of the keys of one row and group. Lanes 0 ... width / 8 - 1 have a key's
// columns, the next ones another key's; tile by tile the workers take the next keys.
template <class T>
__device__ __forceinline__ void attend_unit(
    Worker& w, DecodeStep const& s, int m, int group, int chunk, int length) {
  int lanes = s.width / 8, per_warp = 32 / lanes, slots = kWarps * per_warp;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int slot = warp * per_warp + lane / lanes, column = lane % lanes * 8;
  int begin = chunk * s.chunk, end = min(begin + s.chunk, length);
  int at = __ldg(static_cast<int const*>(w.launch.tensors[s.position]) + m);
  bool fresh = at >= begin && at < begin + s.chunk && at < s.capacity;
  int64_t size = int64_t{s.capacity} * s.width;
  T* keys = static_cast<T*>(w.launch.tensors[s.cache]) + (m * 2 * s.groups + group) * size;
  T* values = keys + s.groups * size;
  int in = s.in + m * (s.heads + 2 * s.groups) * s.width;

  uint4 key[kTile], value[kTile];
  auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kTile; i++) {
      int p = first + i * slots + slot;
      bool there = p < end && p != at;
      key[i] = there ? *reinterpret_cast<uint4 const*>(keys + p * s.width + column) : uint4{};
      value[i] = there ? *reinterpret_cast<uint4 const*>(values + p * s.width + column) : uint4{};
    }
  };
  load(begin);
  float new_key[8] = {}, new_value[8] = {};
  if (fresh && warp == 0 && lane < lanes) {
    read_eight(w.exchange, in + (s.heads + group) * s.width + column, new_key);
    read_eight(w.exchange, in + (s.heads + s.groups + group) * s.width + column, new_value);
    store_eight(keys + at * s.width + column, new_key);
    store_eight(values + at * s.width + column, new_value);
  }
  __syncwarp();
  int shared_by = s.heads / s.groups;
#pragma unroll 1
  for (int head = group * shared_by; head < (group + 1) * shared_by; head++) {
    float q[8], x[8];
    read_eight(w.exchange, in + head * s.width + column, q);
    Running mine = {-INFINITY, 0.0f, {}};
    if (warp == 0) {
      float own = score(q, new_key, lanes) * s.score_scale;
      if (fresh && at < length && lane < lanes) {
        mine.top = own;
        mine.total = 1.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          mine.sums[i] = new_value[i];
        }
      }
    }
#pragma unroll 1
    for (int first = begin; first < end; first += kTile * slots) {
      if (first > begin || head > group * shared_by) {
        load(first);
      }
      float scores[kTile], higher = mine.top;
#pragma unroll
      for (int i = 0; i < kTile; i++) {
        int p = first + i * slots + slot;
        unpack_eight<T>(key[i], x);
        scores[i] = score(q, x, lanes) * s.score_scale;
        scores[i] = p < end && p != at ? scores[i] : -INFINITY;
        higher = fmaxf(higher, scores[i]);
      }
      float keep = mine.top == -INFINITY ? 0.0f : exp2f(mine.top - higher);
      mine.top = higher;
      mine.total *= keep;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        mine.sums[i] *= keep;
      }
#pragma unroll
      for (int i = 0; i < kTile; i++) {
        float share = scores[i] == -INFINITY ? 0.0f : exp2f(scores[i] - higher);
        unpack_eight<T>(value[i], x);
        mine.total += share;
#pragma unroll
        for (int c = 0; c < 8; c++) {
          mine.sums[c] = fmaf(share, x[c], mine.sums[c]);
        }
      }
    }
#pragma unroll 1
    for (int other = lanes; other < 32; other *= 2) {
      Running theirs;
      theirs.top = __shfl_xor_sync(0xFFFFFFFF, mine.top, other);
      theirs.total = __shfl_xor_sync(0xFFFFFFFF, mine.total, other);
#pragma unroll
      for (int c = 0; c < 8; c++) {
        theirs.sums[c] = __shfl_xor_sync(0xFFFFFFFF, mine.sums[c], other);
      }
      mine.add(theirs);
    }
    if (lane < lanes) {
#pragma unroll
      for (int c = 0; c < 8; c++) {
        w.shared.heads[warp][column + c] = mine.sums[c];
      }
      if (lane == 0) {
        w.shared.heads[warp][s.width] = mine.top;
        w.shared.heads[warp][s.width + 1] = mine.total;
      }
    }
    w.sync();
    int c = threadIdx.x;
    if (c < s.width) {
      float top = -INFINITY, total = 0.0f, sum = 0.0f;
#pragma unroll 4
      for (int i = 0; i < kWarps; i++) {
        top = fmaxf(top, w.shared.heads[i][s.width]);
      }
#pragma unroll 4
      for (int i = 0; i < kWarps; i++) {
        float theirs = w.shared.heads[i][s.width];
        float share = theirs == -INFINITY ? 0.0f : exp2f(theirs - top);
        total = fmaf(share, w.shared.heads[i][s.width + 1], total);
        sum = fmaf(share, w.shared.heads[i][c], sum);
      }
      int row_head = m * s.heads + head;
      if (s.chunks == 1) {
        w.exchange.write(
            s.out + row_head * s.width + c, length <= 0 ? 0.0f : to_type<T>(sum / total));
      } else {
        int to = s.partial + (row_head * s.chunks + chunk) * (s.width + 2);
        w.exchange.write(to + c, sum);
        if (c == 0) {
          w.exchange.write(to + s.width, top);
          w.exchange.write(to + s.width + 1, total);
        }
      }
    }
    w.sync();
  }
}

template <class T>
__device__ __forceinline__ void attention(Worker& w, DecodeStep const& s) {
#pragma unroll 1
  for (int unit = blockIdx.x; unit < w.launch.rows * s.groups * s.chunks; unit += gridDim.x) {
    int chunk = unit % s.chunks, m = unit / s.chunks / s.groups;
    int length = __ldg(static_cast<int const*>(w.launch.tensors[s.lengths]) + m);
    length = min(length, s.capacity);
    if (chunk == 0 || chunk * s.chunk < length) {
      attend_unit<T>(w, s, m, unit / s.chunks % s.groups, chunk, length);
    }
  }
}

}  // namespace tripy
