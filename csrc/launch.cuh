// Launches scaled_gemm: tensor maps, the choice of a tile, clusters.
#pragma once

#include <cudaTypedefs.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <type_traits>

#include "api.h"
#include "scaled_gemm.cuh"
#include "scaled_gemm.h"

namespace tripy {

// The driver's function, asked of the runtime so that the library does not link with the driver.
inline PFN_cuTensorMapEncodeTiled_v12000 map_encoder() {
  static auto encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return encoder;
}

template <class T>
constexpr CUtensorMapDataType kMapType = CU_TENSOR_MAP_DATA_TYPE_UINT8;
template <>
inline constexpr CUtensorMapDataType kMapType<float> = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
template <>
inline constexpr CUtensorMapDataType kMapType<__half> = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
template <>
inline constexpr CUtensorMapDataType kMapType<__nv_bfloat16> = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;

// A row-major matrix, of which boxes are copied whose rows are swizzled over their whole length.
template <class T>
cudaError_t make_map(
    CUtensorMap* map, void const* data, int rows, int columns, int box_rows, int box_columns) {
  cuuint64_t sizes[2] = {cuuint64_t(columns), cuuint64_t(rows)};
  cuuint64_t stride[1] = {cuuint64_t(columns) * sizeof(T)};
  cuuint32_t box[2] = {cuuint32_t(box_columns), cuuint32_t(box_rows)}, step[2] = {1, 1};
  int bytes = box_columns * int(sizeof(T));
  auto swizzle = bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                 : bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                               : CU_TENSOR_MAP_SWIZZLE_32B;
  if (map_encoder() == nullptr) {
    return cudaErrorCallRequiresNewerDriver;
  }
  CUresult result = map_encoder()(
      map, kMapType<T>, 2, const_cast<void*>(data), sizes, stride, box, step,
      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <class C>
cudaError_t launch_config(ScaledGemm const& p, cudaStream_t stream) {
  CUtensorMap a, b, d;
  cudaError_t error = make_map<int8_t>(&a, p.a, p.m, p.k, C::kM, kStageColumns);
  if (error == cudaSuccess) {
    error = make_map<int8_t>(&b, p.b, p.n, p.k, C::kN / C::kCluster, kStageColumns);
  }
  if (error == cudaSuccess) {
    error = make_map<typename C::Out>(&d, p.d, p.m, p.n, kRows, C::kChunk);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(
        scaled_gemm<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::kShared);
  }
  if (error != cudaSuccess) {
    return error;
  }
  int tiles = (p.m + C::kM * C::kCluster - 1) / (C::kM * C::kCluster) * ((p.n + C::kN - 1) / C::kN);
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {C::kCluster, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = p.early_launch;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = std::min(tiles, p.multiprocessors / C::kCluster) * C::kCluster;
  launch.blockDim = C::kThreads;
  launch.dynamicSmemBytes = C::kShared;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  Epilogue epilogue = {p.scale, p.row_scale, p.bias, p.residual, p.inverse_out_scale, p.activation};
  return cudaLaunchKernelEx(
      &launch, scaled_gemm<C>, a, b, d, epilogue, Shape{p.m, p.n, p.k});
}

// The tiles that are built, with what one costs on one multiprocessor, in clock cycles for 128
// columns of K, for everything else, and for an activation; measured on an H100 and an H200. Tiles
// of 256 columns move the least through shared memory for a product, but nothing hides their
// epilogue: int8 is faster with them where K is long or there is no activation; float8, which draws
// more power and runs at a lower clock, is not. At int8's clock those of 128 columns take up to a
// fifth longer, for the L2 cache: the last row's int8 costs are lower in their place.
struct Tile {
  int rows, columns;  // Of a cluster.
  int cluster;
  float int8_stage, float8_stage, other, activation;
};

constexpr Tile kTiles[] = {
    {256, 128, 2, 530, 530, 2000, 0},
    {128, 128, 1, 600, 600, 2500, 0},
    {128, 128, 1, 640, 640, 3000, 0},
    {128, 64, 1, 400, 400, 2000, 0},
    {64, 64, 1, 260, 260, 2000, 0},
    {64, 32, 1, 220, 220, 2000, 0},
    {256, 256, 2, 895, 1070, 3930, 2700},
};

template <class In, class Out>
cudaError_t launch_tile(int tile, ScaledGemm const& p, cudaStream_t stream) {
  switch (tile) {
    case 0:
      return launch_config<Config<In, Out, 2, 128, kTurns, 2>>(p, stream);
    case 1:
      return launch_config<Config<In, Out, 2, 128, kTurns, 1>>(p, stream);
    case 2:
      return launch_config<Config<In, Out, 1, 128, kHalves, 1>>(p, stream);
    case 3:
      return launch_config<Config<In, Out, 1, 64, kHalves, 1>>(p, stream);
    case 4:
      return launch_config<Config<In, Out, 1, 64, kAlone, 1>>(p, stream);
    case 5:
      return launch_config<Config<In, Out, 1, 32, kAlone, 1>>(p, stream);
    case 6:
      return launch_config<Config<In, Out, 1, 256, kHalves, 2>>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

inline int divide_up(int a, int b) { return (a + b - 1) / b; }

// What the L2 cache of an H100 holds; an H200's is larger.
constexpr int64_t kCacheBytes = 50 << 20;

// Clock cycles of one tile of a matrix for which all multiprocessors need so many rounds.
inline float tile_cycles(Tile const& tile, ScaledGemm const& p, int64_t rounds) {
  int stages = divide_up(p.k, kStageColumns);
  // Blocks without a cluster read a third more from the L2 cache, but wait for no other block. At
  // float8's clock that is faster where the cache holds all three matrices and K is long. It was
  // measured with eight rounds.
  bool small = (int64_t{p.m} + p.n) * p.k + int64_t{p.m} * p.n <= kCacheBytes && rounds >= 4;
  if (&tile == &kTiles[1] && p.in_type == kTypeFloat8 && p.out_type == kTypeFloat8 && small) {
    return stages * 405.0f + 5100.0f;
  }
  return stages * (p.in_type == kTypeInt8 ? tile.int8_stage : tile.float8_stage) + tile.other +
         (p.activation == kNone ? 0.0f : tile.activation);
}

// The tile whose rounds of all multiprocessors end first.
inline int best_tile(ScaledGemm const& p) {
  int best = 0;
  float least = INFINITY;
  for (int i = 0; i < int(std::size(kTiles)); i++) {
    Tile const& tile = kTiles[i];
    int64_t tiles = int64_t{divide_up(p.m, tile.rows)} * divide_up(p.n, tile.columns);
    int64_t at_once = p.multiprocessors / tile.cluster;
    int64_t rounds = (tiles + at_once - 1) / at_once;
    float cycles = float(rounds) * tile_cycles(tile, p, rounds);
    if (cycles < least) {
      least = cycles;
      best = i;
    }
  }
  return best;
}

template <class In, class Out>
cudaError_t scaled_gemm_of(ScaledGemm const& p, cudaStream_t stream) {
  return launch_tile<In, Out>(p.tile < 0 ? best_tile(p) : p.tile, p, stream);
}

}  // namespace tripy
