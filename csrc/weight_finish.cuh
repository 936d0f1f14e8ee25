// How weight_only.cuh ends: sums of warps and blocks become results.
#pragma once

#include "epilogue.cuh"
#include "hopper.cuh"
#include "weight_config.cuh"

namespace tripy {

template <class T>
struct alignas(16) FourSums {
  T sums[4];

  __device__ __forceinline__ FourSums operator+(FourSums const& other) const {
    return {{sums[0] + other.sums[0], sums[1] + other.sums[1], sums[2] + other.sums[2],
             sums[3] + other.sums[3]}};
  }
};

// The sum of `Count` parts, a power of two, by the tree in which parts i and i + Count / 2 come
// first.
template <class T, int Count, int First = 0, int Step = 1, class Part>
__device__ __forceinline__ T tree_sum(Part part) {
  if constexpr (Count == 1) {
    return part(First);
  } else {
    return tree_sum<T, Count / 2, First, 2 * Step>(part) +
           tree_sum<T, Count / 2, First + Step, 2 * Step>(part);
  }
}

// A value of a floating-point type as it is in memory; converted, one would wait for it.
__device__ __forceinline__ uint32_t load_bits(int type, void const* data, int64_t index) {
  return type == kTypeFloat32 ? static_cast<uint32_t const*>(data)[index]
                              : static_cast<uint16_t const*>(data)[index];
}

__device__ __forceinline__ float to_float(int type, uint32_t bits) {
  switch (type) {
    case kTypeFloat32:
      return __uint_as_float(bits);
    case kTypeFloat16:
      return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
    default:
      return __uint_as_float(bits << 16);
  }
}

// Gives `each` the function that stores a result, by the type of the output.
template <class Each>
__device__ __forceinline__ void store_results(WeightOnly const& p, Each each) {
  switch (p.out_type) {
    case kTypeFloat32:
      return each([&](int64_t i, float value) { static_cast<float*>(p.out)[i] = value; });
    case kTypeFloat16:
      return each([&](int64_t i, float value) {
        static_cast<__half*>(p.out)[i] = __float2half_rn(value);
      });
    case kTypeBFloat16:
      return each([&](int64_t i, float value) {
        static_cast<__nv_bfloat16*>(p.out)[i] = __float2bfloat16_rn(value);
      });
    default:
      // From a result in the type of the layer.
      return each([&](int64_t i, float value) {
        if (p.result_type == kTypeFloat16) {
          value = __half2float(__float2half_rn(value));
        } else if (p.result_type == kTypeBFloat16) {
          value = __bfloat162float(__float2bfloat16_rn(value));
        }
        value = __fdiv_rn(value, p.out_scale);
        if (p.out_type == kTypeInt8) {
          static_cast<int8_t*>(p.out)[i] = int8_t(rounded(kTypeInt8, value));
        } else {
          static_cast<__nv_fp8_e4m3*>(p.out)[i] = __nv_fp8_e4m3(value);  // Saturates.
        }
      });
  }
}

// What a thread needs to finish its sums: those of two outputs of a tile, eight apart. It is asked
// for early and converted late, where it has come.
struct Outputs {
  uint32_t scale[2], bias[2];
  int first;

  // Of tile `tile` from output `start` on.
  __device__ __forceinline__ Outputs(WeightOnly const& p, bool blocks, int start) : first(start) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int output = min(first + i * 8, p.n - 1);
      scale[i] = __float_as_uint(1.0f), bias[i] = 0;
      if (!blocks) {
        scale[i] = reinterpret_cast<uint32_t const*>(p.scale)[p.group == 0 ? 0 : output];
      }
      if (p.bias != nullptr) {
        bias[i] = load_bits(p.param_type, p.bias, output);
      }
    }
  }
};

