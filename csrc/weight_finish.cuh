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

// The sum of `count` parts, a power of two, by the tree in which part i and i + count / 2 come
// first. Cut into every second part, it is the tree of each cut and then their sum.
template <class T, class Part>
__device__ __forceinline__ T tree_sum(int count, Part part) {
  switch (count) {
    case 1:
      return part(0);
    case 2:
      return part(0) + part(1);
    case 4:
      return (part(0) + part(2)) + (part(1) + part(3));
    default:
      return ((part(0) + part(4)) + (part(2) + part(6))) +
             ((part(1) + part(5)) + (part(3) + part(7)));
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
  int64_t start = int64_t{first_row} * p.n + output;
  bool stores = output < p.n;
  // Its first one is on its way while sums are exchanged; with one row of x there is no other.
  float residual = 0.0f;
  if (p.residual != nullptr && stores && first_item < rows) {
    residual = load_float(p.result_type, p.residual, start + int64_t{first_item} * p.n);
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
  if (cluster > 1) {
    // Within the block, in place of the first lane's.
    for (int item = threadIdx.x; item < cluster * rows * C::kOutputs; item += kThreads) {
      int of = item / C::kOutputs % cluster, m = item / C::kOutputs / cluster;
      sums[at(of, m, column)] = tree_sum<Total>(kLanes / cluster, [&](int i) {
        return sums[at(i * cluster + of, m, column)];
      });
    }
    cluster_sync();
  }
  uint32_t own = shared_address(sums);
  for (int m = first_item; m < rows; m += kItemStep) {
    Total total;
    if (cluster == 1) {
      total = tree_sum<Total>(kLanes, [&](int i) { return sums[at(i, m, column)]; });
    } else {
      total = tree_sum<Total>(cluster, [&](int i) {
        Total value;
        cast(load_remote(remote_address(own + 4 * at(rank, m, column), i)), value);
        return value;
      });
    }
    if (stores) {
      float result[1] = {static_cast<float>(total) * scale + bias};
      activate(result, p.activation);
      int64_t index = start + int64_t{m} * p.n;
      if (p.residual != nullptr) {
        result[0] += m == first_item ? residual : load_float(p.result_type, p.residual, index);
      }
      store_result(p, index, result[0]);
    }
  }
  if (cluster > 1) {
    __syncwarp();    // Its threads may have had different numbers of rows.
    cluster_sync();  // No block ends while another one reads its memory.
  }
}

}  // namespace tripy
