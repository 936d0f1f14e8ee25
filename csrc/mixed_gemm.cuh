// Y[M, N] = activation(X[M, K] · W[N, K]ᵀ · scale + bias) + residual for many rows, X of float16 or
// bfloat16, W packed int8, int4 or float8, in one kernel for compute capability 9.0a.
//
// Tensor cores take one operand of a product from registers: the weights, which are converted there
// on their way from shared memory, so that nobody writes them to memory in a larger type. So the
// weights' outputs are the rows of the instruction, 64 of a consumer, and up to 256 rows of X its
// columns; a result is turned on its way out.
//
// As in scaled_gemm.cuh, one block an SM goes from tile to tile; a warp of it has the copy engine
// fill a ring of stages, two warpgroups multiply and have half of a tile's outputs each, and blocks
// of a cluster fetch parts of their common rows of X. Where there are too few tiles for all SMs,
// they have parts of one tile's K instead, and add up their sums at the end.
//
// Of a stage of 64 columns, one half is converted while the tensor cores multiply the other one:
// they read its registers until the wait.
#pragma once

#include "hopper.cuh"
#include "mixed_output.cuh"
#include "mixed_weight.cuh"
#include "tiles.cuh"
#include "wgmma_mixed.cuh"

namespace tripy {

template <int Kind_, class X_, bool Blocks_, int N>
struct MixedConfig {
  static constexpr int kKind = Kind_;
  using X = X_;
  static constexpr bool kBlocks = Blocks_;  // Scales vary along the columns.
  static constexpr int kConsumers = 2;
  static constexpr int kM = kMixedTileOutputs;
  static constexpr int kN = N;  // Rows of x of a tile.
  static constexpr int kBoxRows = N % 128 == 0 ? N / 4 : N / 6;  // Of x, that are copied at once.
  static constexpr int kThreads = 128 * (1 + kConsumers);
  static constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // See tiles.cuh.
  static constexpr int kBytesX = kN * kStageColumns;
  static constexpr int kBytesWeight = kM * kMixedWeightBytes;
  static constexpr int kStageBytes = kBytesX + kBytesWeight;
  static constexpr int kOtherBytes = kConsumers * kMixedBuffer + kBarrierBytes;
  static constexpr int kFit = (kSharedBytes - kOtherBytes) / kStageBytes;
  static constexpr int kStages = kFit < 12 ? kFit : 12;
  static constexpr int kShared = kStages * kStageBytes + kOtherBytes;
  static_assert((kMostSplit - 1) * kConsumers * kMixedSumBytes <= kStages * kStageBytes);
};

// A block's tiles, in an order that has squares of tiles at work at a time, which share rows of the
// weight and of x in the L2 cache; and its part of K in stages.
template <class C>
struct MixedWork {
  int rank, cluster, high, wide, count, step, first_stage, stages;

  __device__ __forceinline__ explicit MixedWork(MixedShape const& shape)
      : rank(cluster_rank()), cluster(shape.cluster) {
    high = (shape.n + C::kM * cluster - 1) / (C::kM * cluster);
    wide = (shape.m + C::kN - 1) / C::kN;
    count = high * wide;
    step = gridDim.x / (cluster * shape.split);
    int all = (shape.k + kMixedColumns - 1) / kMixedColumns;
    int part = shape.split > 1 ? rank : 0;
    first_stage = all * part / shape.split;
    stages = all * (part + 1) / shape.split - first_stage;
  }

  __device__ __forceinline__ int first(MixedShape const& shape) const {
    return blockIdx.x / (cluster * shape.split);
  }

