// What kernels of csrc/ need of a GPU, on a CPU, so that tests can run them where there is none.
//
// Included in place of csrc/hopper.cuh's own code. Every thread is a fiber; which one runs next is
// drawn at random, and copies arrive late, so that another seed is another order of events: a
// missing barrier shows up as a wrong result, a wrong one as a deadlock, which is reported. Nothing
// is said about speed, alignment or memory order.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>
#include <math.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __launch_bounds__
#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define TRIPY_HAS_HOPPER

namespace emulator {

struct Thread {
  uint3 index, block;
  dim3 blocks;
};

Thread const& thread();
uint8_t* shared_memory();  // Of the running thread's block.
void yield();
void progress();  // What others may be waiting for has happened.
[[noreturn]] void fail(char const* why);

// Hands `value` to the warp; the result has all lanes' values.
uint64_t const* exchange_in_warp(uint64_t value);
void sync_threads(int barrier, int threads);

void barrier_init(uint32_t barrier, int arrivals);
void barrier_arrive(uint32_t barrier, int bytes);  // bytes: those that are expected from now on.
void barrier_wait(uint32_t barrier, uint32_t parity);
void copy_later(uint32_t to, void const* from, int bytes, uint32_t barrier);

// What a tensor map is here: a matrix of which boxes of rows of 128 bytes are copied, swizzled.
constexpr int kBoxBytes = 128;
struct Box {
  uint8_t const* data;
  int rows, row_bytes, box_rows;
};
void copy_box_later(uint32_t to, Box const& box, int column_byte, int row, uint32_t barrier);

// Copies that a thread makes itself, and their arrival at a barrier.
void copy_by_thread(uint32_t to, void const* from, int size, int bytes);
void arrive_with_copies(uint32_t barrier);

// Clusters. An address in the memory of block r of one is r << 24 | the address.
void send_later(uint32_t to, uint32_t barrier, uint32_t const (&words)[4]);
void cluster_arrive();
void cluster_wait();

// Runs `kernel` for all threads of all blocks; an empty text, or what went wrong.
char const* run(void (*kernel)(void*), void* argument, int blocks, int threads, int shared_bytes,
                uint64_t seed, int cluster = 1);

template <class T>
T of_lane(T value, int lane) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  uint64_t other = exchange_in_warp(bits)[lane & 31];
  std::memcpy(&value, &other, sizeof(T));
  return value;
}

}  // namespace emulator

#define threadIdx (emulator::thread().index)
#define blockIdx (emulator::thread().block)
#define gridDim (emulator::thread().blocks)

inline int lane_of_thread() { return threadIdx.x % 32; }

inline void check_mask(unsigned mask) {
  if (mask != 0xFFFFFFFF) {
    emulator::fail("only whole warps are emulated");
  }
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  check_mask(mask);
  return emulator::of_lane(value, lane);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  check_mask(mask);
  return emulator::of_lane(value, lane_of_thread() ^ lanes);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, int lanes) {
  check_mask(mask);
  int lane = lane_of_thread() + lanes;
  return emulator::of_lane(value, lane < 32 ? lane : lane_of_thread());
}

inline int __reduce_add_sync(unsigned mask, int value) {
  check_mask(mask);
  auto all = emulator::exchange_in_warp(static_cast<uint32_t>(value));
  uint32_t sum = 0;
  for (int i = 0; i < 32; i++) {
    sum += static_cast<uint32_t>(all[i]);
  }
  return static_cast<int>(sum);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFF) {
  check_mask(mask);
  emulator::exchange_in_warp(0);
}

inline void __syncthreads() { emulator::sync_threads(0, 0); }

inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 32; i += 8) {
    sum += int8_t(a >> i) * int8_t(b >> i);
  }
  return sum;
}

inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    result |= uint32_t(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
  }
  return result;
}

template <class T>
T __ldg(T const* from) {
  return *from;
}

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline int __float2int_rn(float x) { return int(__builtin_rintf(x)); }
inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline void __trap() { emulator::fail("__trap()"); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

namespace tripy {

inline void* dynamic_shared() { return emulator::shared_memory(); }

// Addresses in shared memory are distances from its beginning.
inline uint32_t shared_address(void const* pointer) {
  return uint32_t(static_cast<uint8_t const*>(pointer) - emulator::shared_memory());
}

inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  emulator::barrier_init(barrier, int(arrivals));
}
inline void barrier_init_fence() {}
inline void barrier_expect_bytes(uint32_t barrier, uint32_t bytes) {
  emulator::barrier_arrive(barrier, int(bytes));
}
inline void barrier_arrive(uint32_t barrier) { emulator::barrier_arrive(barrier, 0); }
inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  emulator::barrier_wait(barrier, parity);
}

template <int Threads>
void group_sync(int barrier) {
  emulator::sync_threads(barrier, Threads);
}

inline void copy_bytes_in(
    uint32_t shared, void const* from, int bytes, uint32_t barrier, uint64_t) {
  emulator::copy_later(shared, from, bytes, barrier);
}
inline void prefetch_bytes(void const*, int) {}

