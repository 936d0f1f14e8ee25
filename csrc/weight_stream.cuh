// The same products as weight_only.cuh for more rows, of which not even a part of the columns has
// room in shared memory: x comes with the weights, chunk by chunk, and goes with them.
//
//   stages   A warp of its own asks for chunk after chunk: 128 bytes of each of 64 rows of the
//            weight, and the columns of x that belong to them, which come from the L2 cache.
//   warps    Eight others multiply, each 32 of the rows and a quarter of the chunk's columns.
//   sums     Each warp's in the order of chunks, in the tensor cores' registers, then those of the
//            four quarters by a fixed tree: a row of y does not depend on the other rows.
#pragma once

#include "hopper.cuh"
#include "weight_finish.cuh"
#include "weight_unpack.cuh"

namespace tripy {

template <int Kind_, class X_, int ColumnTiles, bool Blocks_>
struct StreamConfig : WeightTypes<Kind_, X_, Blocks_> {
  using Types = WeightTypes<Kind_, X_, Blocks_>;
  static constexpr int kN = ColumnTiles;  // Tiles of 8 rows of x.
  static constexpr int kRows = 8 * kN;
  static constexpr int kQuarters = 4;  // Pieces of 32 bytes of a row of a chunk.
  static constexpr int kTiles = 2;     // Of 16 rows, of a warp.
  static constexpr int kParts = 2;     // Of the rows.
  static constexpr int kWarps = kQuarters * kParts;  // That multiply.
  static constexpr int kOutputs = 16 * kTiles * kParts;
  static constexpr int kThreads = 32 * (kWarps + 1);
  static constexpr int kWeightBytes = kOutputs * kChunkBytes;
  static constexpr int kLines = Types::kChunkColumns * int(sizeof(X_)) / 128;  // Of a row of x in a chunk.
  static constexpr int kXBytes = kLines * 128 * kRows;
  static constexpr int kStageBytes = kWeightBytes + kXBytes;
  static constexpr int kSumBytes = kWarps * kTiles * kN * 32 * 16;
  // That free a stage: a lane of each warp, or all of them where threads copy scales. Only so does
  // compute-sanitizer's racecheck see that none reads these any more.
  static constexpr int kArrivals = Blocks_ ? 32 * kWarps : kWarps;

  // Which row of a tile of x is which column of the tensor cores: an order in which the rows that
  // are read at once are in different banks.
  static __device__ __forceinline__ int row_of(int column) {
    return Types::kInteger ? column % 4 * 2 + column / 4 : column / 2 + column % 2 * 4;
  }
};

// Shared memory, from a multiple of 1,024 on: stages, over which sums are written in the end, the
// stages' scales, barriers.
struct StreamLayout {
  int scale_bytes, scales, barriers, bytes;

