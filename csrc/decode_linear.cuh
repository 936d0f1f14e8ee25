// A linear layer of a decode step.
//
// Eight rows of the weight are one operand of the tensor cores' instruction, the rows of the input
// the other one. Which columns an instruction sums is free, as long as both operands agree: lane l
// takes 16 neighbouring bytes of the weight's row l / 4, at 16 * (l % 4) of every 64.
#pragma once

#include "decode_input.cuh"

namespace tripy {

// D[16, 8] += A[16, k] · B[k, 8]; of A and D only the first eight rows.
__device__ __forceinline__ void mma(
    float (&d)[4], uint32_t a0, uint32_t a2, uint32_t b0, uint32_t b1, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5},"
      " {%7, %8}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(
    float (&d)[4], uint32_t a0, uint32_t a2, uint32_t b0, uint32_t b1, __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5},"
      " {%7, %8}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(
    int (&d)[4], uint32_t a0, uint32_t a2, uint32_t b0, uint32_t b1, int8_t) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %5},"
      " {%7, %8}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1));
}

// Four weights as two pairs, exactly.
struct Pairs {
  uint32_t low, high;
};

__device__ __forceinline__ Pairs unpack_int8(uint32_t bytes, __half) {
  // A byte plus 128 below the exponent of 1024 is 1152 + the byte.
  bytes ^= 0x80808080;
  uint32_t low = __byte_perm(bytes, 0x64646464, 0x4140);
  uint32_t high = __byte_perm(bytes, 0x64646464, 0x4342);
  asm("sub.f16x2 %0, %0, %1;" : "+r"(low) : "r"(0x64806480));
  asm("sub.f16x2 %0, %0, %1;" : "+r"(high) : "r"(0x64806480));
  return {low, high};
}

__device__ __forceinline__ Pairs unpack_int8(uint32_t bytes, __nv_bfloat16) {
  // The same in float32, of which bfloat16 is the upper half: a byte has no more digits.
  bytes ^= 0x80808080;
  uint32_t x[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float f = __uint_as_float(__byte_perm(bytes, 0x4B000000, 0x7650 + i)) - 8388736.0f;
    x[i] = __float_as_uint(f);
  }
  return {__byte_perm(x[0], x[1], 0x7632), __byte_perm(x[2], x[3], 0x7632)};
}

template <class T>
__device__ __forceinline__ Pairs unpack_float8(uint32_t bytes, T) {
  uint32_t pairs[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    auto two = static_cast<__nv_fp8x2_storage_t>(bytes >> 16 * i);
    __half2 halves = __half2(__nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3));
    if constexpr (std::is_same_v<T, __half>) {
      pairs[i] = *reinterpret_cast<uint32_t*>(&halves);
    } else {
      __nv_bfloat162 both = __float22bfloat162_rn(__half22float2(halves));
      pairs[i] = *reinterpret_cast<uint32_t*>(&both);
    }
  }
  return {pairs[0], pairs[1]};
}

template <class Sum>
struct alignas(8) Sum2 {
  Sum x, y;
};

// Products of a stage's rows. Warps that share a tile take every `parts`-th block of columns.
template <class T, bool Integers>
__device__ __forceinline__ void multiply(
    Worker& w, DecodeStep const& s, InputPlan const& plan, uint8_t const* weights, int rows,
    float (*sums)[kTileRows * kMostRows]) {
  using Sum = std::conditional_t<Integers, int, float>;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int tiles = (rows + kTileRows - 1) / kTileRows, parts = kWarps / tiles;
  int row = warp % tiles * kTileRows + lane / 4, column = lane % 4 * 16, input = lane / 4;
  if (warp >= tiles * parts) {
    return;
  }
  uint8_t const* a = weights + min(row, rows - 1) * s.stride + column;
  uint8_t const* b = w.shared.input + plan.operand + input * plan.stride +
                     (Integers ? column : 2 * column);
  bool mine = input < w.launch.rows;
  Sum total[2][4] = {};
#pragma unroll 2
  for (int k = warp / tiles * kBlock; k < s.k; k += parts * kBlock) {
    uint4 raw = k + column < s.row_bytes ? *reinterpret_cast<uint4 const*>(a + k) : uint4{};
    if constexpr (Integers) {
      uint4 x = mine ? *reinterpret_cast<uint4 const*>(b + k) : uint4{};
      mma(total[0], raw.x, raw.y, x.x, x.y, int8_t{});
      mma(total[1], raw.z, raw.w, x.z, x.w, int8_t{});
    } else {
      uint4 x = mine ? *reinterpret_cast<uint4 const*>(b + 2 * k) : uint4{};
      uint4 y = mine ? *reinterpret_cast<uint4 const*>(b + 2 * k + 16) : uint4{};
      Pairs p[4];
      if (s.weight_type == kTypeInt8) {
        p[0] = unpack_int8(raw.x, T{}), p[1] = unpack_int8(raw.y, T{});
        p[2] = unpack_int8(raw.z, T{}), p[3] = unpack_int8(raw.w, T{});
      } else {
        p[0] = unpack_float8(raw.x, T{}), p[1] = unpack_float8(raw.y, T{});
        p[2] = unpack_float8(raw.z, T{}), p[3] = unpack_float8(raw.w, T{});
      }
      mma(total[0], p[0].low, p[0].high, x.x, x.y, T{});
      mma(total[1], p[1].low, p[1].high, x.z, x.w, T{});
      mma(total[0], p[2].low, p[2].high, y.x, y.y, T{});
      mma(total[1], p[3].low, p[3].high, y.z, y.w, T{});
    }
  }
  Sum first = total[0][0] + total[1][0], second = total[0][1] + total[1][1];
  // Integers travel as they are.
  *reinterpret_cast<Sum2<Sum>*>(&sums[warp][lane / 4 * kMostRows + lane % 4 * 2]) = {first, second};
}