  __device__ __forceinline__ void at(int index, int& output, int& row) const {
    int group = 16 / cluster, before = index / (group * wide), within = index % (group * wide);
    int height = min(group, high - before * group);
    int own = cluster > 1 ? rank : 0;
    output = ((before * group + within % height) * cluster + own) * C::kM;
    row = within / height * C::kN;
  }
};

// The first stages of the weights, while the kernel before this one still runs.
template <class C>
__device__ __forceinline__ void prefetch_weights(
    CUtensorMap const& map_weight, MixedShape const& shape) {
  MixedWork<C> work(shape);
  int output, row;
  work.at(work.first(shape), output, row);
  for (int i = 0; i < min(work.stages, C::kStages); i++) {
    int byte = stage_byte<C::kKind>(work.first_stage + i, shape.window);
    prefetch_box(&map_weight, byte, output);
  }
}

template <class C>
__device__ __forceinline__ void produce_mixed(
    CUtensorMap const& map_weight, CUtensorMap const& map_x, MixedShape const& shape,
    uint32_t stages, uint32_t full, uint32_t empty) {
  MixedWork<C> work(shape);
  Ring<C::kStages> ring;
  for (int t = work.first(shape); t < work.count; t += work.step) {
    int output, row;
    work.at(t, output, row);
    for (int i = 0; i < work.stages; i++, ring.next()) {
      int stage = work.first_stage + i, column = stage * kMixedColumns;
      uint32_t barrier = full + 8 * ring.stage;
      uint32_t x = stages + ring.stage * C::kStageBytes, weight = x + C::kBytesX;
      barrier_wait(empty + 8 * ring.stage, ring.phase ^ 1);
      // Rows beyond the last one are not copied, which takes longer than copies do: what they have
      // of sums is not written.
      int boxes = min((shape.m - row + C::kBoxRows - 1) / C::kBoxRows, C::kN / C::kBoxRows);
      barrier_expect_bytes(barrier, C::kBytesWeight + boxes * C::kBoxRows * kStageColumns);
      copy_in(weight, &map_weight, stage_byte<C::kKind>(stage, shape.window), output, barrier);
      for (int box = shape.cluster == 1 ? 0 : work.rank; box < boxes; box += shape.cluster) {
        int at = box * C::kBoxRows;
        if (shape.cluster == 1) {
          copy_in(x + at * kStageColumns, &map_x, column, row + at, barrier);
        } else {
          copy_in_multicast(x + at * kStageColumns, &map_x, column, row + at, barrier, 3);
        }
      }
    }
  }
}

// The barrier at which one consumer waits for the other's first stages. So it is behind from then
// on, and multiplies while the other one is in its epilogue.
constexpr int kLagBarrier = 3, kLag = 3;

// One consumer's sums of one tile.
template <class C>
__device__ __forceinline__ void multiply_mixed(
    float (&sums)[C::kN / 2], MixedWeight<C::kKind, typename C::X, C::kBlocks>& weight,
    Ring<C::kStages>& ring, int first_stage, int k_stages, uint32_t stages, uint32_t full,
    uint32_t empty, int cluster, int lag_at) {
  static_assert(kLag < C::kStages);
  // All warps of a consumer have read the weights themselves, so each gives a stage back.
  auto release = [&](int stage) {
    if (threadIdx.x % 32 < cluster) {
      if (cluster == 1) {
        barrier_arrive(empty + 8 * stage);
      } else {
        barrier_arrive(empty + 8 * stage, threadIdx.x % 32);
      }
    }
  };
  auto multiply = [&](uint32_t (&a)[2][4], uint32_t x, int half, int add) {
    uint64_t b = matrix_descriptor(x) + half * 2 * kNextStep;
    wgmma_operands(a);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 2; step++) {
      wgmma_mixed<C::kN, typename C::X>(sums, a[step], b + step * kNextStep, add + step);
    }
    wgmma_commit();
  };
  uint32_t first[2][4], second[2][4];
  MixedRaw raw;
  int previous = 0;
  barrier_wait(full + 8 * ring.stage, ring.phase);
  weight.template load<0>(stages + ring.stage * C::kStageBytes + C::kBytesX, raw);
  weight.template convert<0>(raw, first_stage, first);
  for (int i = 0; i < k_stages; i++) {
    uint32_t x = stages + ring.stage * C::kStageBytes;
    multiply(first, x, 0, i);
    weight.template load<1>(x + C::kBytesX, raw);
    wgmma_wait<1>();  // The second half of the stage before has been multiplied.
    if (i > 0) {
      release(previous);
    }
    weight.template convert<1>(raw, first_stage + i, second);
    multiply(second, x, 1, 1);
    previous = ring.stage;
    ring.next();
    if (i + 1 < k_stages) {
      barrier_wait(full + 8 * ring.stage, ring.phase);
      weight.template load<0>(stages + ring.stage * C::kStageBytes + C::kBytesX, raw);
    }
    if (i == lag_at) {
      group_arrive<256>(kLagBarrier);
    }
    wgmma_wait<1>();
    weight.template convert<0>(raw, first_stage + i + 1, first);
  }
  wgmma_wait<0>();
  wgmma_results(sums);
  release(previous);
}