  template <class C>
  __host__ __device__ static StreamLayout of(WeightOnly const& p) {
    int stages = p.slots * C::kStageBytes;
    StreamLayout layout;
    layout.scale_bytes =
        C::kBlocks ? ScaleBlocks::in_chunk(p.group, C::kUnits) * C::kOutputs * 4 : 0;
    layout.scales = stages > C::kSumBytes ? stages : C::kSumBytes;
    layout.barriers = layout.scales + p.slots * layout.scale_bytes;
    layout.bytes = layout.barriers + p.slots * 16;  // Two of each stage.
    return layout;
  }
};

// One warp's products of a stage.
template <class C>
__device__ __forceinline__ void multiply_stage(
    WeightOnly const& p, typename C::Total (&totals)[C::kTiles][C::kN][4], char const* weights,
    char const* x, float const* scales, int quarter, int first_unit, ScaleBlocks const& blocks) {
  using X = typename C::X;
  constexpr int kSteps = C::kInteger ? 1 : 2;
  int lane = threadIdx.x % 32, group = lane / 4, part = lane % 4;
  int row = group % 4 * 2 + group / 4, x_row = C::row_of(group);
  int window = C::kHalves == 2 ? p.window / 32 : 1;  // In units: 1, 2 or 4.
  // The copy engine has swapped pieces of 16 bytes within rows of 128.
  int byte = ((quarter * 2 + part / 2) ^ row) * 16 + part % 2 * 8;
  RawTiles<C::kTiles> w;
  load_tiles<kChunkBytes, C::kTiles>(weights, row, byte, w);
  auto half = [&](auto number) {
    constexpr int kHalf = decltype(number)::value;
    int unit = quarter;
    if constexpr (C::kHalves == 2) {
      unit += (quarter & -window) + kHalf * window;
    }
    uint32_t a[C::kTiles][kSteps][4];
    unpack_tiles<C::kKind, X, kHalf, C::kTiles, kSteps>(w, a);
    constexpr int kUnitBytes = 32 * sizeof(X);
    int at = unit * kUnitBytes % 128 + part * int(sizeof(Eight<X>));
    char const* from = x + (unit * kUnitBytes / 128 * C::kRows + x_row) * 128;
    from += (at / 16 ^ x_row) * 16 + at % 16;
    Eight<X> b[C::kN];
#pragma unroll
    for (int n = 0; n < C::kN; n++) {
      b[n] = *reinterpret_cast<Eight<X> const*>(from + n * 8 * 128);
    }
    [[maybe_unused]] typename C::Sum sums[C::kTiles][C::kN][4] = {};
    // All first steps before the second ones, which wait for them.
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int n = 0; n < C::kN; n++) {
#pragma unroll
        for (int tile = 0; tile < C::kTiles; tile++) {
          uint32_t b0 = b[n].words[step * 2], b1 = b[n].words[step * 2 + 1];
          if constexpr (C::kBlocks) {
            multiply(X(), sums[tile][n], a[tile][step], b0, b1);
          } else {
            multiply(X(), totals[tile][n], a[tile][step], b0, b1);
          }
        }
      }
    }
    if constexpr (C::kBlocks) {
      // The first block in the stage is that of its first unit.
      int block = blocks.of(first_unit + unit) - blocks.of(first_unit);
      add_scaled(totals, sums, scales + block * C::kOutputs, row);
    }
  };
  half(std::integral_constant<int, 0>());
  if constexpr (C::kHalves == 2) {
    half(std::integral_constant<int, 1>());
  }
}

