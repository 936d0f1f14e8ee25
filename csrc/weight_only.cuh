// y[M, N] = activation(x'[M, K] · (w[N, K] · scale)ᵀ + bias[N]) + residual[M, N] for few rows: w is
// packed, x' is x, normalized and rounded as asked for. For compute capability 9.0.
//
// Reading w is all the time there is. So it is asked for before anything else, even before the
// kernel in front has ended, and kept coming: the copy engine fills a ring of slots in shared
// memory. Each slot is one warp's, for what it takes at once: 128 bytes of each of 16 or 32 rows. A
// warp that is done with a slot orders the next copy into it itself, so none waits for another.
//
//   columns  Chunk c of 128 bytes belongs to lane c % 8 of eight lanes, where a lane is a warp or
//            the warps of one number in a block. A cluster of C blocks has C x 8 warps: block r
//            takes the chunks of lanes r, r + C, …, and 8 / C warps take turns at these. The other
//            factor, C, are rows: C groups of 16 x Tiles, each of one warp a lane.
//   scales   Those that vary along the columns come with the weights, in the slot behind them, by
//            copies of each thread for a row. A slot is full when these have come, too.
//   x        Only the block's chunks of it are in its shared memory. The more rows x has, the
//            larger a cluster has to be: what is read of x is 1 / C of it a group of rows.
//   sums     Each lane's in the order of its chunks, in the tensor cores' registers; then the
//            eight lanes' by a fixed tree. A row of y is therefore the same, bit for bit, whatever
//            other rows there are, and how many, and whatever Tiles and C.
#pragma once

#include "hopper.cuh"
#include "weight_finish.cuh"
#include "weight_unpack.cuh"

