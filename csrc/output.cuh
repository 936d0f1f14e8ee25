// The end of a tile: from one consumer's sums in registers, through the epilogue and shared memory,
// to D in global memory.
#pragma once

#include "epilogue.cuh"
#include "hopper.cuh"
#include "tiles.cuh"

namespace tripy {

struct Epilogue {
  float const* scale;      // [N]
  float const* row_scale;  // [M], or null for ones
  float const* bias;       // [N], or null for zeros
  void const* residual;    // [M, N] of the type of the output, or null
  float inverse_out_scale;  // for outputs of one byte
  int activation;
};

// The barrier of one consumer's threads: the first one after __syncthreads' own.
__device__ __forceinline__ int own_barrier(int consumer) { return 1 + consumer; }

// A column's scale and bias. Beyond the matrix, as elsewhere, the last one's: never written.
__device__ __forceinline__ float2 column_values(Epilogue const& epilogue, int column, int n) {
  column = min(column, n - 1);
  return {
      __ldg(epilogue.scale + column), epilogue.bias ? __ldg(epilogue.bias + column) : 0.0f};
}

// Rows `first_row` ... + 63 of one consumer's sums to D, a chunk of columns at a time.
template <class C>
__device__ __forceinline__ void finish(
    typename C::Sum (&sums)[C::kN / 2], CUtensorMap const& map_d, Shape const& shape,
    Epilogue const& epilogue, float4 const* columns, uint8_t* buffers, int first_row,
    int first_column, int slab, int consumer) {
  using Out = typename C::Out;
  using Pair = typename Convert<Out>::Pair;
  constexpr int kSlabChunks = C::kN / C::kChunk;
  int thread = threadIdx.x % 128;
  int row = thread / 32 * 16 + thread % 32 / 4;  // In the chunk; the second one is row + 8.
  int pair = thread % 4 * 2;
  int rows[2] = {min(first_row + row, shape.m - 1), min(first_row + row + 8, shape.m - 1)};
  float row_scales[2] = {1.0f, 1.0f};
  if (epilogue.row_scale != nullptr) {
    row_scales[0] = __ldg(epilogue.row_scale + rows[0]);
    row_scales[1] = __ldg(epilogue.row_scale + rows[1]);
  }
#pragma unroll
  for (int chunk = 0; chunk < kSlabChunks; chunk++) {
    int column = first_column + chunk * C::kChunk;
    Pair pairs[C::kChunk / 4];
    // 32 values at a time: all of a chunk of bytes would take too many registers beside the sums.
    constexpr int kValues = C::kChunk < 64 ? C::kChunk / 2 : 32;
#pragma unroll
    for (int first = 0; first < C::kChunk / 2; first += kValues) {
      float values[kValues];
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        // Scale and bias of two columns.
        float4 two = columns[(chunk * C::kChunk + (first + i) * 2 + pair) / 2];
        auto const* sum = &sums[chunk * C::kChunk / 2 + first + i];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float r = row_scales[half];
          values[i + 2 * half] = float(sum[2 * half]) * r * two.x + two.y;
          values[i + 2 * half + 1] = float(sum[2 * half + 1]) * r * two.z + two.w;
        }
      }
      activate(values, epilogue.activation);
      if constexpr (sizeof(Out) == 1) {
#pragma unroll
        for (float& value : values) {
          value *= epilogue.inverse_out_scale;
        }
      } else if (epilogue.residual != nullptr) {
        auto residual = static_cast<Out const*>(epilogue.residual);
#pragma unroll
        for (int i = 0; i < kValues / 2; i++) {
          int c = min(column + i / 2 * 8 + pair, shape.n - 2);
          float2 add = Convert<Out>::floats(__ldg(
              reinterpret_cast<Pair const*>(residual + int64_t{rows[i % 2]} * shape.n + c)));
          values[2 * i] += add.x;
          values[2 * i + 1] += add.y;
        }
      }
#pragma unroll
      for (int i = 0; i < kValues / 2; i++) {
        pairs[first / 2 + i] = Convert<Out>::pair(values[2 * i], values[2 * i + 1]);
      }
    }
    uint8_t* buffer = buffers + (slab * kSlabChunks + chunk) % C::kBuffers * C::kChunkBuffer;
    if (thread == 0) {  // The buffer's last chunk has left, perhaps not the other buffer's.
      copy_out_wait_read<C::kBuffers == 2 && C::kChunks % 2 == 0 ? 1 : 0>();
    }
    group_sync<128>(own_barrier(consumer));
#pragma unroll
    for (int i = 0; i < C::kChunk / 4; i++) {
      // The copy engine's swizzle: the 16-byte piece within the row, xor the row's number.
      int at = (row + i % 2 * 8) * C::kChunkBytes + (i / 2 * 8 + pair) * int(sizeof(Out));
      at ^= (at >> 7 & (C::kChunkBytes / 16 - 1)) << 4;
      *reinterpret_cast<Pair*>(buffer + at) = pairs[i];
    }
    shared_to_copy_engine_fence();
    group_sync<128>(own_barrier(consumer));
    if (thread == 0) {
      copy_out(&map_d, column, first_row, shared_address(buffer));
    }
  }
}

}  // namespace tripy