template <class C>
__global__ __launch_bounds__(C::kThreads, 1) void weight_stream(
    __grid_constant__ CUtensorMap const weight_map, __grid_constant__ CUtensorMap const x_map,
    __grid_constant__ WeightOnly const p) {
  auto memory = static_cast<char*>(dynamic_shared());
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, stages = p.slots;
  int first = blockIdx.x * C::kOutputs, first_row = blockIdx.y * p.rows_at_once;
  int rows = min(p.rows_at_once, p.m - first_row);
  int chunks = (p.row_bytes + kChunkBytes - 1) / kChunkBytes;
  auto layout = StreamLayout::of<C>(p);
  uint32_t ring = shared_address(memory);
  uint32_t full = ring + layout.barriers, empty = full + stages * 8;
  ScaleBlocks blocks(p);

  auto copy_weights = [&](int chunk, int stage) {
    barrier_expect_bytes(full + 8 * stage, C::kStageBytes);
    copy_in(
        ring + stage * C::kStageBytes, &weight_map, chunk * kChunkBytes, first, full + 8 * stage);
  };
  // [block of columns][row]; beyond the last row the last one's, never used.
  auto copy_scales = [&](int chunk, int stage) {
    int first_block = blocks.of(chunk * C::kUnits);
    int last_block = blocks.of(chunk * C::kUnits + C::kUnits - 1);
    uint32_t to = ring + layout.scales + stage * layout.scale_bytes;
    for (int output = lane; output < C::kOutputs; output += 32) {
      float const* from = p.scale + int64_t{min(first + output, p.n - 1)} * blocks.count;
      for (int block = first_block; block <= last_block; block++) {
        copy_async<4>(to + ((block - first_block) * C::kOutputs + output) * 4, from + block);
      }
    }
    copy_async_arrive(full + 8 * stage);
  };
  auto copy_x = [&](int chunk, int stage) {
    uint32_t to = ring + stage * C::kStageBytes + C::kWeightBytes;
    int column = chunk * C::kChunkColumns;
    for (int line = 0; line < C::kLines; line++) {
      copy_in(to, &x_map, column, first_row, full + 8 * stage);
      to += C::kRows * 128, column += 128 / sizeof(typename C::X);
    }
  };
  bool copies = warp == C::kWarps;
  if (copies) {
    if (lane == 0) {
      for (int i = 0; i < stages; i++) {
        barrier_init(full + 8 * i, C::kBlocks ? 1 + 32 : 1);
        barrier_init(empty + 8 * i, C::kArrivals);
      }
      barrier_init_fence();
      for (int i = 0; i < min(stages, chunks); i++) {
        copy_weights(i, i);
      }
    }
    __syncwarp();
    if constexpr (C::kBlocks) {
      for (int i = 0; i < min(stages, chunks); i++) {
        copy_scales(i, i);
      }
    }
  }
  __syncthreads();
  allow_next_kernel();
  wait_for_previous_kernel();
  if (copies) {
    int stage = 0;
    uint32_t phase = 1;
    for (int chunk = 0; chunk < chunks; chunk++) {
      if (chunk >= stages) {
        barrier_wait(empty + 8 * stage, phase);
        if (lane == 0) {
          copy_weights(chunk, stage);
        }
        if constexpr (C::kBlocks) {
          copy_scales(chunk, stage);
        }
      }
      if (lane == 0) {
        copy_x(chunk, stage);
      }
      __syncwarp();
      if (++stage == stages) {
        stage = 0, phase ^= 1;
      }
    }
    return;
  }
  int part = warp % C::kParts, quarter = warp / C::kParts, stage = 0;
  constexpr int kTiles = C::kTiles * C::kParts;  // Of the block.
  Outputs outputs(p, C::kBlocks, first + warp % kTiles * 16 + lane / 4 % 4 * 2 + lane / 16);
  typename C::Total totals[C::kTiles][C::kN][4] = {};
  uint32_t phase = 0;
  for (int chunk = 0; chunk < chunks; chunk++) {
    barrier_wait(full + 8 * stage, phase);
    char const* at = memory + stage * C::kStageBytes;
    auto scales =
        reinterpret_cast<float const*>(memory + layout.scales + stage * layout.scale_bytes);
    multiply_stage<C>(
        p, totals, at + part * 16 * C::kTiles * kChunkBytes, at + C::kWeightBytes,
        scales + part * 16 * C::kTiles, quarter, chunk * C::kUnits, blocks);
    __syncwarp();
    if (C::kArrivals > C::kWarps || lane == 0) {
      barrier_arrive(empty + 8 * stage);
    }
    if (++stage == stages) {
      stage = 0, phase ^= 1;
    }
  }
  group_sync<32 * C::kWarps>(1);  // All have read the stages, over which sums are written.
  using Four = FourSums<typename C::Total>;
  auto sums = reinterpret_cast<Four*>(memory);
#pragma unroll
  for (int i = 0; i < C::kTiles; i++) {
#pragma unroll
    for (int n = 0; n < C::kN; n++) {
      int tile = quarter * kTiles + part * C::kTiles + i;
      memcpy(&sums[(tile * C::kN + n) * 32 + lane], totals[i][n], sizeof(Four));
    }
  }
  group_sync<32 * C::kWarps>(1);
  finish_sums<typename C::Total, kTiles, C::kN, C::kQuarters, C::kWarps>(
      p, sums, rows, first_row, outputs, [](int column) { return C::row_of(column); }, [] {});
}

}  // namespace tripy
