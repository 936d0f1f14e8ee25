// D[M, N] = activation(A[M, K] · B[N, K]ᵀ · row_scale[M] · scale[N] + bias[N]) + residual[M, N]
// in one kernel for compute capability 9.0a; A and B one byte an element, sums in int32 or float32.
//
// One block an SM, which goes from tile to tile. Its warpgroups have roles:
//
//   producer   one thread: the copy engine fills a ring of stages with 128 columns of A and B
//   consumers  tensor cores, the sums in registers; then the epilogue on these registers, through
//              shared memory, to a copy out
//
// Two consumers work in one of two ways. Where there are tiles enough, they take turns
// ("ping-pong"): each has whole tiles of its own, and while one is in its epilogue the other has
// the tensor cores. Where there are not, each has half the rows of one tile, which is done sooner.
// Tiles of 256 columns are halved as well: the sums of a whole one do not fit a consumer's
// registers. They ask least of shared memory: 128 bytes a clock cycle at the tensor cores' full
// rate, of 128 that it has, where tiles of 128 columns ask 160.
//
// Two blocks of a cluster take tiles one above the other: each fetches half of their common
// columns of B and the copy engine writes it to both, which spares the L2 cache a quarter.
//
// Every row's sums and epilogue are the same whatever the other rows are.
#pragma once

#include "hopper.cuh"
#include "output.cuh"
#include "tiles.cuh"
#include "wgmma.cuh"

namespace tripy {

// The first stages of B, while the kernel before this one still runs.
template <class C>
__device__ __forceinline__ void prefetch_weight(
    CUtensorMap const& map_b, Shape const& shape, int rank) {
  int row, column;
  Tiles<C>(shape).at(blockIdx.x / C::kCluster, rank, row, column);
  column += rank * C::kN / C::kCluster;
  for (int k = 0; k < min(shape.k, C::kStages * kStageColumns); k += kStageColumns) {
    prefetch_box(&map_b, k, column);
  }
}

template <class C>
__device__ __forceinline__ void produce(
    CUtensorMap const& map_a, CUtensorMap const& map_b, Shape const& shape, uint32_t stages,
    uint32_t full, uint32_t empty, int rank) {
  Tiles<C> tiles(shape);
  Ring<C::kStages> ring;
  for (int t = blockIdx.x / C::kCluster; t < tiles.count; t += gridDim.x / C::kCluster) {
    int row, column;
    tiles.at(t, rank, row, column);
    for (int k = 0; k < shape.k; k += kStageColumns, ring.next()) {
      uint32_t barrier = full + 8 * ring.stage;
      uint32_t a = stages + ring.stage * C::kStageBytes, b = a + C::kBytesA;
      barrier_wait(empty + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect_bytes(barrier, C::kStageBytes);
      copy_in(a, &map_a, k, row, barrier);
      if constexpr (C::kCluster == 1) {
        copy_in(b, &map_b, k, column, barrier);
      } else {
        constexpr int kPart = C::kN / C::kCluster;
        copy_in_multicast(
            b + rank * kPart * kStageColumns, &map_b, k, column + rank * kPart, barrier,
            (1 << C::kCluster) - 1);
      }
    }
  }
}

template <class C>
using Sums = typename C::Sum[C::kSlabs][C::kN / 2];

// Where one consumer of two waits for its turn. Without turns a consumer could look at a stage two
// rounds of the ring early, when the parity of its barrier is the one looked for.
__device__ __forceinline__ int turn_barrier(int consumer) { return 3 + consumer; }

// One consumer's sums of one tile; `row` is its first one in the tile.
template <class C>
__device__ __forceinline__ void multiply(
    Sums<C>& sums, Ring<C::kStages>& ring, int k_stages, uint32_t stages, uint32_t full,
    uint32_t empty, int row, int consumer) {
  // A stage is given back once the products after it have been issued, so that these never wait.
  auto release = [&](int stage) {
    if (threadIdx.x % 128 < C::kCluster) {
      barrier_arrive(empty + 8 * stage, threadIdx.x % 128);
    }
  };
  if constexpr (C::kTurn) {
    group_sync<256>(turn_barrier(consumer));
  }
  int previous = 0;
  for (int i = 0; i < k_stages; i++, ring.next()) {
    barrier_wait(full + 8 * ring.stage, ring.phase);
    uint32_t tile = stages + ring.stage * C::kStageBytes;
    uint64_t a = matrix_descriptor(tile + row * kStageColumns);
    uint64_t b = matrix_descriptor(tile + C::kBytesA);
    constexpr uint64_t kNextSlab = kRows * kStageColumns >> 4;
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int slab = 0; slab < C::kSlabs; slab++) {
        wgmma<C::kN>(
            sums[slab], a + slab * kNextSlab + step * kNextStep, b + step * kNextStep, i + step,
            typename C::In{});
      }
    }
    wgmma_commit();
    if (i > 0) {
      wgmma_wait<1>();
      release(previous);
    }
    previous = ring.stage;
  }
  if constexpr (C::kTurn) {
    group_arrive<256>(turn_barrier(1 - consumer));
  }
  wgmma_wait<0>();
#pragma unroll
  for (int slab = 0; slab < C::kSlabs; slab++) {
    wgmma_results(sums[slab]);
  }
  release(previous);
}

