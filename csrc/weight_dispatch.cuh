// Which kernel runs a layer for few rows: what is built of weight_only.cuh and weight_stream.cuh.
#pragma once

#include "weight_only.cuh"
#include "weight_stream.cuh"

namespace tripy {

// Of weight_launch.cuh.
template <class C>
cudaError_t launch_weight(WeightOnly const& p, cudaStream_t stream);
template <class C>
cudaError_t launch_stream(WeightOnly const& p, cudaStream_t stream);

// The longest run of units of a window that share a scale wherever it begins.
inline int span_of(WeightOnly const& p) {
  int units = p.group / 32, most = p.window == 0 ? 4 : p.window / 32;
  int span = 1;
  while (span < most && units % (2 * span) == 0) {
    span *= 2;
  }
  return span;
}

// Calls `launch` with the span of the layer's scales as a constant: those that are built.
template <class Launch>
cudaError_t with_span(WeightOnly const& p, Launch launch) {
  if (p.group <= 1) {
    return launch(std::integral_constant<int, 0>());
  }
  return span_of(p) == 4 ? launch(std::integral_constant<int, 4>())
                         : launch(std::integral_constant<int, 1>());
}

template <int Kind, class X, int N, int Tiles, int Warps>
cudaError_t launch_resident(WeightOnly const& p, cudaStream_t stream) {
  return with_span(p, [&](auto span) {
    return launch_weight<WeightConfig<Kind, X, N, Tiles, Warps, decltype(span)::value>>(p, stream);
  });
}

// What is built: see also choose() in native_weight_only.py.
template <int Kind, class X, int N>
cudaError_t launch_tiles(WeightOnly const& p, cudaStream_t stream) {
  if (p.streams_x) {
    if constexpr (N > 2) {
      return p.group > 1 ? launch_stream<StreamConfig<Kind, X, N, true>>(p, stream)
                         : launch_stream<StreamConfig<Kind, X, N, false>>(p, stream);
    }
  } else if constexpr (N <= 2) {
    if (p.row_tiles == 2 && p.warps == 8) {
      return launch_resident<Kind, X, N, 2, 8>(p, stream);
    }
    if (p.row_tiles == 2 && p.warps == 16) {
      return launch_resident<Kind, X, N, 2, 16>(p, stream);
    }
    if constexpr (N == 1) {  // Where there are few outputs.
      if (p.row_tiles == 1 && p.warps == 8 && p.group <= 1) {
        return launch_weight<WeightConfig<Kind, X, N, 1, 8, 0>>(p, stream);
      }
    }
  }
  return cudaErrorInvalidValue;
}

template <int Kind, class X>
cudaError_t launch_rows(WeightOnly const& p, cudaStream_t stream) {
  int tiles = (p.rows_at_once + 7) / 8;
  if (p.rows_at_once < 1 || tiles > 8) {
    return cudaErrorInvalidValue;
  }
  return tiles <= 1   ? launch_tiles<Kind, X, 1>(p, stream)
         : tiles <= 2 ? launch_tiles<Kind, X, 2>(p, stream)
         : tiles <= 4 ? launch_tiles<Kind, X, 4>(p, stream)
                      : launch_tiles<Kind, X, 8>(p, stream);
}

}  // namespace tripy
