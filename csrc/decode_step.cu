// The kernel of decode_step.cuh and its launch.
#include <algorithm>

#include "decode_attention.cuh"
#include "decode_linear.cuh"

namespace tripy {

__device__ __forceinline__ void copy_bytes_in(
    void* to, void const* from, int bytes, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void prefetch_bytes(void const* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// Into the L2 cache: the keys and values that this block will need at an attention step.
template <class T>
__device__ __forceinline__ void prefetch_cache(DecodeLaunch const& launch, DecodeStep const& s) {
#pragma unroll 1
  for (int unit = blockIdx.x; unit < launch.rows * s.groups * s.chunks; unit += gridDim.x) {
    int begin = unit % s.chunks * s.chunk, m = unit / s.chunks / s.groups;
    int group = unit / s.chunks % s.groups;
    int length = min(__ldg(static_cast<int const*>(launch.tensors[s.lengths]) + m), s.capacity);
    int count = min(s.chunk, length - begin);
    if (count > 0) {
      int64_t size = int64_t{s.capacity} * s.width;
      T const* keys = static_cast<T const*>(launch.tensors[s.cache]) +
                      (m * 2 * s.groups + group) * size + begin * s.width;
      prefetch_bytes(keys, count * s.width * int(sizeof(T)));
      prefetch_bytes(keys + s.groups * size, count * s.width * int(sizeof(T)));
    }
  }
}

// One warp: the block's rows of all weights, in the order in which they are needed.
template <class T>
__device__ __forceinline__ void stream_weights(DecodeLaunch const& launch, Shared& shared) {
  uint64_t once;  // Weights are read once a launch: parameters and caches stay in the L2 cache.
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
  Ring<kRingStages> ring;
  int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int base = 0; base < launch.count; base += 32) {
    // Each lane looks at one step, so that the table's latency is paid once for 32.
    unsigned long long weight = 0;
    int row_bytes = 0, stride = 0, first = 0, end = 0, stage_rows = 1, kind = kStepLinear;
    if (base + lane < launch.count) {
      DecodeStep const& s = launch.steps[base + lane];
      kind = s.kind;
      if (kind == kStepLinear) {
        first = min(int(blockIdx.x) * s.rows_each, s.n);
        end = min(first + s.rows_each, s.n);
        row_bytes = s.row_bytes;
        stride = s.stride;
        stage_rows = s.stage_rows;
        weight = reinterpret_cast<unsigned long long>(s.weight);
      }
    }
#pragma unroll 1
    for (int i = 0; i < min(32, launch.count - base); i++) {
      constexpr unsigned kAll = 0xFFFFFFFF;
      if (__shfl_sync(kAll, kind, i) == kStepAttention) {
        if (lane == 0) {
          prefetch_cache<T>(launch, launch.steps[base + i]);
        }
        continue;
      }
      auto data = reinterpret_cast<uint8_t const*>(__shfl_sync(kAll, weight, i));
      int bytes = __shfl_sync(kAll, row_bytes, i), rows = __shfl_sync(kAll, stage_rows, i);
      int last = __shfl_sync(kAll, end, i), spread = __shfl_sync(kAll, stride, i);
#pragma unroll 1
      for (int row = __shfl_sync(kAll, first, i); row < last; row += rows, ring.next()) {
        uint32_t full = shared_address(&shared.full[ring.stage]);
        barrier_wait(shared_address(&shared.empty[ring.stage]), ring.phase ^ 1);
        int count = min(rows, last - row);
        if (lane == 0) {
          barrier_expect_bytes(full, count * bytes);
        }
        __syncwarp();
        // Each lane copies a row, to places that are spread over the banks.
        for (int own = lane; own < count; own += 32) {
          copy_bytes_in(
              shared.ring[ring.stage] + own * spread, data + int64_t{row + own} * bytes, bytes,
              full, once);
        }
        __syncwarp();
      }
    }
  }
}

template <class T>
__device__ __forceinline__ void work(DecodeLaunch const& launch, Shared& shared) {
  constexpr int kWords = sizeof(DecodeStep) / 4;
  auto exchange = Exchange{static_cast<uint2*>(launch.exchange), launch.launches[blockIdx.x] + 1};
  Worker worker = {launch, shared, exchange, {}};
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
    if (step.kind == kStepLinear) {
      linear<T>(worker, step);
    } else {
      attention<T>(worker, step);
    }
    if (more) {
      reinterpret_cast<uint32_t*>(&shared.steps[(i + 1) % 2])[word] = next;
    }
  }
  if (threadIdx.x == 0) {
    launch.launches[blockIdx.x] = exchange.launch;
  }
}

template <class T>
__global__ void __launch_bounds__(kStepThreads, 1)
    decode_step(const __grid_constant__ DecodeLaunch launch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kRingStages; i++) {
      barrier_init(shared_address(&shared.full[i]), 1);
      barrier_init(shared_address(&shared.empty[i]), 1);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kWorkers) {
    give_registers<24>();
    if (threadIdx.x < kWorkers + 32) {
      stream_weights<T>(launch, shared);
    }
  } else {
    take_registers<232>();
    work<T>(launch, shared);
  }
#endif
}

template <class T>
cudaError_t launch_decode(DecodeLaunch const& launch, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared);
  static_assert(kBytes <= kSharedBytes);
  cudaError_t error = cudaFuncSetAttribute(
      decode_step<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) {
    return error;
  }
  // All blocks wait for each other, so all must be there at once, or none.
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = launch.blocks;
  config.blockDim = kStepThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, decode_step<T>, launch);
}

}  // namespace tripy

extern "C" int tripy_decode_step(DecodeLaunch const* launch, void* stream) {
  auto where = static_cast<cudaStream_t>(stream);
  return launch->type == kTypeFloat16 ? tripy::launch_decode<__half>(*launch, where)
                                      : tripy::launch_decode<__nv_bfloat16>(*launch, where);
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
