// Launches weight_only and weight_stream.
#pragma once

#include "launch.cuh"
#include "weight_dispatch.cuh"

namespace tripy {

// Launches a kernel with as many blocks as outputs and rows of x need.
template <class Kernel, class... Maps>
cudaError_t launch_blocks(
    WeightOnly const& p, Kernel kernel, int outputs, int threads, int bytes, cudaStream_t stream,
    Maps const&... maps) {
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) {
    return error;
  }
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {unsigned(p.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = p.early_launch;
  cudaLaunchConfig_t launch = {};
  int of_cluster = outputs * p.cluster, rows = p.rows_at_once;
  int clusters = (p.n + of_cluster - 1) / of_cluster;
  launch.gridDim = {unsigned((clusters + p.passes - 1) / p.passes * p.cluster),
                    unsigned((p.m + rows - 1) / rows), 1};
  launch.blockDim = threads;
  launch.dynamicSmemBytes = bytes;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  return cudaLaunchKernelEx(&launch, kernel, maps..., p);
}

template <class C>
cudaError_t launch_weight(WeightOnly const& p, cudaStream_t stream) {
  if (p.cluster < 1 || p.cluster > kLanes || (p.cluster & (p.cluster - 1)) != 0 ||
      p.passes < 1) {
    return cudaErrorInvalidValue;
  }
  int bytes = WeightLayout::of<C>(p).bytes;
  if (bytes > kSharedBytes || p.slots < 1 || p.slots > kMaxSlots) {
    return cudaErrorInvalidConfiguration;
  }
  CUtensorMap map;
  cudaError_t error =
      make_map<int8_t>(&map, p.weight, p.n, p.row_bytes, C::kOutputs, kChunkBytes);
  return error != cudaSuccess ? error
                              : launch_blocks(
                                    p, weight_only<C>, C::kOutputs * C::kGroups, C::kThreads, bytes,
                                    stream, map);
}

template <class C>
cudaError_t launch_stream(WeightOnly const& p, cudaStream_t stream) {
  if (p.cluster != 1 || p.passes != 1 || p.round_type >= 0 || p.x_type != p.compute_type) {
    return cudaErrorInvalidValue;
  }
  int bytes = StreamLayout::of<C>(p).bytes;
  if (bytes > kSharedBytes || p.slots < 2) {
    return cudaErrorInvalidConfiguration;
  }
  using X = typename C::X;
  CUtensorMap weights, x;
  cudaError_t error =
      make_map<int8_t>(&weights, p.weight, p.n, p.row_bytes, C::kOutputs, kChunkBytes);
  if (error == cudaSuccess) {
    error = make_map<X>(&x, p.x, p.m, p.k, C::kRows, kChunkBytes / sizeof(X));
  }
  return error != cudaSuccess
             ? error
             : launch_blocks(
                   p, weight_stream<C>, C::kOutputs, C::kThreads, bytes, stream, weights, x);
}

}  // namespace tripy
