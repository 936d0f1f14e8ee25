// Launches mixed_gemm: tensor maps, the choice of a tile, clusters.
#pragma once

#include <algorithm>

#include "launch.cuh"
#include "mixed_gemm.cuh"

namespace tripy {

template <class C>
cudaError_t launch_mixed(MixedGemm const& p, cudaStream_t stream) {
  CUtensorMap weight, x;
  cudaError_t error =
      make_map<int8_t>(&weight, p.weight, p.n, p.row_bytes, C::kM, kMixedWeightBytes);
  if (error == cudaSuccess) {
    error = make_map<typename C::X>(&x, p.x, p.m, p.k, C::kN / C::kCluster, kMixedColumns);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(
        mixed_gemm<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::kShared);
  }
  if (error != cudaSuccess) {
    return error;
  }
  int clusters = divide_up(p.n, C::kM * C::kCluster) * divide_up(p.m, C::kN);
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {C::kCluster, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = std::min(clusters, p.multiprocessors / C::kCluster) * C::kCluster;
  launch.blockDim = C::kThreads;
  launch.dynamicSmemBytes = C::kShared;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  bool pieces = p.n % 8 == 0 && (uintptr_t(p.out) | uintptr_t(p.residual)) % 16 == 0;
  MixedEpilogue epilogue = {
      C::kBlocks ? nullptr : p.scale, p.bias, p.residual, p.out, p.factor, p.group == 0,
      p.activation, p.out_type, pieces};
  return cudaLaunchKernelEx(
      &launch, mixed_gemm<C>, weight, x, epilogue, p.scale,
      MixedShape{p.m, p.n, p.k, p.row_bytes, p.group, p.window});
}

template <int Kind, class X, bool Blocks>
cudaError_t launch_mixed_tile(int tile, MixedGemm const& p, cudaStream_t stream) {
  switch (tile) {
    case 0:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 256, 2>>(p, stream);
    case 1:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 128, 2>>(p, stream);
    case 2:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 128, 1>>(p, stream);
    case 3:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 64, 1>>(p, stream);
    case 4:
      return launch_mixed<MixedConfig<Kind, X, Blocks, 256, 1>>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <int Kind, class X>
cudaError_t mixed_gemm_of(MixedGemm const& p, cudaStream_t stream) {
  int tile = p.tile < 0 ? 0 : p.tile;
  return p.group > 1 ? launch_mixed_tile<Kind, X, true>(tile, p, stream)
                     : launch_mixed_tile<Kind, X, false>(tile, p, stream);
}

}  // namespace tripy
