// Launches weight_only for one kind of weight.
#pragma once

#include "launch.cuh"
#include "weight_only.cuh"

namespace tripy {

template <class C>
cudaError_t launch_weight(WeightOnly const& p, cudaStream_t stream) {
  if (p.cluster < 1 || p.cluster > kLanes || (p.cluster & (p.cluster - 1)) != 0) {
    return cudaErrorInvalidValue;
  }
  int all_chunks = (p.row_bytes + kChunkBytes - 1) / kChunkBytes;
  int rows = p.rows_at_once;
  auto layout = WeightLayout::of<C>(rows, (all_chunks + p.cluster - 1) / p.cluster, p.slots);
  if (layout.bytes > kSharedBytes || p.slots < 1 || p.slots > kMaxSlots) {
    return cudaErrorInvalidConfiguration;
  }
  CUtensorMap map;
  cudaError_t error =
      make_map<int8_t>(&map, p.weight, p.n, p.row_bytes, C::kCopyRows, kChunkBytes);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(
        weight_only<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, layout.bytes);
  }
  if (error != cudaSuccess) {
    return error;
  }
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {unsigned(p.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = p.early_launch;
  cudaLaunchConfig_t launch = {};
  int outputs = C::kOutputs * p.cluster;
  launch.gridDim = {unsigned((p.n + outputs - 1) / outputs * p.cluster),
                    unsigned((p.m + rows - 1) / rows), 1};
  launch.blockDim = kThreads;
  launch.dynamicSmemBytes = layout.bytes;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  return cudaLaunchKernelEx(&launch, weight_only<C>, map, p);
}

// What is built: one tile a warp where there are too few outputs for more.
template <int Kind, class X, int N>
cudaError_t launch_tiles(WeightOnly const& p, cudaStream_t stream) {
  if (p.group > 1) {
    return p.row_tiles == 2 ? launch_weight<WeightConfig<Kind, X, N, 2, true>>(p, stream)
                            : cudaErrorInvalidValue;
  }
  switch (p.row_tiles) {
    case 4:
      return launch_weight<WeightConfig<Kind, X, N, 4, false>>(p, stream);
    case 2:
      return launch_weight<WeightConfig<Kind, X, N, 2, false>>(p, stream);
    case 1:
      if constexpr (N == 1) {
        return launch_weight<WeightConfig<Kind, X, N, 1, false>>(p, stream);
      }
      return cudaErrorInvalidValue;
    default:
      return cudaErrorInvalidValue;
  }
}

template <int Kind, class X>
cudaError_t launch_rows(WeightOnly const& p, cudaStream_t stream) {
  if (p.rows_at_once < 1 || p.rows_at_once > 16) {
    return cudaErrorInvalidValue;
  }
  return p.rows_at_once <= 8 ? launch_tiles<Kind, X, 1>(p, stream)
                             : launch_tiles<Kind, X, 2>(p, stream);
}

}  // namespace tripy