// The columns of a map are given as elements: so many bytes each.
inline void copy_in(
    uint32_t shared, CUtensorMap const* map, int column, int row, uint32_t barrier) {
  struct Map {
    emulator::Box box;
    int element;
  };
  auto known = reinterpret_cast<Map const*>(map);
  emulator::copy_box_later(shared, known->box, column * known->element, row, barrier);
}
template <int Bytes>
void copy_async(uint32_t shared, void const* from, int size = Bytes) {
  emulator::copy_by_thread(shared, from, size, Bytes);
}
inline void copy_async_arrive(uint32_t barrier) { emulator::arrive_with_copies(barrier); }

inline uint32_t remote_address(uint32_t shared, uint32_t rank) { return rank << 24 | shared; }
inline void send(uint32_t to, uint32_t barrier, uint32_t const (&words)[4]) {
  emulator::send_later(to, barrier, words);
}
inline void cluster_arrive_unordered() { emulator::cluster_arrive(); }
inline void cluster_wait() { emulator::cluster_wait(); }
inline void wait_for_previous_kernel() {}
inline void allow_next_kernel() {}
inline uint64_t evict_first_policy() { return 0; }

// Others run before a store and after a load, so that units are late and read again.
inline void store_unit(uint2* to, uint2 unit) {
  emulator::yield();
  emulator::progress();
  *to = unit;
}
inline void store_unit_if(bool condition, uint2* to, uint2 unit) {
  if (condition) {
    store_unit(to, unit);
  }
}
inline uint2 load_unit(uint2 const* from) {
  uint2 unit = *from;
  emulator::yield();
  return unit;
}
inline uint4 load_two_units(uint2 const* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16) {
    emulator::fail("two units that do not begin at a multiple of 16 bytes");
  }
  uint4 units = {from[0].x, from[0].y, from[1].x, from[1].y};
  emulator::yield();
  return units;
}

// Of csrc/mma.cuh. Types are known to the code that includes this, so these are templates.
template <class T>
float2 pair_values(uint32_t pair) {
  uint16_t halves[2] = {uint16_t(pair), uint16_t(pair >> 16)};
  T values[2];
  std::memcpy(values, halves, 4);
  return {float(values[0]), float(values[1])};
}

template <class T>
uint32_t subtract(T, uint32_t a, uint32_t b) {
  float2 x = pair_values<T>(a), y = pair_values<T>(b);
  T values[2] = {T(x.x - y.x), T(x.y - y.y)};
  uint32_t pair;
  std::memcpy(&pair, values, 4);
  return pair;
}

// d[16, 8] += a · b as 32 lanes have them: of each of a's registers and b's, lane 4 g + t has row or
// column g and the t-th word; `dot` adds the products of two words.
template <class D, class Dot>
void multiply_words(D (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1, Dot dot) {
  uint64_t all[3][32];
  uint64_t const mine[3] = {uint64_t{a[1]} << 32 | a[0], uint64_t{a[3]} << 32 | a[2],
                            uint64_t{b1} << 32 | b0};
  for (int i = 0; i < 3; i++) {
    std::memcpy(all[i], emulator::exchange_in_warp(mine[i]), sizeof(all[i]));
  }
  for (int i = 0; i < 4; i++) {
    int row = lane_of_thread() / 4, column = lane_of_thread() % 4 * 2 + i % 2;
    for (int half = 0; half < 2; half++) {
      for (int t = 0; t < 4; t++) {
        d[i] = dot(uint32_t(all[half][4 * row + t] >> i / 2 * 32),
                   uint32_t(all[2][4 * column + t] >> half * 32), d[i]);
      }
    }
  }
}

// Lane 4 g + t has a[g, k], a[g + 8, k], a[g, k + 8], a[g + 8, k + 8] and b[k, g], b[k + 8, g] for
// k = 2 t and 2 t + 1, and gets the sums [g, k], [g + 8, k].
template <class T>
void multiply(T, float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_words(d, a, b0, b1, [](uint32_t left, uint32_t right, float sum) {
    float2 x = pair_values<T>(left), y = pair_values<T>(right);
    return sum + (x.x * y.x + x.y * y.y);
  });
}

template <class T>
void from_float8(T, uint32_t w, uint32_t (&pairs)[2]) {
  T values[4];
  for (int i = 0; i < 4; i++) {
    int byte = int(w >> 8 * i & 0xFF), exponent = byte >> 3 & 15, fraction = byte & 7;
    int power = exponent ? exponent - 10 : -9;
    float size = __builtin_ldexpf(float(exponent ? 8 + fraction : fraction), power);
    size = exponent == 15 && fraction == 7 ? __builtin_nanf("") : size;
    values[i] = T(byte & 0x80 ? -size : size);
  }
  std::memcpy(pairs, values, sizeof(pairs));
}

// Lane 4 g + t has four neighbours of each: a[g, k], a[g + 8, k], a[g, k + 16], a[g + 8, k + 16]
// and b[k, g], b[k + 16, g] for k = 4 t.
inline void multiply(
    int8_t, int (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
  multiply_words(d, a, b0, b1, [](uint32_t left, uint32_t right, int sum) {
    return __dp4a(int(left), int(right), sum);
  });
}

inline float approximate_exp2(float x) { return __builtin_exp2f(x); }
inline float approximate_reciprocal(float x) { return 1.0f / x; }

}  // namespace tripy