// What a result needs beside its sum; the residual with the launch that wrote it.
struct Extras {
  float scale, bias;
  uint2 residual;
};

template <class T>
__device__ __forceinline__ Extras extras(Worker& w, DecodeStep const& s, int row, int m) {
  Extras e = {__ldg(s.scale + row), s.bias ? __ldg(s.bias + row) : 0.0f,
              {0, w.exchange.launch}};
  int at = m * s.n + row;
  if (s.residual >= 0) {
    e.residual = w.exchange.raw(s.residual + at);
  } else if (s.residual_tensor >= 0) {
    auto tensor = static_cast<T const*>(w.launch.tensors[s.residual_tensor]);
    e.residual.x = __float_as_uint(float(tensor[at]));
  }
  return e;
}

template <class T>
__device__ __forceinline__ void write_result(
    Worker& w, DecodeStep const& s, int row, int m, float const* sums, int tiles, Extras& e) {
  int parts = kWarps / tiles, step = tiles * kTileRows * kMostRows;
  float sum = 0.0f;
  if (s.in_type == kTypeInt8) {
    int whole = 0;
#pragma unroll 4
    for (int p = 0; p < parts; p++) {
      whole += __float_as_int(sums[p * step]);
    }
    sum = float(whole);
  } else {
#pragma unroll 4
    for (int p = 0; p < parts; p++) {
      sum += sums[p * step];
    }
  }
  float value[1] = {sum * e.scale + e.bias};
  activate(value, s.activation);
  int at = m * s.n + row;
#pragma unroll 1
  for (uint32_t tries = 0; e.residual.y != w.exchange.launch; tries++) {
    e.residual = w.exchange.raw(s.residual + at);
    Exchange::give_up(tries);
  }
  value[0] += __uint_as_float(e.residual.x);
  value[0] = s.out_type < 0 ? to_type<T>(value[0])
                            : rounded_to(value[0] * s.inverse_out_scale, s.out_type);
  if (s.out >= 0) {
    w.exchange.write(s.out + at, value[0]);
  }
  if (s.out_tensor >= 0) {
    static_cast<T*>(w.launch.tensors[s.out_tensor])[at] = T(value[0]);
  }
}

template <class T>
__device__ __forceinline__ void linear(Worker& w, DecodeStep const& step) {
  DecodeStep const s = step;  // In registers: every wait would read it again.
  int first = min(int(blockIdx.x) * s.rows_each, s.n), end = min(first + s.rows_each, s.n);
  if (first >= end) {
    return;
  }
  InputPlan plan(s, w.launch.rows);
  int m = 0, own = threadIdx.x;
  if (w.launch.rows > 1) {
    m = int(threadIdx.x) % w.launch.rows, own = int(threadIdx.x) / w.launch.rows;
  }
  auto fetch_extras = [&](int stage) {
    bool mine = own < s.stage_rows && stage + own < end;
    return mine ? extras<T>(w, s, stage + own, m) : Extras{};
  };
  Extras now = fetch_extras(first);
  read_input<T>(w, s, plan);
  w.sync();
  int turn = 0;
#pragma unroll 1
  for (int stage = first; stage < end; stage += s.stage_rows, w.ring.next(), turn ^= 1) {
    int rows = min(s.stage_rows, end - stage);
    Extras next = fetch_extras(stage + s.stage_rows);
    barrier_wait(shared_address(&w.shared.full[w.ring.stage]), w.ring.phase);
    auto sums = w.shared.sums[turn];
    if (s.in_type == kTypeInt8) {
      multiply<T, true>(w, s, plan, w.shared.ring[w.ring.stage], rows, sums);
    } else {
      multiply<T, false>(w, s, plan, w.shared.ring[w.ring.stage], rows, sums);
    }
    w.sync();
    if (threadIdx.x == 0) {
      barrier_arrive(shared_address(&w.shared.empty[w.ring.stage]));
    }
    if (own < rows) {
      float const* mine = sums[own / kTileRows] + own % kTileRows * kMostRows + m;
      write_result<T>(w, s, stage + own, m, mine, (rows + kTileRows - 1) / kTileRows, now);
    }
    now = next;
  }
}

}  // namespace tripy
