// How weight_only.cuh is cut, and its place in shared memory.
#pragma once

#include "weight_input.cuh"

namespace tripy {

constexpr int kChunkBytes = 128;
constexpr int kLanes = 8;
constexpr int kMaxSlots = 8;  // Of a warp.

// What both kernels for few rows say of their types.
template <int Kind_, class X_, bool Blocks_>
struct WeightTypes {
  static constexpr int kKind = Kind_;
  using X = X_;                             // In which tensor cores multiply.
  static constexpr bool kBlocks = Blocks_;  // Scales vary along the columns.
  static constexpr bool kInteger = std::is_same_v<X, int8_t>;
  using Sum = std::conditional_t<kInteger, int, float>;  // Of the tensor cores.
  using Total = std::conditional_t<kInteger && !kBlocks, int, float>;
  static constexpr int kHalves = kKind == kWeightInt4 ? 2 : 1;  // Weights a byte.
  static constexpr int kChunkColumns = kChunkBytes * kHalves;
  static constexpr int kUnits = kChunkColumns / 32;
};

// `Span`: 0 where all columns of an output share a scale; else how many units of 32 columns of a
// window (1, 2 or 4) share one for sure.
template <int Kind_, class X_, int ColumnTiles, int Tiles_, int Warps_, int Span_>
struct WeightConfig : WeightTypes<Kind_, X_, (Span_ > 0)> {
  static constexpr int kN = ColumnTiles;  // Tiles of 8 rows of x.
  static constexpr int kTiles = Tiles_;   // Tiles of 16 outputs of a warp: 1 or 2.
  static constexpr int kWarps = Warps_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kGroups = kWarps / kLanes;  // Of rows, that a block finishes.
  static constexpr int kSpan = Span_;
  static constexpr int kOutputs = 16 * kTiles;
  static constexpr int kSlotBytes = kOutputs * kChunkBytes;  // A multiple of 1,024.
  // Of the sums of a warp that one block finishes, as its threads have them.
  static constexpr int kSumBytes = kTiles * kN * 32 * 16;
  // Blocks that a multiprocessor should hold.
  static constexpr int kBlocksAtOnce = kWarps > kLanes ? 1 : 2;

  // Whether sums are written over x, when that has been read for the last time: of many rows they
  // find no place beside it.
  static __host__ __device__ bool sums_over_x(WeightOnly const& p) {
    return kN > 1 && p.passes == 1;
  }

  // That are sent to a block: of each lane, tile and two rows of x, 16 of each of 8 threads.
  static __device__ __forceinline__ int sum_bytes(int rows) {
    return kWarps * kTiles * ((rows + 1) / 2) * 8 * 16;
  }
};

// Which scale units of 32 columns have, where scales vary along the columns.
struct ScaleBlocks {
  float blocks;  // Of a unit: 1 or a part of it.
  int last, count;

  __device__ __forceinline__ explicit ScaleBlocks(WeightOnly const& p)
      : blocks(32.0f / p.group), last(p.k / 32 - 1), count(p.k / p.group) {}

  // The half keeps the product away from whole numbers, where rounding would matter.
  __device__ __forceinline__ int of(int unit) const {
    return int((min(unit, last) + 0.5f) * blocks);
  }

  // How many blocks the units of a chunk can be of.
  __host__ __device__ static int in_chunk(int group, int units) {
    int of_block = group / 32;
    if (units % of_block == 0 || of_block % units == 0) {
      return of_block < units ? units / of_block : 1;
    }
    return (units + of_block - 2) / of_block + 1;
  }
};

template <class C>
using Totals = typename C::Total[C::kTiles][C::kN][4];

// Shared memory, from a multiple of 1,024 on: slots, their scales, x, sums, barriers.
struct WeightLayout {
  int scale_bytes, scales, x, sums, barriers, bytes;

  template <class C>
  __host__ __device__ static WeightLayout of(WeightOnly const& p) {
    int all_chunks = (p.row_bytes + kChunkBytes - 1) / kChunkBytes;
    int chunks = (all_chunks + p.cluster - 1) / p.cluster, slots = C::kWarps * p.slots;
    int x_bytes = chunks * C::kChunkColumns * p.rows_at_once * int(sizeof(typename C::X));
    constexpr int kSums = C::kWarps * C::kSumBytes;
    WeightLayout layout;
    layout.scale_bytes =
        C::kBlocks ? ScaleBlocks::in_chunk(p.group, C::kUnits) * C::kOutputs * 4 : 0;
    layout.scales = slots * C::kSlotBytes;
    layout.x = layout.scales + slots * layout.scale_bytes;
    layout.sums = layout.x + (C::sums_over_x(p) ? 0 : x_bytes);
    int last = C::sums_over_x(p) && x_bytes > kSums ? x_bytes : kSums;
    layout.barriers = layout.sums + last;
    layout.bytes = layout.barriers + (slots + kArrivals + 1) * 8;
    return layout;
  }
};

}  // namespace tripy
