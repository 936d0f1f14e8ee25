// Launches mixed_gemm: tensor maps, tiles, clusters.
#pragma once

#include <algorithm>

#include "launch.cuh"
#include "mixed_gemm.cuh"

namespace tripy {

template <class C>
cudaError_t launch_mixed(MixedGemm const& p, int cluster, int split, cudaStream_t stream) {
  CUtensorMap weight, x;
  cudaError_t error =
      make_map<int8_t>(&weight, p.weight, p.n, p.row_bytes, C::kM, kMixedWeightBytes);
  if (error == cudaSuccess) {
    error = make_map<typename C::X>(&x, p.x, p.m, p.k, C::kBoxRows, kMixedColumns);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(
        mixed_gemm<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::kShared);
  }
  if (error == cudaSuccess && split > divide_up(p.k, kMixedColumns)) {
    error = cudaErrorInvalidValue;  // A block would have no stage.
  }
  if (error != cudaSuccess) {
    return error;
  }
  int tiles = divide_up(p.n, C::kM * cluster) * divide_up(p.m, C::kN);
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {unsigned(cluster * split), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  // Blocks of a part of K have one tile each.
  launch.gridDim =
      split > 1 ? tiles * split : std::min(tiles, p.multiprocessors / cluster) * cluster;
  launch.blockDim = C::kThreads;
  launch.dynamicSmemBytes = C::kShared;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  bool pieces = p.out_type != kTypeFloat32 && p.n % 8 == 0 &&
                (uintptr_t(p.out) | uintptr_t(p.residual)) % 16 == 0;
  MixedEpilogue epilogue = {
      C::kBlocks ? nullptr : p.scale, p.bias, p.residual, p.out, p.factor, p.group == 0,
      p.activation, p.out_type, pieces};
  return cudaLaunchKernelEx(
      &launch, mixed_gemm<C>, weight, x, epilogue, p.scale,
      MixedShape{p.m, p.n, p.k, p.row_bytes, p.group, p.window, cluster, split});
}

// What a launch can be; native_mixed_gemm.py has the same table, and which one is fastest.
struct MixedTile {
  int rows, cluster, split;
};

constexpr MixedTile kMixedTiles[] = {
    {256, 2, 1}, {192, 2, 1}, {128, 2, 1}, {256, 1, 1}, {128, 1, 1},
    {256, 1, 2}, {192, 1, 2}, {128, 1, 2}, {128, 1, 4},
};

template <int Kind, class X, bool Blocks>
cudaError_t launch_mixed_tile(MixedGemm const& p, cudaStream_t stream) {
  if (p.tile < 0 || p.tile >= int(std::size(kMixedTiles))) {
    return cudaErrorInvalidValue;
  }
  MixedTile const& tile = kMixedTiles[p.tile];
  switch (tile.rows) {
    case 256:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 256>>(p, tile.cluster, tile.split, stream);
    case 192:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 192>>(p, tile.cluster, tile.split, stream);
    default:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 128>>(p, tile.cluster, tile.split, stream);
  }
}

template <int Kind, class X>
cudaError_t mixed_gemm_of(MixedGemm const& p, cudaStream_t stream) {
  return p.group > 1 ? launch_mixed_tile<Kind, X, true>(p, stream)
                     : launch_mixed_tile<Kind, X, false>(p, stream);
}

}  // namespace tripy