// Finishes the sums of one group of rows, of which `sums` has [lane][tile][tile of x][thread].
// `Warps` do so, each for one tile. `row_of` gives the row of x of a column of the tensor cores;
// `wait` returns when the sums are there.
template <class Total, int Tiles, int N, int Lanes, int Warps, class Row, class Wait>
__device__ __forceinline__ void finish_sums(
    WeightOnly const& p, FourSums<Total> const* sums, int rows, int first_row,
    Outputs const& outputs, Row row_of, Wait wait) {
  int warp = threadIdx.x / 32 % Warps, lane = threadIdx.x % 32, part = lane % 4;
  constexpr int kStep = Warps / Tiles, kItems = (N + kStep - 1) / kStep;
  int first_n = warp / Tiles;
  if (first_n >= N) {
    return;
  }
  auto row = [&](int item, int j) { return (first_n + item * kStep) * 8 + row_of(part * 2 + j); };
  auto finishes = [&](int item, int i, int j) {
    return row(item, j) < rows && outputs.first + i * 8 < p.n;
  };
  auto index = [&](int item, int i, int j) {
    return int64_t{first_row + row(item, j)} * p.n + outputs.first + i * 8;
  };
  // On their way while sums are.
  uint32_t residuals[kItems][2][2] = {};
  if (p.residual != nullptr) {
#pragma unroll
    for (int item = 0; item < kItems; item++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
          if (finishes(item, i, j)) {
            residuals[item][i][j] = load_bits(p.result_type, p.residual, index(item, i, j));
          }
        }
      }
    }
  }
  wait();
  float results[kItems * 4];
#pragma unroll
  for (int item = 0; item < kItems; item++) {
    int n = min(first_n + item * kStep, N - 1);
    auto all = tree_sum<FourSums<Total>, Lanes>(
        [&](int i) { return sums[((i * Tiles + warp % Tiles) * N + n) * 32 + lane]; });
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float scale = p.factor * __uint_as_float(outputs.scale[i]);
      float bias = p.bias == nullptr ? 0.0f : to_float(p.param_type, outputs.bias[i]);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        results[item * 4 + i * 2 + j] = static_cast<float>(all.sums[i * 2 + j]) * scale + bias;
      }
    }
  }
  activate(results, p.activation);
  store_results(p, [&](auto store) {
#pragma unroll
    for (int item = 0; item < kItems; item++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
          if (finishes(item, i, j)) {
            float residual =
                p.residual == nullptr ? 0.0f : to_float(p.result_type, residuals[item][i][j]);
            store(index(item, i, j), results[item * 4 + i * 2 + j] + residual);
          }
        }
      }
    }
  });
}

// Adds up what warps and blocks have, and finishes the sums: block r of C those of groups r, r + C,
// and so on, eight warps those of a group. A warp sends its sums to the block that finishes them as
// they are in its registers, so that what a thread finishes, two rows of two outputs, are the same
// words of all lanes.
template <class C>
__device__ __forceinline__ void finish(
    WeightOnly const& p, Totals<C> const& totals, uint32_t to, uint32_t barrier, uint32_t parity,
    char* sums, int rows, int first_row, int lane_of_chunks, int group, Outputs const& outputs) {
  int lane = threadIdx.x % 32, finished = threadIdx.x / 32 / kLanes;
  cluster_wait();  // All blocks expect sums and, where these come over x, have read it.
  constexpr int kPart = C::kTiles * C::kN * 32;  // Of a lane.
  int owner = group % p.cluster;
  int place = (group / p.cluster * kLanes + lane_of_chunks) * kPart + lane;
  auto store_with = [&](auto store) {
#pragma unroll
    for (int tile = 0; tile < C::kTiles; tile++) {
#pragma unroll
      for (int n = 0; n < C::kN; n++) {
        if (n * 8 + lane % 4 * 2 < rows) {
          store((place + (tile * C::kN + n) * 32) * 16, totals[tile][n]);
        }
      }
    }
  };
  if (p.cluster == 1) {  // compute-sanitizer takes remote stores for errors where none is remote.
    store_with([&](int at, auto const& four) { memcpy(sums + at, four, 16); });
    __syncthreads();
  } else {
    uint32_t remote = remote_address(to, owner), remote_barrier = remote_address(barrier, owner);
    store_with([&](int at, auto const& four) {
      uint32_t words[4];
      memcpy(words, four, sizeof(words));
      send(remote + at, remote_barrier, words);
    });
  }
  using Four = FourSums<typename C::Total>;
  finish_sums<typename C::Total, C::kTiles, C::kN, kLanes, kLanes>(
      p, reinterpret_cast<Four const*>(sums) + finished * kLanes * kPart, rows, first_row, outputs,
      [](int column) { return column; },
      [&] {
        if (p.cluster > 1) {
          barrier_wait(barrier, parity);
        }
      });
}

}  // namespace tripy
