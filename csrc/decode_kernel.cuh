// The kernel of decode_step.cuh: one warp that streams weights, all others that work off the table.
#pragma once

#include "decode_attention.cuh"
#include "decode_integer_linear.cuh"

namespace tripy {

// Into the L2 cache: the keys and values that this block will need at an attention step.
template <class T>
__device__ __forceinline__ void prefetch_cache(DecodeLaunch const& launch, DecodeStep const& s) {
  int length = min(__ldg(static_cast<int const*>(launch.tensors[s.lengths])), s.capacity);
#pragma unroll 1
  for (int unit = blockIdx.x; unit < s.heads * s.chunks; unit += gridDim.x) {
    int begin = unit / s.heads * s.chunk, group = unit % s.heads / (s.heads / s.groups);
    int count = min(s.chunk, length - begin);
    if (count > 0) {
      int64_t size = int64_t{s.capacity} * s.width;
      T const* keys = static_cast<T const*>(launch.tensors[s.cache]) + group * size +
                      int64_t{begin} * s.width;
      prefetch_bytes(keys, count * s.width * int(sizeof(T)));
      prefetch_bytes(keys + s.groups * size, count * s.width * int(sizeof(T)));
    }
  }
}

// One warp: the block's rows of all weights, in the order in which they are needed.
template <class T, int Weights>
__device__ __forceinline__ void stream_weights(DecodeLaunch const& launch, Shared& shared) {
  // Weights are read once a launch: parameters and caches stay in the L2 cache.
  uint64_t once = evict_first_policy();
  WeightRing ring, arriving;
  int issued = 0, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int base = 0; base < launch.count; base += 32) {
    // Each lane looks at one step, so that the table's latency is paid once for 32.
    unsigned long long weight = 0, parameters = 0;
    int rows = 0, stage_rows = 0, row_bytes = 0, kind = kStepLinear;
    int record_bytes = kRecordBytes;
    if (base + lane < launch.count) {
      DecodeStep const& s = launch.steps[base + lane];
      kind = s.kind;
      if (kind == kStepLinear) {
        int own = s.groups_each * s.rows, first = min(int(blockIdx.x) * own, s.n);
        rows = min(own, s.n - first);
        stage_rows = s.stage_groups * s.rows;
        row_bytes = s.row_bytes;
        weight = reinterpret_cast<unsigned long long>(s.weight + int64_t{first} * row_bytes);
        record_bytes = Weights == kInt4Weights ? s.record_bytes : kRecordBytes;
        auto records = static_cast<uint8_t const*>(s.parameters) + int64_t{first} * record_bytes;
        parameters = reinterpret_cast<unsigned long long>(records);
      }
    }
#pragma unroll 1
    for (int i = 0; i < min(32, launch.count - base); i++) {
      constexpr unsigned kAll = 0xFFFFFFFF;
      if (__shfl_sync(kAll, kind, i) == kStepAttention) {
        if (lane == 0) {
          prefetch_cache<T>(launch, launch.steps[base + i]);
        }
        __syncwarp();
        continue;
      }
      auto data = reinterpret_cast<uint8_t const*>(__shfl_sync(kAll, weight, i));
      auto records = reinterpret_cast<uint8_t const*>(__shfl_sync(kAll, parameters, i));
      int record = Weights == kInt4Weights ? __shfl_sync(kAll, record_bytes, i) : kRecordBytes;
      int end = __shfl_sync(kAll, rows, i), each = __shfl_sync(kAll, stage_rows, i);
      int bytes = __shfl_sync(kAll, row_bytes, i);
#pragma unroll 1
      for (int at = 0; at < end; at += each, ring.next(launch)) {
        barrier_wait(shared_address(&shared.empty[ring.stage]), ring.phase ^ 1);
        // More on their way would come no sooner, and what other warps wait for would come later:
        // requests for memory queue.
        if (issued++ >= launch.in_flight) {
          arriving.wait_full(shared);
          arriving.next(launch);
        }
        if (lane == 0) {
          uint32_t full = shared_address(&shared.full[ring.stage]);
          uint32_t to = shared_address(ring.bytes(launch, shared));
          int count = min(each, end - at), own = count * bytes;
          int others = (count + 1) / 2 * 2 * record;
          barrier_expect_bytes(full, own + others);
          copy_bytes_in(to, data + int64_t{at} * bytes, own, full, once);
          copy_bytes_in(to + each * bytes, records + int64_t{at} * record, others, full, once);
        }
        __syncwarp();
      }
    }
  }
}

template <class T, class W>
__device__ __forceinline__ void work(DecodeLaunch const& launch, Shared& shared) {
  constexpr int kWords = sizeof(DecodeStep) / 4;
  static_assert(kWords <= kWorkers);
  auto all = static_cast<uint2*>(launch.exchange);
  auto own = all + int64_t{blockIdx.x % kCopies} * launch.copy_units;
  auto exchange = Exchange{own, all, launch.copy_units, launch.launches[blockIdx.x] + 1};
  W worker = {{launch, shared, exchange, {}, {}}};
  auto table = reinterpret_cast<uint32_t const*>(launch.steps);
  int word = threadIdx.x;
  if (word < kWords) {
    reinterpret_cast<uint32_t*>(&shared.steps[0])[word] = __ldg(table + word);
  }
#pragma unroll 1
  for (int i = 0; i < launch.count; i++) {
    Worker::sync();
    uint32_t next = 0;
    bool more = word < kWords && i + 1 < launch.count;
    if (more) {
      next = __ldg(table + (i + 1) * kWords + word);
    }
    DecodeStep const& step = shared.steps[i % 2];
    worker.step = i;
    worker.note(kBegun);
    if (step.kind == kStepLinear) {
      if constexpr (W::kKeeps) {
        if (step.integers) {
          integer_linear<T>(worker, step);
        } else {
          linear<T>(worker, step);
        }
      } else {
        linear<T>(worker, step);
      }
    } else {
      attention<T>(worker, step);
    }
    worker.note(kEnded);
    if (more) {
      reinterpret_cast<uint32_t*>(&shared.steps[(i + 1) % 2])[word] = next;
    }
  }
  if (threadIdx.x == 0) {
    launch.launches[blockIdx.x] = exchange.launch;
  }
}

template <class T, int Weights, int Width, int Quads>
__global__ void __launch_bounds__(kStepThreads, 1)
    decode_step(const __grid_constant__ DecodeLaunch launch) {
#ifdef TRIPY_HAS_HOPPER
  auto& shared = *static_cast<Shared*>(dynamic_shared());
  if (threadIdx.x == 0) {
    for (int i = 0; i < kMostStages; i++) {
      barrier_init(shared_address(&shared.full[i]), 1);
      barrier_init(shared_address(&shared.empty[i]), kWorkers);
    }
    barrier_init_fence();
    for (auto& sums : shared.sums) {
      sums = {0.0f, 0.0f};
    }
    for (auto& zero : shared.zeros) {
      zero = 0;
    }
  }
  __syncthreads();
  if (threadIdx.x >= kWorkers) {
    stream_weights<T, Weights>(launch, shared);
  } else {
    work<T, WorkerOf<Weights, Width, Quads>>(launch, shared);
  }
#endif
}

}  // namespace tripy