template <class C>
__device__ __forceinline__ void consume_mixed(
    MixedShape const& shape, MixedEpilogue const& epilogue, uint32_t stages, uint32_t full,
    uint32_t empty, uint8_t* buffer, float const* block_scale, int consumer) {
  MixedWork<C> work(shape);
  Ring<C::kStages> ring;
  int thread_output = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  MixedWeight<C::kKind, typename C::X, C::kBlocks> weight(shape, consumer * kMixedOutputs);
  int lag_at = consumer == 0 ? min(kLag, work.stages) - 1 : -1;
  if (consumer == 1) {
    group_sync<256>(kLagBarrier);
  }
  for (int t = work.first(shape); t < work.count; t += work.step) {
    int output, row;
    work.at(t, output, row);
    output += consumer * kMixedOutputs;
    MixedValues values(epilogue, output + thread_output, shape.n);
    weight.begin(shape, block_scale, output + thread_output, work.first_stage);
    float sums[C::kN / 2];
    multiply_mixed<C>(
        sums, weight, ring, work.first_stage, work.stages, stages, full, empty, shape.cluster,
        lag_at);
    lag_at = -1;
    MixedParts parts{stages, shape.split, work.rank, consumer};
    parts.exchange(sums);
    parts.add(sums);
    finish_mixed(sums, shape, epilogue, values, parts, buffer, row, output, consumer);
  }
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1) mixed_gemm(
    const __grid_constant__ CUtensorMap map_weight, const __grid_constant__ CUtensorMap map_x,
    const __grid_constant__ MixedEpilogue epilogue, float const* block_scale, MixedShape shape) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t shared[];  // The swizzle needs the alignment.
  uint8_t* buffers = shared + C::kStages * C::kStageBytes;
  uint32_t stages = shared_address(shared);
  uint32_t full = shared_address(buffers + C::kConsumers * kMixedBuffer);
  uint32_t empty = full + 8 * C::kStages;
  // The same for all threads of a warp, said so that the compiler knows it.
  int group = __shfl_sync(0xFFFFFFFF, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    prefetch_map(&map_weight);
    prefetch_map(&map_x);
    for (int i = 0; i < C::kStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, C::kConsumers * 4 * shape.cluster);
    }
    barrier_init_fence();
    prefetch_weights<C>(map_weight, shape);
  }
  __syncwarp();  // A cluster's barrier takes whole warps.
  cluster_sync();
  wait_for_previous_kernel();
  allow_next_kernel();
  if (group == 0) {
    give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) {
      produce_mixed<C>(map_weight, map_x, shape, stages, full, empty);
    }
    __syncwarp();
    if (shape.split > 1) {  // As in MixedParts.
      cluster_sync();
      cluster_sync();
    }
  } else {
    take_registers<C::kConsumerRegisters>();
    int consumer = group - 1;
    consume_mixed<C>(
        shape, epilogue, stages, full, empty, buffers + consumer * kMixedBuffer, block_scale,
        consumer);
  }
  __syncwarp();
  cluster_sync();  // Another block may still write to this one's shared memory.
#endif
}

}  // namespace tripy
