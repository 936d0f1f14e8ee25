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
// of a cluster fetch parts of their common rows of X. Of a stage of 64 columns, one half is
// converted while the tensor cores multiply the other one: they read its registers until the wait.
#pragma once

#include "hopper.cuh"
#include "mixed_output.cuh"
#include "mixed_weight.cuh"
#include "tiles.cuh"
#include "wgmma_mixed.cuh"

namespace tripy {

template <int Kind_, class X_, bool Blocks_, int N, int Cluster>
struct MixedConfig {
  static constexpr int kKind = Kind_;
  using X = X_;
  static constexpr bool kBlocks = Blocks_;  // Scales vary along the columns.
  static constexpr int kConsumers = 2;
  static constexpr int kM = kMixedOutputs * kConsumers;  // Outputs of a tile.
  static constexpr int kN = N;                           // Rows of x of a tile.
  static constexpr int kCluster = Cluster;
  static constexpr int kThreads = 128 * (1 + kConsumers);
  static constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // See tiles.cuh.
  static constexpr int kBytesX = kN * kStageColumns;
  static constexpr int kBytesWeight = kM * kMixedWeightBytes;
  static constexpr int kStageBytes = kBytesX + kBytesWeight;
  static constexpr int kOtherBytes = kConsumers * kMixedBuffer + kBarrierBytes;
  static constexpr int kFit = (kSharedBytes - kOtherBytes) / kStageBytes;
  static constexpr int kStages = kFit < 12 ? kFit : 12;
  static constexpr int kShared = kStages * kStageBytes + kOtherBytes;
};

// Tiles of the outputs (in place of rows) and of x's rows (of columns).
template <class C>
__device__ __forceinline__ Tiles<C> mixed_tiles(MixedShape const& shape) {
  return Tiles<C>(Shape{shape.n, shape.m, shape.k});
}

template <class C>
__device__ __forceinline__ void produce_mixed(
    CUtensorMap const& map_weight, CUtensorMap const& map_x, MixedShape const& shape,
    uint32_t stages, uint32_t full, uint32_t empty, int rank) {
  auto tiles = mixed_tiles<C>(shape);
  Ring<C::kStages> ring;
  int k_stages = (shape.k + kMixedColumns - 1) / kMixedColumns;
  for (int t = blockIdx.x / C::kCluster; t < tiles.count; t += gridDim.x / C::kCluster) {
    int output, row;
    tiles.at(t, rank, output, row);
    for (int i = 0; i < k_stages; i++, ring.next()) {
      int2 column = stage_columns<C::kKind>(i, shape.window);
      uint32_t barrier = full + 8 * ring.stage;
      uint32_t x = stages + ring.stage * C::kStageBytes, weight = x + C::kBytesX;
      barrier_wait(empty + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect_bytes(barrier, C::kStageBytes);
      copy_in(weight, &map_weight, column.y, output, barrier);
      if constexpr (C::kCluster == 1) {
        copy_in(x, &map_x, column.x, row, barrier);
      } else {
        constexpr int kPart = C::kN / C::kCluster;
        copy_in_multicast(
            x + rank * kPart * kStageColumns, &map_x, column.x, row + rank * kPart, barrier,
            (1 << C::kCluster) - 1);
      }
    }
  }
}

// One consumer's sums of one tile.
template <class C>
__device__ __forceinline__ void multiply_mixed(
    float (&sums)[C::kN / 2], MixedWeight<C::kKind, typename C::X, C::kBlocks>& weight,
    Ring<C::kStages>& ring, int k_stages, uint32_t stages, uint32_t full, uint32_t empty) {
  // All warps of a consumer have read the weights themselves, so each gives a stage back.
  auto release = [&](int stage) {
    if (threadIdx.x % 32 < C::kCluster) {
      barrier_arrive(empty + 8 * stage, threadIdx.x % 32);
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
  int previous = 0;
  barrier_wait(full + 8 * ring.stage, ring.phase);
  weight.template convert<0>(stages + ring.stage * C::kStageBytes + C::kBytesX, 0, first);
  for (int i = 0; i < k_stages; i++) {
    uint32_t x = stages + ring.stage * C::kStageBytes;
    multiply(first, x, 0, i);
    wgmma_wait<1>();  // The second half of the stage before has been multiplied.
    if (i > 0) {
      release(previous);
    }
    weight.template convert<1>(x + C::kBytesX, i, second);
    multiply(second, x, 1, 1);
    wgmma_wait<1>();
    previous = ring.stage;
    ring.next();
    if (i + 1 < k_stages) {
      barrier_wait(full + 8 * ring.stage, ring.phase);
      weight.template convert<0>(stages + ring.stage * C::kStageBytes + C::kBytesX, i + 1, first);
    }
  }
  wgmma_wait<0>();
  wgmma_results(sums);
  release(previous);
}

template <class C>
__device__ __forceinline__ void consume_mixed(
    MixedShape const& shape, MixedEpilogue const& epilogue, float const* block_scale,
    uint32_t stages, uint32_t full, uint32_t empty, uint8_t* buffer, int rank, int consumer) {
  auto tiles = mixed_tiles<C>(shape);
  Ring<C::kStages> ring;
  int k_stages = (shape.k + kMixedColumns - 1) / kMixedColumns;
  int thread_output = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  MixedWeight<C::kKind, typename C::X, C::kBlocks> weight(shape, consumer * kMixedOutputs);
  for (int t = blockIdx.x / C::kCluster; t < tiles.count; t += gridDim.x / C::kCluster) {
    int output, row;
    tiles.at(t, rank, output, row);
    output += consumer * kMixedOutputs;
    weight.begin(shape, block_scale, output);
    float sums[C::kN / 2];
    multiply_mixed<C>(sums, weight, ring, k_stages, stages, full, empty);
    MixedValues values(epilogue, output + thread_output, shape.n);
#pragma unroll
    for (int chunk = 0; chunk < C::kN / kMixedChunk; chunk++) {
      if (row + chunk * kMixedChunk < shape.m) {
        finish_mixed(
            sums + chunk * kMixedChunk / 2, shape, epilogue, values, buffer,
            row + chunk * kMixedChunk, output, consumer);
      }
    }
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
  int rank = C::kCluster == 1 ? 0 : cluster_rank();
  // The same for all threads of a warp, said so that the compiler knows it.
  int group = __shfl_sync(0xFFFFFFFF, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    prefetch_map(&map_weight);
    prefetch_map(&map_x);
    for (int i = 0; i < C::kStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, C::kConsumers * 4 * C::kCluster);
    }
    barrier_init_fence();
  }
  __syncwarp();  // A cluster's barrier takes whole warps.
  if constexpr (C::kCluster == 1) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  wait_for_previous_kernel();
  allow_next_kernel();
  if (group == 0) {
    give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) {
      produce_mixed<C>(map_weight, map_x, shape, stages, full, empty, rank);
    }
    __syncwarp();
  } else {
    take_registers<C::kConsumerRegisters>();
    int consumer = group - 1;
    consume_mixed<C>(
        shape, epilogue, block_scale, stages, full, empty, buffers + consumer * kMixedBuffer, rank,
        consumer);
  }
  if constexpr (C::kCluster > 1) {
    cluster_sync();  // Another block may still write to this one's shared memory.
  }
#endif
}

}  // namespace tripy
