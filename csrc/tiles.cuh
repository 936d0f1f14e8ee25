// How a product is cut: the tile of a block and its place in shared memory, the order of tiles, and
// the ring of stages that tiles are made in.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace tripy {

struct Shape {
  int m, n, k;
};

constexpr int kStageColumns = 128;  // Bytes of a row of A and B in a stage: one swizzled row.
constexpr int kSteps = kStageColumns / 32;  // Instructions of the tensor cores on such a row.
constexpr int kRows = 64;           // Rows of the tensor cores' instruction.
constexpr int kSharedBytes = 232448;  // What a block can have: 227 KiB.
constexpr int kBarrierBytes = 1024;

enum Sharing { kAlone, kHalves, kTurns };  // One consumer; two of one tile; two of different tiles.

template <class In_, class Out_, int Slabs, int N, Sharing Consumers, int Cluster>
struct Config {
  using In = In_;
  using Out = Out_;
  using Sum = std::conditional_t<std::is_same_v<In, int8_t>, int32_t, float>;
  static constexpr int kSlabs = Slabs;  // of 64 rows, of one consumer.
  static constexpr int kN = N;
  static constexpr bool kTurn = Consumers == kTurns;
  static constexpr int kConsumers = Consumers == kAlone ? 1 : 2;
  static constexpr int kOfTile = Consumers == kHalves ? 2 : 1;  // Consumers of one tile.
  static constexpr int kM = kRows * Slabs * kOfTile;
  static constexpr int kCluster = Cluster;
  static constexpr int kThreads = 128 * (1 + kConsumers);
  // Registers a thread; a block has 65,536.
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 232 : 240;
  static constexpr int kProducerRegisters = 40;
  // setmaxnreg shares what the block was launched with; a wait for more would never end.
  static_assert(
      kProducerRegisters + kConsumers * kConsumerRegisters <=
      65536 / kThreads / 8 * 8 * (1 + kConsumers));
  // The epilogue leaves in chunks of columns, of which a consumer has two buffers; one where the
  // second would cost a stage.
  static constexpr int kBuffers = kN == 256 ? 1 : 2;
  static constexpr int kChunkBytes = kN * int(sizeof(Out)) < 128 ? kN * int(sizeof(Out)) : 128;
  static constexpr int kChunk = kChunkBytes / int(sizeof(Out));
  static constexpr int kChunks = kSlabs * kN / kChunk;
  static constexpr int kChunkBuffer = kRows * kChunkBytes;
  static constexpr int kColumnsOfThread = (kN + 127) / 128;
  static constexpr int kBytesA = kM * kStageColumns;
  static constexpr int kBytesB = kN * kStageColumns;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kEpilogueBytes = kConsumers * kBuffers * kChunkBuffer;
  static constexpr int kColumnBytes = kConsumers * kN * int(sizeof(float2));
  static constexpr int kOtherBytes = kEpilogueBytes + kColumnBytes + kBarrierBytes;
  static constexpr int kFit = (kSharedBytes - kOtherBytes) / kStageBytes;
  static constexpr int kStages = kFit < 12 ? kFit : 12;
  static constexpr int kShared = kStages * kStageBytes + kOtherBytes;
};

// The tiles of a launch in the order in which blocks take them: squares of tiles, so that what runs
// at one time shares rows of A and of B in the L2 cache.
template <class C>
struct Tiles {
  int rows, columns, count;  // In tiles; rows in tiles of a cluster.
  static constexpr int kGroup = 8;

  __device__ __forceinline__ explicit Tiles(Shape const& shape)
      : rows((shape.m + C::kM * C::kCluster - 1) / (C::kM * C::kCluster)),
        columns((shape.n + C::kN - 1) / C::kN),
        count(rows * columns) {}

  // First row and column of this block's part of tile `index`.
  __device__ __forceinline__ void at(int index, int rank, int& row, int& column) const {
    int group = index / (kGroup * columns), within = index % (kGroup * columns);
    int height = min(kGroup, rows - group * kGroup);
    row = ((group * kGroup + within % height) * C::kCluster + rank) * C::kM;
    column = within / height * C::kN;
  }
};

// A place in the ring of stages; `phase` is the parity of the rounds made.
template <int Stages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void next() {
    if (++stage == Stages) {
      stage = 0;
      phase ^= 1;
    }
  }
  __device__ __forceinline__ void skip(int count) {
    phase ^= (stage + count) / Stages & 1;
    stage = (stage + count) % Stages;
  }
};

}  // namespace tripy
