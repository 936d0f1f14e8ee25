// The end of a tile of mixed_gemm.cuh: from one consumer's sums in registers, [64 outputs, N rows],
// through the epilogue to the result in global memory, [rows, outputs].
#pragma once

#include "epilogue.cuh"
#include "hopper.cuh"
#include "mixed_weight.cuh"
#include "output.cuh"

namespace tripy {

struct MixedEpilogue {
  float const* scale;    // [1] or [n]; null where scales vary along the columns
  float const* bias;     // [n] or null
  void const* residual;  // [m, n] of the result's type, or null
  void* out;
  float factor;
  int one_scale;         // 1: for all outputs
  int activation;
  int out_type;          // enum Type
  int pieces;            // 1: whole pieces of 16 bytes lie in a row, and begin at multiples of 16
};

constexpr int kMixedOutputs = 64;  // Of a consumer.
constexpr int kMixedChunk = 64;    // Rows that leave together, each with 128 bytes of outputs.
constexpr int kMixedBuffer = kMixedChunk * kMixedOutputs * 2;
constexpr int kMixedSumBytes = kMixedChunk * kMixedOutputs * 4;
constexpr int kMostSplit = 4;  // Blocks of a tile.

// A thread's two outputs: scale and bias.
struct MixedValues {
  float scale[2], bias[2];

  __device__ __forceinline__ MixedValues(MixedEpilogue const& epilogue, int output, int n) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int at = min(output + 8 * i, n - 1);
      float own = epilogue.scale == nullptr ? 1.0f : __ldg(epilogue.scale + (epilogue.one_scale ? 0 : at));
      scale[i] = own * epilogue.factor;
      bias[i] = epilogue.bias == nullptr ? 0.0f : __ldg(epilogue.bias + at);
    }
  }
};

// Four 8x8 matrices of 16-bit elements, turned, between registers and shared memory.
__device__ __forceinline__ void store_turned(uint32_t address, uint32_t const (&words)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   address),
               "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

__device__ __forceinline__ void load_turned(uint32_t address, uint32_t (&words)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ uint32_t pair_of(int type, float x, float y) {
  if (type == kTypeFloat16) {
    auto pair = Convert<__half>::pair(x, y);
    return reinterpret_cast<uint32_t&>(pair);
  }
  auto pair = Convert<__nv_bfloat16>::pair(x, y);
  return reinterpret_cast<uint32_t&>(pair);
}

__device__ __forceinline__ float2 floats_of(int type, uint32_t pair) {
  return type == kTypeFloat16
             ? Convert<__half>::floats(reinterpret_cast<__half2&>(pair))
             : Convert<__nv_bfloat16>::floats(reinterpret_cast<__nv_bfloat162&>(pair));
}

// Between a buffer of one consumer and its chunk of a matrix [m, n] in global memory; eight threads
// a row. Nothing beyond the matrix is touched.
template <bool Out>
__device__ __forceinline__ void copy_chunk(
    uint8_t* buffer, uint16_t* matrix, int first_row, int first_output, MixedShape const& shape,
    bool pieces) {
  int thread = threadIdx.x % 128, piece = thread % 8, output = first_output + piece * 8;
#pragma unroll
  for (int i = 0; i < kMixedChunk / 16; i++) {
    int row = thread / 8 + 16 * i;
    if (first_row + row >= shape.m || output >= shape.n) {
      continue;
    }
    auto at = reinterpret_cast<uint4*>(buffer + row * 128 + ((piece ^ (row & 7)) << 4));
    uint16_t* there = matrix + int64_t{first_row + row} * shape.n + output;
    if (pieces) {
      if constexpr (Out) {
        *reinterpret_cast<uint4*>(there) = *at;
      } else {
        *at = __ldg(reinterpret_cast<uint4 const*>(there));
      }
    } else {
      auto values = reinterpret_cast<uint16_t*>(at);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        if (output + j < shape.n) {
          if constexpr (Out) {
            there[j] = values[j];
          } else {
            values[j] = __ldg(there + j);
          }
        }
      }
    }
  }
}

__device__ __forceinline__ void store_remote(uint32_t address, float const* values) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(values[0]),
               "f"(values[1]), "f"(values[2]), "f"(values[3])
               : "memory");
}

__device__ __forceinline__ float4 load_shared_four(uint32_t address) {
  float4 four;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w)
               : "r"(address)
               : "memory");
  return four;
}

// Chunk `chunk` of the sums: registers cannot be indexed by a number that is not known before.
template <int Count>
__device__ __forceinline__ void take_chunk(
    float const (&sums)[Count], int chunk, float (&results)[kMixedChunk / 2]) {
#pragma unroll
  for (int c = 0; c < Count / (kMixedChunk / 2); c++) {
    if (c == chunk) {
#pragma unroll
      for (int i = 0; i < kMixedChunk / 2; i++) {
        results[i] = sums[c * kMixedChunk / 2 + i];
      }
    }
  }
}

