// y[M, N] = activation(x'[M, K] · (w[N, K] · scale)ᵀ + bias[N]) + residual[M, N] for few rows: w
// is packed, x' is x, rounded as asked for. For compute capability 9.0.
//
// Reading w is all the time there is. So it is asked for before anything else, even before the
// kernel in front has ended, and kept coming: the copy engine fills a ring of slots in shared
// memory. Each slot is one warp's, for what it takes at once: 128 bytes of each of 16 or 32 rows. A
// warp that is done with a slot orders the next copy into it itself, so none waits for another.
//
//   columns  Chunk c of 128 bytes belongs to lane c % 8 of eight lanes, where a lane is a warp or
//            the warps of one number in a block. A cluster of C blocks of W warps has C x W: block
//            r takes the chunks of lanes r, r + C, …, and 8 / C warps take turns at these. The
//            other factor, C x W / 8, are rows: groups of 16 x Tiles, each of one warp a lane.
//   scales   Those that vary along the columns come with the weights, by copies of each thread for
//            a row. A slot is full when these have come, too.
//   passes   Of layers with more outputs than all blocks at once have, a cluster does several parts,
//            one after the other: x stays, and weights of the next part come while sums of this one
//            are added up.
//   x        Only the block's chunks of it are in its shared memory. They arrive in four parts, so
//            that the first ones are multiplied while the others are on their way. The more rows x
//            has, the larger a cluster has to be: what is read of x is 1 / C of it a group of rows.
//   sums     Each lane's in the order of its chunks, in the tensor cores' registers; then the
//            eight lanes' by a fixed tree, in the block to which all are sent. A row of y is
//            therefore the same, bit for bit, whatever other rows there are, and how many, and
//            whatever Tiles, C and W.
#pragma once

#include "hopper.cuh"
#include "weight_finish.cuh"
#include "weight_unpack.cuh"

namespace tripy {

// The products of one slot and its chunk of x.
template <class C>
__device__ __forceinline__ void multiply_slot(
    WeightOnly const& p, Totals<C>& totals, char const* slot, float const* slot_scales,
    Eight<typename C::X> const* x, int rows, int first_unit, ScaleBlocks const& blocks) {
  using X = typename C::X;
  constexpr int kSteps = C::kInteger ? 1 : 2;
  int lane = threadIdx.x % 32, group = lane / 4, part = lane % 4;
  // Rows whose numbers differ above the lowest bit, for reads from different banks.
  int row = group % 4 * 2 + group / 4;
  int window = C::kHalves == 2 ? p.window / 32 : 1;  // In units: 1, 2 or 4.
  auto unit_of = [&](int piece, int half) {
    return C::kHalves == 2 ? piece + (piece & -window) + half * window : piece;
  };
  // Beyond the last row of x, it again: what comes of it is not used.
  int at[C::kN];
#pragma unroll
  for (int n = 0; n < C::kN; n++) {
    at[n] = min(n * 8 + group, rows - 1) * 4 + part;
  }
  using Raw = RawTiles<C::kTiles>;
  auto load = [&](int piece, Raw& w) {
    // The copy engine has swapped pieces of 16 bytes within the row.
    int byte = ((piece * 2 + part / 2) ^ row) * 16 + part % 2 * 8;
    load_tiles<kChunkBytes, C::kTiles>(slot, row, byte, w);
  };
  // Adds the products of a half of the bytes to sums of [tile][tile of x].
  auto multiply_unit = [&](auto number, Raw const& w, int unit, auto& sums) {
    constexpr int kHalf = decltype(number)::value;
    uint32_t a[C::kTiles][kSteps][4];
    unpack_tiles<C::kKind, X, kHalf, C::kTiles, kSteps>(w, a);
#pragma unroll
    for (int n = 0; n < C::kN; n++) {
      Eight<X> b = x[unit * rows * 4 + at[n]];
#pragma unroll
      for (int step = 0; step < kSteps; step++) {
#pragma unroll
        for (int tile = 0; tile < C::kTiles; tile++) {
          multiply(X(), sums[tile][n], a[tile][step], b.words[step * 2], b.words[step * 2 + 1]);
        }
      }
    }
  };
  using Zero = std::integral_constant<int, 0>;
  using One = std::integral_constant<int, 1>;
  if constexpr (!C::kBlocks) {
#pragma unroll
    for (int piece = 0; piece < 4; piece++) {
      Raw w;
      load(piece, w);
      multiply_unit(Zero(), w, unit_of(piece, 0), totals);
      if constexpr (C::kHalves == 2) {
        multiply_unit(One(), w, unit_of(piece, 1), totals);
      }
    }
  } else {
    using Sums = typename C::Sum[C::kTiles][C::kN][4];
    auto scale = [&](Sums const& sums, int unit) {
      // The first block in the slot is that of its first unit.
      int block = blocks.of(first_unit + unit) - blocks.of(first_unit);
      add_scaled(totals, sums, slot_scales + block * C::kOutputs, row);
    };
#pragma unroll 1
    for (int first = 0; first < 4; first += C::kSpan) {
      Sums sums = {};
      [[maybe_unused]] Sums second = {};  // Of the high halves.
#pragma unroll
      for (int piece = first; piece < first + C::kSpan; piece++) {
        Raw w;
        load(piece, w);
        multiply_unit(Zero(), w, unit_of(piece, 0), sums);
        if constexpr (C::kHalves == 2) {
          multiply_unit(One(), w, unit_of(piece, 1), second);
        }
      }
      scale(sums, unit_of(first, 0));
      if constexpr (C::kHalves == 2) {
        scale(second, unit_of(first, 1));
      }
    }
  }
}

// Which copy of a warp comes next: those of a pass, then those of the next one.
struct Turn {
  int copies, copy, output, stride;