namespace tripy {

// The products of one slot, which has the tiles from First on, and its chunk of x.
template <class C, int First>
__device__ __forceinline__ void multiply_slot(
    WeightOnly const& p, Totals<C>& totals, char const* slot, Eight<typename C::X> const* x,
    int rows, int first_unit, ScaleBlocks const& blocks) {
  using X = typename C::X;
  constexpr int kSteps = C::kInteger ? 1 : 2;
  int lane = threadIdx.x % 32, group = lane / 4, part = lane % 4;
  // Rows whose numbers differ above the lowest bit, for reads from different banks.
  int row = group % 4 * 2 + group / 4;
  int window = C::kHalves == 2 ? p.window / 32 : 1;  // In units: 1, 2 or 4.
  [[maybe_unused]] auto slot_scales = reinterpret_cast<float const*>(slot + C::kWeightBytes);
  // With more unrolled, more is in registers than there are.
  constexpr int kUnrolled = C::kBlocks ? 1 : 4;
#pragma unroll kUnrolled
  for (int piece = 0; piece < 4; piece++) {
    // The copy engine has swapped pieces of 16 bytes within the row.
    int byte = ((piece * 2 + part / 2) ^ row) * 16 + part % 2 * 8;
    uint2 w[C::kCopyTiles][2];
#pragma unroll
    for (int tile = 0; tile < C::kCopyTiles; tile++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        int at = (tile * 16 + i * 8 + row) * kChunkBytes + byte;
        w[tile][i] = *reinterpret_cast<uint2 const*>(slot + at);
      }
    }
    auto half = [&](auto number) {
      constexpr int kHalf = decltype(number)::value;
      int unit = piece;
      if constexpr (C::kHalves == 2) {
        unit += (piece & -window) + kHalf * window;
      }
      // Of the block of columns of this unit, the first one in the slot being that of its first.
      [[maybe_unused]] float const* unit_scales = slot_scales;
      if constexpr (C::kBlocks) {
        unit_scales += (blocks.of(first_unit + unit) - blocks.of(first_unit)) * C::kCopyRows;
      }
      uint32_t a[C::kCopyTiles][kSteps][4];
      [[maybe_unused]] float scales[C::kCopyTiles][2];
#pragma unroll
      for (int tile = 0; tile < C::kCopyTiles; tile++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          uint32_t first[2], second[2];
          unpack<C::kKind, X, kHalf>(w[tile][i].x, first);
          unpack<C::kKind, X, kHalf>(w[tile][i].y, second);
          if constexpr (C::kInteger) {
            a[tile][0][i] = first[0], a[tile][0][2 + i] = second[0];
          } else {
            a[tile][0][i] = first[0], a[tile][0][2 + i] = first[1];
            a[tile][1][i] = second[0], a[tile][1][2 + i] = second[1];
          }
          if constexpr (C::kBlocks) {
            scales[tile][i] = unit_scales[tile * 16 + i * 8 + row];
          }
        }
      }
#pragma unroll
      for (int n = 0; n < C::kN; n++) {
        int number = n * 8 + group;
        uint32_t b[kSteps][2];
        if constexpr (C::kInteger) {
          uint2 raw = {};
          if (number < rows) {
            raw = reinterpret_cast<uint2 const*>(x)[(unit * rows + number) * 4 + part];
          }
          b[0][0] = raw.x, b[0][1] = raw.y;
        } else {
          uint4 raw = {};
          if (number < rows) {
            raw = reinterpret_cast<uint4 const*>(x)[(unit * rows + number) * 4 + part];
          }
          b[0][0] = raw.x, b[0][1] = raw.y, b[1][0] = raw.z, b[1][1] = raw.w;
        }
        [[maybe_unused]] typename C::Sum sums[C::kCopyTiles][4] = {};
#pragma unroll
        for (int step = 0; step < kSteps; step++) {
#pragma unroll
          for (int tile = 0; tile < C::kCopyTiles; tile++) {
            if constexpr (C::kBlocks) {
              multiply(X(), sums[tile], a[tile][step], b[step][0], b[step][1]);
            } else {
              multiply(X(), totals[First + tile][n], a[tile][step], b[step][0], b[step][1]);
            }
          }
        }
        if constexpr (C::kBlocks) {
#pragma unroll
          for (int tile = 0; tile < C::kCopyTiles; tile++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
              totals[First + tile][n][i] += static_cast<float>(sums[tile][i]) * scales[tile][i / 2];
            }
          }
        }
      }
    };
    half(std::integral_constant<int, 0>());
    if constexpr (C::kHalves == 2) {
      half(std::integral_constant<int, 1>());
    }
  }
}