// Of a tile whose K the blocks of a cluster have parts of: each chunk's sums go to one of them, into
// the stages, which nobody needs any more. They are added up in the order of K.
struct MixedParts {
  uint32_t stages;
  int split, rank, consumer;

  __device__ __forceinline__ bool mine(int chunk) const {
    return split == 1 || chunk % split == rank;
  }

  // Of a block's chunks, each from split - 1 others, of two consumers.
  __device__ __forceinline__ uint32_t place(int chunk, int from, int to) const {
    int before = chunk / split * (split - 1) + from - (from > to);
    return stages + (before * 2 + consumer) * kMixedSumBytes + threadIdx.x % 128 * 16;
  }

  template <int Count>
  __device__ __forceinline__ void exchange(float const (&sums)[Count]) const {
    if (split == 1) {
      return;
    }
    constexpr int kValues = kMixedChunk / 2;
    cluster_sync();
#pragma unroll
    for (int chunk = 0; chunk < Count / kValues; chunk++) {
      int to = chunk % split;
      if (to != rank) {
        uint32_t there = remote_address(place(chunk, rank, to), to);
#pragma unroll
        for (int i = 0; i < kValues; i += 4) {
          store_remote(there + i * 128 * 4, sums + chunk * kValues + i);
        }
      }
    }
    cluster_sync();
  }

  __device__ __forceinline__ void add(float (&sums)[kMixedChunk / 2], int chunk) const {
    if (split == 1) {
      return;
    }
#pragma unroll
    for (int i = 0; i < kMixedChunk / 2; i += 4) {
      float4 total = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int from = 0; from < split; from++) {
        float4 part = {sums[i], sums[i + 1], sums[i + 2], sums[i + 3]};
        if (from != rank) {
          part = load_shared_four(place(chunk, from, rank) + i * 128 * 4);
        }
        total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
      }
      sums[i] = total.x, sums[i + 1] = total.y, sums[i + 2] = total.z, sums[i + 3] = total.w;
    }
  }
};

// 64 rows of one consumer's sums.
__device__ __forceinline__ void finish_mixed(
    float (&results)[kMixedChunk / 2], MixedShape const& shape, MixedEpilogue const& epilogue,
    MixedValues const& values, uint8_t* buffer, int first_row, int first_output, int consumer) {
  int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
#pragma unroll
  for (int i = 0; i < kMixedChunk / 2; i++) {
    results[i] = results[i] * values.scale[i / 2 % 2] + values.bias[i / 2 % 2];
  }
  activate(results, epilogue.activation);
  if (epilogue.out_type == kTypeFloat32) {
    // Eight threads' stores of a row are 32 bytes: no need to turn them.
    auto out = static_cast<float*>(epilogue.out);
    auto residual = static_cast<float const*>(epilogue.residual);
#pragma unroll
    for (int i = 0; i < kMixedChunk / 2; i++) {
      int row = first_row + i / 4 * 8 + lane % 4 * 2 + i % 2;
      int output = first_output + warp * 16 + lane / 4 + i / 2 % 2 * 8;
      if (row < shape.m && output < shape.n) {
        int64_t at = int64_t{row} * shape.n + output;
        out[at] = results[i] + (residual == nullptr ? 0.0f : __ldg(residual + at));
      }
    }
    return;
  }
  int barrier = own_barrier(consumer);
  group_sync<128>(barrier);  // The buffer's last chunk has been read.
  auto residual = static_cast<uint16_t*>(const_cast<void*>(epilogue.residual));
  if (residual != nullptr) {
    copy_chunk<false>(buffer, residual, first_row, first_output, shape, epilogue.pieces);
    group_sync<128>(barrier);
  }
#pragma unroll
  for (int i = 0; i < kMixedChunk / 2; i += 8) {  // 16 rows.
    int row = i * 2 + lane / 16 * 8 + lane % 8, piece = warp * 2 + lane / 8 % 2;
    uint32_t at = shared_address(buffer) + row * 128 + ((piece ^ (row & 7)) << 4);
    if (residual != nullptr) {
      uint32_t added[4];
      load_turned(at, added);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float2 add = floats_of(epilogue.out_type, added[j]);
        results[i + 2 * j] += add.x;
        results[i + 2 * j + 1] += add.y;
      }
    }
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      words[j] = pair_of(epilogue.out_type, results[i + 2 * j], results[i + 2 * j + 1]);
    }
    store_turned(at, words);
  }
  group_sync<128>(barrier);
  copy_chunk<true>(
      buffer, static_cast<uint16_t*>(epilogue.out), first_row, first_output, shape,
      epilogue.pieces);
}

}  // namespace tripy