  __device__ __forceinline__ void next() {
    if (++copy == copies) {
      copy = 0, output += stride;
    }
  }
};

template <class C>
__global__ __launch_bounds__(C::kThreads, C::kBlocksAtOnce) void weight_only(
    __grid_constant__ CUtensorMap const map, __grid_constant__ WeightOnly const p) {
  auto memory = static_cast<char*>(dynamic_shared());
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int cluster = p.cluster, rank = blockIdx.x % cluster, cluster_bits = __ffs(cluster) - 1;
  int groups = cluster * C::kGroups, group_bits = __ffs(groups) - 1;  // Of rows.
  int group = warp & (groups - 1);  // Its 8 / cluster warps in this block take turns at the chunks.
  // The cluster's outputs of a pass, their first one now, and from one pass to the next.
  int span = groups * C::kOutputs, first = blockIdx.x / cluster * span;
  int stride = gridDim.x / cluster * span;
  int passes = p.passes;
  while (passes > 1 && first + (passes - 1) * stride >= p.n) {
    passes--;
  }
  int first_row = blockIdx.y * p.rows_at_once, rows = min(p.rows_at_once, p.m - first_row);
  int all_chunks = (p.row_bytes + kChunkBytes - 1) / kChunkBytes;
  int chunks = (all_chunks - rank + cluster - 1) >> cluster_bits;  // This block's.
  int count = chunks * groups;  // Its slots of a pass, over time.
  auto layout = WeightLayout::of<C>(p);
  uint32_t ring = shared_address(memory), full = ring + layout.barriers;
  uint32_t arrived = full + C::kWarps * p.slots * 8, summed = arrived + kArrivals * 8;
  auto x = reinterpret_cast<Eight<typename C::X>*>(memory + layout.x);

  // Each warp has slots of its own. Its copy number i of a pass:
  int copies = (count - warp + C::kWarps - 1) / C::kWarps;
  auto chunk_of = [&](int i) { return (warp + i * C::kWarps) >> group_bits; };
  Turn turn{copies, 0, first + group * C::kOutputs, stride};
  ScaleBlocks blocks(p);
  auto copy_weights = [&](Turn const& t, int slot) {
    barrier_expect_bytes(full + 8 * slot, C::kSlotBytes);
    copy_in(
        ring + slot * C::kSlotBytes, &map, (rank + chunk_of(t.copy) * cluster) * kChunkBytes,
        t.output, full + 8 * slot);
  };
  // [block of columns][row]; beyond the last row the last one's, never used.
  auto copy_scales = [&](Turn const& t, int slot) {
    static_assert(!C::kBlocks || C::kOutputs == 32, "a thread a row");
    int unit = (rank + chunk_of(t.copy) * cluster) * C::kUnits, first_block = blocks.of(unit);
    int last_block = blocks.of(unit + C::kUnits - 1);
    int output = min(t.output + lane, p.n - 1);
    float const* from = p.scale + int64_t{output} * blocks.count + first_block;
    uint32_t to = ring + layout.scales + slot * layout.scale_bytes + lane * 4;
    for (int block = 0; block <= last_block - first_block; block++) {
      copy_async<4>(to + block * C::kOutputs * 4, from + block);
    }
    copy_async_arrive(full + 8 * slot);
  };
  int first_slot = warp * p.slots, slot = first_slot, left = copies * passes;  // To be asked for.
  if (lane < p.slots) {
    barrier_init(full + 8 * (slot + lane), C::kBlocks ? 1 + 32 : 1);
    barrier_init_fence();
  }
  __syncwarp();
  for (int i = 0; i < min(p.slots, copies * passes); i++, left--, turn.next()) {
    if (lane == i) {  // A lane each, so that they go side by side.
      copy_weights(turn, slot + i);
    }
    if constexpr (C::kBlocks) {
      copy_scales(turn, slot + i);
    }
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < kArrivals; i++) {
      barrier_init(arrived + 8 * i, C::kThreads);
    }
    barrier_init(summed, 1);
    barrier_init_fence();
    barrier_expect_bytes(summed, C::sum_bytes(rows));
  }
  __syncthreads();
  bool over_x = C::sums_over_x(p);
  if (!over_x) {
    cluster_arrive_unordered();  // Sums may be sent to this block.
  }
  allow_next_kernel();
  wait_for_previous_kernel();
  Part whole{first_row, rows, rank, cluster, chunks};
  prepare_input<typename C::X, C::kChunkColumns, C::kThreads, C::kKind == kWeightFloat8>(
      p, whole, x, arrived);
  int tile = warp % C::kTiles, row = lane / 4 % 4 * 2 + lane / 16;
  int finished = first + (warp / kLanes * cluster + rank) * C::kOutputs + tile * 16 + row;
  uint32_t phase = 0;
  int there = 0, at_once = whole.at_once();  // Chunks of x; how many arrive together.
  for (int pass = 0;; finished += stride) {
    Outputs outputs(p, C::kBlocks, finished);
    Totals<C> totals = {};
    for (int i = 0; i < copies; i++) {
      int chunk = chunk_of(i);
      constexpr int kEights = C::kChunkColumns / kEight;
      while (chunk >= there) {
        barrier_wait(arrived, 0);
        arrived += 8, there += at_once;
      }
      barrier_wait(full + 8 * slot, phase);
      multiply_slot<C>(
          p, totals, memory + slot * C::kSlotBytes,
          reinterpret_cast<float const*>(memory + layout.scales + slot * layout.scale_bytes),
          x + chunk * kEights * rows, rows, (rank + chunk * cluster) * C::kUnits, blocks);
      __syncwarp();
      if (left > 0) {
        if (lane == 0) {
          copy_weights(turn, slot);
        }
        if constexpr (C::kBlocks) {
          copy_scales(turn, slot);
        }
        left--, turn.next();
      }
      if (++slot == first_slot + p.slots) {
        slot = first_slot;
        phase ^= 1;
      }
    }
    if (over_x) {
      cluster_arrive_unordered();
    }
    finish<C>(
        p, totals, ring + layout.sums, summed, pass % 2, memory + layout.sums, rows, first_row,
        rank + (warp >> group_bits) * cluster, group, outputs);
    if (++pass == passes) {
      return;
    }
    __syncthreads();  // All have read the sums, and new ones may come.
    if (threadIdx.x == 0 && cluster > 1) {  // By one block alone it is not used.
      barrier_expect_bytes(summed, C::sum_bytes(rows));
    }
    cluster_arrive_unordered();
  }
}

}  // namespace tripy