template <class C>
__global__ __launch_bounds__(kThreads, 2) void weight_only(
    __grid_constant__ CUtensorMap const map, __grid_constant__ WeightOnly const p) {
  auto memory = static_cast<char*>(dynamic_shared());
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int cluster = p.cluster, rank = blockIdx.x % cluster;
  int row_group = warp % cluster;  // The 8 / cluster warps of a group take turns at its chunks.
  int first = blockIdx.x / cluster * cluster * C::kOutputs;  // The cluster's first output.
  int first_row = blockIdx.y * p.rows_at_once, rows = min(p.rows_at_once, p.m - first_row);
  int all_chunks = (p.row_bytes + kChunkBytes - 1) / kChunkBytes;
  int chunks = (all_chunks - rank + cluster - 1) / cluster;  // This block's.
  int count = chunks * cluster;                              // This block's slots, over time.
  auto layout = WeightLayout::of<C>(
      p.rows_at_once, (all_chunks + cluster - 1) / cluster, p.slots);
  uint32_t ring = shared_address(memory), full = ring + layout.barriers;
  auto x = reinterpret_cast<Eight<typename C::X>*>(memory + layout.x);
  auto& statistics = *reinterpret_cast<Statistics*>(memory + layout.statistics);

  // Each warp has slots of its own. Its copy number i, the first of part i % kCopies of a chunk:
  int copies = (count - warp + kWarps - 1) / kWarps * C::kCopies;
  int first_output = first + row_group * C::kOutputs, cluster_bits = __ffs(cluster) - 1;
  auto chunk_of = [&](int i) { return (warp + i / C::kCopies * kWarps) >> cluster_bits; };
  ScaleBlocks blocks(p);
  auto copy_weights = [&](int i, int slot) {
    barrier_expect_bytes(full + 8 * slot, C::kWeightBytes);
    copy_in(
        ring + slot * C::kSlotBytes, &map, (rank + chunk_of(i) * cluster) * kChunkBytes,
        first_output + i % C::kCopies * C::kCopyRows, full + 8 * slot);
  };
  // [block of columns][row]; beyond the last row the last one's, never used.
  auto copy_scales = [&](int i, int slot) {
    static_assert(!C::kBlocks || C::kCopyRows == 32, "a thread a row");
    int unit = (rank + chunk_of(i) * cluster) * C::kUnits, first_block = blocks.of(unit);
    int last_block = blocks.of(unit + C::kUnits - 1);
    int output = min(first_output + i % C::kCopies * C::kCopyRows + lane, p.n - 1);
    float const* from = p.scale + int64_t{output} * blocks.count + first_block;
    uint32_t to = ring + slot * C::kSlotBytes + C::kWeightBytes + lane * 4;
    for (int block = 0; block <= last_block - first_block; block++) {
      copy_async<4>(to + block * C::kCopyRows * 4, from + block);
    }
    copy_async_arrive(full + 8 * slot);
  };
  int first_slot = warp * p.slots, slot = first_slot;
  if (lane < p.slots) {
    barrier_init(full + 8 * (slot + lane), C::kBlocks ? 1 + 32 : 1);
    barrier_init_fence();
  }
  __syncwarp();
  if (lane < p.slots && lane < copies) {
    copy_weights(lane, slot + lane);
  }
  if constexpr (C::kBlocks) {
    for (int i = 0; i < min(p.slots, copies); i++) {
      copy_scales(i, slot + i);
    }
  }
  // A thread's output is the same in all rows that it finishes.
  int output = first + rank * C::kOutputs + threadIdx.x % C::kOutputs;
  float scale = p.factor, bias = 0.0f;
  if (output < p.n) {
    scale *= C::kBlocks ? 1.0f : p.scale[p.group == 0 ? 0 : output];
    bias = p.bias == nullptr ? 0.0f : load_float(p.param_type, p.bias, output);
  }
  allow_next_kernel();
  wait_for_previous_kernel();
  prepare_input<typename C::X, C::kChunkColumns, C::kKind == kWeightFloat8>(
      p, Part{first_row, rows, rank, cluster, chunks}, x, statistics);
  __syncthreads();

  Totals<C> totals = {};
  uint32_t phase = 0;
  auto part = [&](auto number, int i) {
    constexpr int kFirst = decltype(number)::value * C::kCopyTiles;
    int chunk = chunk_of(i);
    constexpr int kEights = C::kChunkColumns / kEight;
    barrier_wait(full + 8 * slot, phase);
    multiply_slot<C, kFirst>(
        p, totals, memory + slot * C::kSlotBytes, x + chunk * kEights * rows, rows,
        (rank + chunk * cluster) * C::kUnits, blocks);
    __syncwarp();
    if (i + p.slots < copies) {
      if (lane == 0) {
        copy_weights(i + p.slots, slot);
      }
      if constexpr (C::kBlocks) {
        copy_scales(i + p.slots, slot);
      }
    }
    if (++slot == first_slot + p.slots) {
      slot = first_slot;
      phase ^= 1;
    }
  };
  for (int i = 0; i < copies; i += C::kCopies) {
    part(std::integral_constant<int, 0>(), i);
    if constexpr (C::kCopies == 2) {
      part(std::integral_constant<int, 1>(), i + 1);
    }
  }
  finish<C>(p, totals, memory, rows, first_row, output, scale, bias, rank);
}

}  // namespace tripy
