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

// A thread's two outputs: scale and bias, on the way from memory.
struct MixedValues {
  float scale[2], bias[2];

  __device__ __forceinline__ MixedValues(MixedEpilogue const& epilogue, int output, int n) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int at = min(output + 8 * i, n - 1);
      scale[i] =
          epilogue.scale == nullptr ? 1.0f : __ldg(epilogue.scale + (epilogue.one_scale ? 0 : at));
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
    uint8_t* buffer, uint16_t* matrix, int first_row, int first_output, MixedShape const& shape) {
  int thread = threadIdx.x % 128, piece = thread % 8, output = first_output + piece * 8;
  int row = thread / 8, rows = output < shape.n ? shape.m - first_row : 0;
  uint8_t* at = buffer + row * 128 + ((piece ^ (row & 7)) << 4);
  auto there = reinterpret_cast<char*>(matrix + int64_t{first_row + row} * shape.n + output);
  int64_t step = int64_t{shape.n} * 32;  // 16 rows.
  uint4 pieces[kMixedChunk / 16];
#pragma unroll
  for (int i = 0; i < kMixedChunk / 16; i++, at += 16 * 128) {
    if constexpr (Out) {
      pieces[i] = *reinterpret_cast<uint4*>(at);
    } else if (row + i * 16 < rows) {
      *reinterpret_cast<uint4*>(at) = __ldg(reinterpret_cast<uint4 const*>(there + i * step));
    }
  }
  if constexpr (Out) {
#pragma unroll
    for (int i = 0; i < kMixedChunk / 16; i++, there += step) {
      if (row + i * 16 < rows) {
        *reinterpret_cast<uint4*>(there) = pieces[i];
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

// Of a tile whose K the blocks of a cluster have parts of: each chunk's sums go to one of them,
// into the stages, which nobody needs any more. They are added up in the order of K.
struct MixedParts {
  uint32_t stages;
  int split, rank, consumer;  // `split` is a power of two.

  __device__ __forceinline__ bool mine(int chunk) const {
    return split == 1 || (chunk & split - 1) == rank;
  }

  // Of a block's chunks, each from split - 1 others, of two consumers.
  __device__ __forceinline__ uint32_t place(int chunk, int from, int to) const {
    int before = (chunk >> (split >> 1)) * (split - 1) + from - (from > to);
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
      int to = chunk & split - 1;
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

  template <int Count>
  __device__ __forceinline__ void add(float (&sums)[Count]) const {
    if (split == 1) {
      return;
    }
#pragma unroll
    for (int chunk = 0; chunk < Count / (kMixedChunk / 2); chunk++) {
      if (!mine(chunk)) {
        continue;
      }
#pragma unroll
      for (int i = 0; i < kMixedChunk / 2; i += 4) {
        float4 total = {0.0f, 0.0f, 0.0f, 0.0f};
        float* own = sums + chunk * (kMixedChunk / 2) + i;
#pragma unroll 1
        for (int from = 0; from < split; from++) {
          float4 part = {own[0], own[1], own[2], own[3]};
          if (from != rank) {
            part = load_shared_four(place(chunk, from, rank) + i * 128 * 4);
          }
          total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
        }
        own[0] = total.x, own[1] = total.y, own[2] = total.z, own[3] = total.w;
      }
    }
  }
};

// The first 32 values become the last ones: for loops that registers cannot be indexed in. Such a
// loop is short, where its rounds one after the other would be thousands of instructions, and what
// is executed once comes from far away.
template <int Count>
__device__ __forceinline__ void rotate(float (&values)[Count]) {
  float first[32];
#pragma unroll
  for (int i = 0; i < 32; i++) {
    first[i] = values[i];
  }
#pragma unroll
  for (int i = 0; i < Count; i++) {
    values[i] = i + 32 < Count ? values[i + 32] : first[i + 32 - Count];
  }
}

template <int Count>
__device__ __forceinline__ void activate_all(float (&values)[Count], int activation) {
  if (activation == kNone) {
    return;
  }
#pragma unroll 1
  for (int round = 0; round < Count / 32; round++) {
    float part[32];
#pragma unroll
    for (int i = 0; i < 32; i++) {
      part[i] = values[i];
    }
    activate(part, activation);
#pragma unroll
    for (int i = 0; i < 32; i++) {
      values[i] = part[i];
    }
    rotate(values);
  }
}

// Element by element: results of float32, whose stores by eight threads are 32 bytes of a row, and
// odd rows.
template <int Count>
__device__ __forceinline__ void store_elements(
    float (&values)[Count], MixedShape const& shape, MixedEpilogue const& epilogue,
    MixedParts const& parts, int first_row, int first_output) {
  int output = first_output + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll 1
  for (int chunk = 0; chunk < Count / 32; chunk++) {
    int row = first_row + chunk * kMixedChunk + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; i++) {
      int m = row + i / 4 * 8 + i % 2, n = output + i / 2 % 2 * 8;
      if (parts.mine(chunk) && m < shape.m && n < shape.n) {
        int64_t at = int64_t{m} * shape.n + n;
        if (epilogue.out_type == kTypeFloat32) {
          auto residual = static_cast<float const*>(epilogue.residual);
          static_cast<float*>(epilogue.out)[at] =
              values[i] + (residual == nullptr ? 0.0f : __ldg(residual + at));
        } else {
          auto residual = static_cast<uint16_t const*>(epilogue.residual);
          float add = 0.0f;
          if (residual != nullptr) {
            add = floats_of(epilogue.out_type, __ldg(residual + at)).x;
          }
          static_cast<uint16_t*>(epilogue.out)[at] =
              uint16_t(pair_of(epilogue.out_type, values[i] + add, 0.0f));
        }
      }
    }
    rotate(values);
  }
}

// One consumer's sums of a tile.
template <int Count>
__device__ __forceinline__ void finish_mixed(
    float (&sums)[Count], MixedShape const& shape, MixedEpilogue const& epilogue,
    MixedValues const& values, MixedParts const& parts, uint8_t* buffer, int first_row,
    int first_output, int consumer) {
  float scale[2] = {values.scale[0] * epilogue.factor, values.scale[1] * epilogue.factor};
#pragma unroll
  for (int i = 0; i < Count; i++) {
    sums[i] = sums[i] * scale[i / 2 % 2] + values.bias[i / 2 % 2];
  }
  activate_all(sums, epilogue.activation);
  if (!epilogue.pieces) {
    store_elements(sums, shape, epilogue, parts, first_row, first_output);
    return;
  }
  int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, barrier = own_barrier(consumer);
  auto residual = static_cast<uint16_t*>(const_cast<void*>(epilogue.residual));
  // Where a lane's row of a matrix of eight outputs begins; 16 rows further is 2,048 bytes further.
  int row = lane / 16 * 8 + lane % 8, piece = warp * 2 + lane / 8 % 2;
  uint32_t place = shared_address(buffer) + row * 128 + ((piece ^ (row & 7)) << 4);
#pragma unroll
  for (int chunk = 0; chunk < Count / 32; chunk++) {
    int chunk_row = first_row + chunk * kMixedChunk;
    if (!parts.mine(chunk) || chunk_row >= shape.m) {
      continue;
    }
    float* results = sums + chunk * 32;
    group_sync<128>(barrier);  // The buffer's last chunk has been read.
    if (residual != nullptr) {
      copy_chunk<false>(buffer, residual, chunk_row, first_output, shape);
      group_sync<128>(barrier);
#pragma unroll
      for (int i = 0; i < 32; i += 8) {
        uint32_t added[4];
        load_turned(place + i * 256, added);
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float2 add = floats_of(epilogue.out_type, added[j]);
          results[i + 2 * j] += add.x;
          results[i + 2 * j + 1] += add.y;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 32; i += 8) {  // 16 rows.
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        words[j] = pair_of(epilogue.out_type, results[i + 2 * j], results[i + 2 * j + 1]);
      }
      store_turned(place + i * 256, words);
    }
    group_sync<128>(barrier);
    copy_chunk<true>(
        buffer, static_cast<uint16_t*>(epilogue.out), chunk_row, first_output, shape);
  }
}

}  // namespace tripy
