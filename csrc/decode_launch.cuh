// The launch of a decode step's kernel, of which there is one for each type of activations and of
// weights, size of heads and number of quads.
#pragma once

#include <type_traits>

#include "decode_step.cuh"

namespace tripy {

template <int N>
using Constant = std::integral_constant<int, N>;

// The files made of decode_instances.cu.in have one each.
template <class T, int Weights>
cudaError_t launch_decode(DecodeLaunch const& launch, cudaStream_t stream);

// `call` with the type of a launch's activations and the constant of its weights.
template <class F>
auto with_types(DecodeLaunch const& launch, F call) {
  auto with_weights = [&](auto type) {
    return launch.weights == kFloat8Weights ? call(type, Constant<kFloat8Weights>())
           : launch.weights == kInt4Weights ? call(type, Constant<kInt4Weights>())
                                            : call(type, Constant<kInt8Weights>());
  };
  return launch.type == kTypeFloat16 ? with_weights(__half()) : with_weights(__nv_bfloat16());
}

// `call` with the constants of a launch's width and quads.
template <class F>
auto with_sizes(DecodeLaunch const& launch, F call) {
  auto with_quads = [&](auto width) {
    return launch.quads == 1   ? call(width, Constant<1>())
           : launch.quads == 2 ? call(width, Constant<2>())
                               : call(width, Constant<kMostQuads>());
  };
  return launch.width == 32   ? with_quads(Constant<32>())
         : launch.width == 64 ? with_quads(Constant<64>())
                              : with_quads(Constant<128>());
}

}  // namespace tripy
