// How weight_only.cuh is cut, and its place in shared memory.
#pragma once

#include "weight_input.cuh"

namespace tripy {

constexpr int kChunkBytes = 128;
constexpr int kLanes = 8;
constexpr int kMaxSlots = 8;  // Of a warp.

template <int Kind_, class X_, int ColumnTiles, int Tiles_, bool Blocks_>
struct WeightConfig {
  static constexpr int kKind = Kind_;
  using X = X_;                                // In which tensor cores multiply.
  static constexpr int kN = ColumnTiles;       // Tiles of 8 rows of x.
  static constexpr int kTiles = Tiles_;        // Tiles of 16 outputs of a warp.
  static constexpr bool kBlocks = Blocks_;     // Scales vary along the columns.
  static constexpr bool kInteger = std::is_same_v<X, int8_t>;
  using Sum = std::conditional_t<kInteger, int, float>;  // Of the tensor cores.
  using Total = std::conditional_t<kInteger && !kBlocks, int, float>;
  static constexpr int kHalves = kKind == kWeightInt4 ? 2 : 1;  // Weights a byte.
  static constexpr int kChunkColumns = kChunkBytes * kHalves;
  static constexpr int kOutputs = 16 * kTiles;
  // What a copy brings: a chunk of up to two tiles. More would hold a slot for longer.
  static constexpr int kCopyTiles = kTiles < 2 ? kTiles : 2;
  static constexpr int kCopies = kTiles / kCopyTiles;  // Of a chunk.
  static constexpr int kCopyRows = 16 * kCopyTiles;
  static constexpr int kWeightBytes = kCopyRows * kChunkBytes;
  // Behind them, up to one scale for each 32 columns of a row. Slots begin at multiples of 1,024.
  static constexpr int kUnits = kChunkColumns / 32;
  static constexpr int kScaleBytes = kBlocks ? kCopyRows * kUnits * 4 : 0;
  static constexpr int kSlotBytes = (kWeightBytes + kScaleBytes + 1023) / 1024 * 1024;
  // Of the sums that warps exchange; the padding keeps a warp's writes in different banks.
  static constexpr int kPitch = kOutputs + 4;
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
};

template <class C>
using Totals = typename C::Total[C::kTiles][C::kN][4];

// Shared memory, from a multiple of 1,024 on: slots, x; later, over both, sums; barriers.
struct WeightLayout {
  int x, statistics, barriers, bytes;

  template <class C>
  __host__ __device__ static WeightLayout of(int rows, int chunks, int slots) {
    int ring = kWarps * slots * C::kSlotBytes;
    int x_bytes = chunks * C::kChunkColumns * rows * int(sizeof(typename C::X));
    int sums = kWarps * rows * C::kPitch * 4;
    WeightLayout layout;
    layout.x = ring;
    layout.statistics = (ring + x_bytes > sums ? ring + x_bytes : sums) + 15 & ~15;
    layout.barriers = layout.statistics + int(sizeof(Statistics));
    layout.bytes = layout.barriers + kWarps * slots * 8;
    return layout;
  }
};

}  // namespace tripy