template <class C>
__device__ __forceinline__ void consume(
    CUtensorMap const& map_d, Shape const& shape, Epilogue const& epilogue, uint32_t stages,
    uint32_t full, uint32_t empty, uint8_t* buffers, float4* columns, int rank, int consumer) {
  Tiles<C> tiles(shape);
  Ring<C::kStages> ring;
  int k_stages = (shape.k + kStageColumns - 1) / kStageColumns;
  int first_row = C::kTurn ? 0 : consumer * kRows * C::kSlabs;
  int thread = threadIdx.x % 128;
  bool mine = !C::kTurn || consumer == 0;
  if (C::kTurn && consumer == 1) {
    group_arrive<256>(turn_barrier(0));
  }
  for (int t = blockIdx.x / C::kCluster; t < tiles.count; t += gridDim.x / C::kCluster) {
    if (mine) {
      int row, column;
      tiles.at(t, rank, row, column);
      row += first_row;
      float2 values[C::kColumnsOfThread];
#pragma unroll
      for (int i = 0; i < C::kColumnsOfThread; i++) {
        values[i] = column_values(epilogue, column + 128 * i + thread, shape.n);
      }
      Sums<C> sums;
      multiply<C>(sums, ring, k_stages, stages, full, empty, first_row, consumer);
#pragma unroll
      for (int i = 0; i < C::kColumnsOfThread; i++) {
        if (128 * i + thread < C::kN) {
          reinterpret_cast<float2*>(columns)[128 * i + thread] = values[i];
        }
      }
      group_sync<128>(own_barrier(consumer));
#pragma unroll
      for (int slab = 0; slab < C::kSlabs; slab++) {
        finish<C>(
            sums[slab], map_d, shape, epilogue, columns, buffers, row + slab * kRows, column, slab,
            consumer);
      }
    } else {
      ring.skip(k_stages);
    }
    mine = C::kTurn ? !mine : mine;
  }
  if (thread == 0) {
    copy_out_wait<0>();
  }
  __syncwarp();
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1) scaled_gemm(
    const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
    const __grid_constant__ CUtensorMap map_d, const __grid_constant__ Epilogue epilogue,
    Shape shape) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t shared[];  // The swizzle needs the alignment.
  uint8_t* buffers = shared + C::kStages * C::kStageBytes;
  uint8_t* columns = buffers + C::kEpilogueBytes;
  uint32_t stages = shared_address(shared);
  uint32_t full = shared_address(columns + C::kColumnBytes), empty = full + 8 * C::kStages;
  int rank = C::kCluster == 1 ? 0 : cluster_rank();
  // The same for all threads of a warp, said so that the compiler knows it.
  int group = __shfl_sync(0xFFFFFFFF, threadIdx.x / 128, 0);

  if (threadIdx.x == 0) {
    prefetch_map(&map_a);
    prefetch_map(&map_b);
    prefetch_map(&map_d);
    for (int i = 0; i < C::kStages; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, C::kOfTile * C::kCluster);
    }
    barrier_init_fence();
    prefetch_weight<C>(map_b, shape, rank);
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
      produce<C>(map_a, map_b, shape, stages, full, empty, rank);
    }
    __syncwarp();
  } else {
    take_registers<C::kConsumerRegisters>();
    int consumer = group - 1;
    buffers += consumer * C::kBuffers * C::kChunkBuffer;
    consume<C>(
        map_d, shape, epilogue, stages, full, empty, buffers,
        reinterpret_cast<float4*>(columns) + consumer * C::kN / 2, rank, consumer);
  }
  if constexpr (C::kCluster > 1) {
    cluster_sync();  // Another block may still write to this one's shared memory.
  }
#endif
}

}  // namespace tripy
