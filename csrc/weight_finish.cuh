// How weight_only.cuh ends: sums of warps and blocks become results.
#pragma once

#include "epilogue.cuh"
#include "hopper.cuh"
#include "weight_config.cuh"

namespace tripy {

__device__ __forceinline__ uint32_t remote_address(uint32_t shared, uint32_t rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
  return address;
}

__device__ __forceinline__ uint32_t load_remote(uint32_t address) {
  uint32_t value;
  asm volatile("ld.shared::cluster.b32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

__device__ __forceinline__ void cast(uint32_t bits, float& value) { value = __uint_as_float(bits); }
__device__ __forceinline__ void cast(uint32_t bits, int& value) { value = int(bits); }

template <class T>
struct alignas(16) FourSums {
  T sums[4];

  __device__ __forceinline__ FourSums operator+(FourSums const& other) const {
    return {{sums[0] + other.sums[0], sums[1] + other.sums[1], sums[2] + other.sums[2],
             sums[3] + other.sums[3]}};
  }
};

// The sum of `Count` parts, a power of two, by the tree in which part i and i + Count / 2 come
// first. Cut into every second part, it is the tree of each cut and then their sum.
template <class T, int Count, int First = 0, int Step = 1, class Part>
__device__ __forceinline__ T tree_sum(Part part) {
  if constexpr (Count == 1) {
    return part(First);
  } else {
    return tree_sum<T, Count / 2, First, 2 * Step>(part) +
           tree_sum<T, Count / 2, First + Step, 2 * Step>(part);
  }
}

// `run` with a constant, so that its loads need not wait for one another behind branches.
template <class Run>
__device__ __forceinline__ void with_cluster(int cluster, Run run) {
  switch (cluster) {
    case 1:
      return run(std::integral_constant<int, 1>());
    case 2:
      return run(std::integral_constant<int, 2>());
    case 4:
      return run(std::integral_constant<int, 4>());
    default:
      return run(std::integral_constant<int, 8>());
  }
}

__device__ __forceinline__ float load_float(int type, void const* data, int64_t index) {
  switch (type) {
    case kTypeFloat32:
      return static_cast<float const*>(data)[index];
    case kTypeFloat16:
      return __half2float(static_cast<__half const*>(data)[index]);
    default:
      return __bfloat162float(static_cast<__nv_bfloat16 const*>(data)[index]);
  }
}

// The result of a layer; int8 and float8 from a result in the type of the layer.
__device__ __forceinline__ void store_result(WeightOnly const& p, int64_t index, float value) {
  if (p.out_type >= kTypeInt8) {
    if (p.result_type == kTypeFloat16) {
      value = __half2float(__float2half_rn(value));
    } else if (p.result_type == kTypeBFloat16) {
      value = __bfloat162float(__float2bfloat16_rn(value));
    }
    value = __fdiv_rn(value, p.out_scale);
  }
  switch (p.out_type) {
    case kTypeFloat32:
      static_cast<float*>(p.out)[index] = value;
      break;
    case kTypeFloat16:
      static_cast<__half*>(p.out)[index] = __float2half_rn(value);
      break;
    case kTypeBFloat16:
      static_cast<__nv_bfloat16*>(p.out)[index] = __float2bfloat16_rn(value);
      break;
    case kTypeInt8:
      static_cast<int8_t*>(p.out)[index] = int8_t(rounded(kTypeInt8, value));
      break;
    default:
      static_cast<__nv_fp8_e4m3*>(p.out)[index] = __nv_fp8_e4m3(value);  // Saturates.
  }
}

// Adds up what warps and blocks have, and finishes the sums: block r of a cluster those of group r.
template <class C>
__device__ __forceinline__ void finish(
    WeightOnly const& p, Totals<C> const& totals, char* memory, int rows, int first_row,
    int output, float scale, float bias, int rank) {
  using Total = typename C::Total;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, part = lane % 4;
  int cluster = p.cluster, row = group % 4 * 2 + group / 4;
  auto sums = reinterpret_cast<Total*>(memory);  // [warp][row of x][output]
  auto at = [&](int warp, int m, int output) { return (warp * rows + m) * C::kPitch + output; };
  int first_item = threadIdx.x / C::kOutputs, column = threadIdx.x % C::kOutputs;
  constexpr int kItemStep = kThreads / C::kOutputs;
  constexpr int kItems = (C::kN * 8 + kItemStep - 1) / kItemStep;  // Of a thread, at most.
  int64_t start = int64_t{first_row} * p.n + output;
  auto finishes = [&](int item) { return first_item + item * kItemStep < rows && output < p.n; };
  auto index = [&](int item) { return start + int64_t{first_item + item * kItemStep} * p.n; };
  // On their way while sums are exchanged.
  float residuals[kItems] = {};
#pragma unroll
  for (int item = 0; item < kItems; item++) {
    if (p.residual != nullptr && finishes(item)) {
      residuals[item] = load_float(p.result_type, p.residual, index(item));
    }
  }
  __syncthreads();  // All have read their slots and x, over which sums are written.
#pragma unroll
  for (int n = 0; n < C::kN; n++) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int m = n * 8 + part * 2 + j;
      if (m < rows) {
#pragma unroll
        for (int tile = 0; tile < C::kTiles; tile++) {
          sums[at(warp, m, tile * 16 + row)] = totals[tile][n][j];
          sums[at(warp, m, tile * 16 + 8 + row)] = totals[tile][n][2 + j];
        }
      }
    }
  }
  __syncthreads();
  Total all[kItems] = {};
  with_cluster(cluster, [&](auto constant) {
    constexpr int kCluster = decltype(constant)::value, kFours = C::kOutputs / 4;
    if constexpr (kCluster > 1 && kCluster < kLanes) {
      // Within the block, in place of the first lane's, four outputs at once.
      using Four = FourSums<Total>;
      for (int item = threadIdx.x; item < kCluster * rows * kFours; item += kThreads) {
        int of = item / kFours % kCluster, m = item / kFours / kCluster;
        auto four = [&](int i) -> Four& {
          return reinterpret_cast<Four&>(sums[at(i * kCluster + of, m, item % kFours * 4)]);
        };
        four(0) = tree_sum<Four, kLanes / kCluster>(four);
      }
    }
    if constexpr (kCluster > 1) {
      cluster_sync();
    }
    if (first_item >= rows) {
      return;
    }
#pragma unroll
    for (int item = 0; item < kItems; item++) {
      int m = min(first_item + item * kItemStep, rows - 1);
      if constexpr (kCluster == 1) {
        all[item] = tree_sum<Total, kLanes>([&](int i) { return sums[at(i, m, column)]; });
      } else {
        uint32_t own = shared_address(&sums[at(rank, m, column)]);
        all[item] = tree_sum<Total, kCluster>([&](int i) {
          Total value;
          cast(load_remote(remote_address(own, i)), value);
          return value;
        });
      }
    }
  });
  if (cluster > 1) {
    __syncwarp();  // Its threads may have had different numbers of rows.
    // Having read, and before results are written, for whose way to memory this would wait.
    cluster_arrive();
  }
  if (first_item < rows) {
    float results[kItems];
#pragma unroll
    for (int item = 0; item < kItems; item++) {
      results[item] = static_cast<float>(all[item]) * scale + bias;
    }
    activate(results, p.activation);
#pragma unroll
    for (int item = 0; item < kItems; item++) {
      if (finishes(item)) {
        store_result(p, index(item), results[item] + residuals[item]);
      }
    }
  }
  if (cluster > 1) {
    __syncwarp();
    cluster_wait();  // No block ends while another one reads its memory.
  }
}

}  // namespace tripy
