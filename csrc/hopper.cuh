// The instructions of compute capability 9.0a that CUDA C++ has no functions for, one a function.
//
// Reference: "PTX ISA", of NVIDIA: mbarrier, cp.async.bulk.tensor, griddepcontrol, setmaxnreg.
#pragma once

#ifdef TRIPY_EMULATOR  // Tests run some kernels on a CPU: tests/native/emulator.h.
#include TRIPY_EMULATOR
#else

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define TRIPY_HAS_HOPPER
#endif

namespace tripy {

__device__ __forceinline__ uint32_t shared_address(void const* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- mbarrier: a counter in shared memory of arrivals and of bytes that copies still owe.

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

// Makes initialized barriers visible to the copy engine and to the other blocks of the cluster.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Arrives at the barrier at the same place in the shared memory of block `rank` of the cluster. The
// order is the block's own: a wider one would flush caches, and what is handed over here, memory
// that the tensor cores have read, needs none.
__device__ __forceinline__ void barrier_arrive(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

// The same at a barrier of one's own block.
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase of this parity has completed. A new barrier is in phase 0, so that a wait
// for parity 1 returns at once.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra AGAIN;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- Clusters and the order of kernels.

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Between the two, what no other block waits for.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

// Orders no memory: others only wait to write over what this thread has read, or for barriers that a
// fence of their own has made visible.
__device__ __forceinline__ void cluster_arrive_unordered() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// The same place in the shared memory of block `rank` of the cluster.
__device__ __forceinline__ uint32_t remote_address(uint32_t shared, uint32_t rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
  return address;
}

// Sends four words to such an address; the barrier at another one is told of the bytes.
__device__ __forceinline__ void send(uint32_t to, uint32_t barrier, uint32_t const (&words)[4]) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];"
      ::"r"(to),
      "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]), "r"(barrier)
      : "memory");
}

// Waits for the kernel before this one in the stream, where this one was launched early
// (programmatic dependent launch); returns at once where it was not.
__device__ __forceinline__ void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

__device__ __forceinline__ void allow_next_kernel() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// ---- Tensor memory accelerator: copies of boxes between global and shared memory. Coordinates
// beyond the tensor read zero and write nothing.

__device__ __forceinline__ void prefetch_map(CUtensorMap const* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Into the L2 cache only. Nothing is read for good: what is written later is seen later.
__device__ __forceinline__ void prefetch_box(CUtensorMap const* map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map),
               "r"(column), "r"(row)
               : "memory");
}

__device__ __forceinline__ void copy_in(
    uint32_t shared, CUtensorMap const* map, int column, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same box into the same place of every block whose bit is set; each one's barrier is told.
__device__ __forceinline__ void copy_in_multicast(
    uint32_t shared, CUtensorMap const* map, int column, int row, uint32_t barrier,
    uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

__device__ __forceinline__ void copy_out(
    CUtensorMap const* map, int column, int row, uint32_t shared) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];\n"
      "cp.async.bulk.commit_group;" ::"l"(map),
      "r"(column), "r"(row), "r"(shared)
      : "memory");
}

// Waits until at most `Pending` of this thread's copies out still have to read shared memory.
template <int Pending>
__device__ __forceinline__ void copy_out_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

template <int Pending>
__device__ __forceinline__ void copy_out_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");
}

// ---- Plain runs of bytes, multiples of 16 but where a thread copies them itself.

__device__ __forceinline__ void copy_bytes_in(
    uint32_t shared, void const* from, int bytes, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(shared),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void prefetch_bytes(void const* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// From global to shared memory past the registers, so that a thread has any number on the way; only
// the first `size` bytes are read, the others are zeros.
template <int Bytes>
__device__ __forceinline__ void copy_async(uint32_t shared, void const* from, int size = Bytes) {
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from),
                 "n"(Bytes), "r"(size)
                 : "memory");
  }
}

// Waits for all of this thread's.
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Arrives at a barrier as soon as all of this thread's have come.
__device__ __forceinline__ void copy_async_arrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

// For a copy of what is not read again: it is the first to leave the L2 cache.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Orders this thread's ordinary writes to shared memory before the copy engine's reads.
__device__ __forceinline__ void shared_to_copy_engine_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- Units of 8 bytes in global memory that other blocks write meanwhile, each seen as a whole.

__device__ __forceinline__ void store_unit(uint2* to, uint2 unit) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(unit.x), "r"(unit.y)
               : "memory");
}

// The same without a branch, which takes longer than the store.
__device__ __forceinline__ void store_unit_if(bool condition, uint2* to, uint2 unit) {
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.s32 wanted, %3, 0;\n"
      "@wanted st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};\n"
      "}" ::"l"(to),
      "r"(unit.x), "r"(unit.y), "r"(int(condition))
      : "memory");
}

__device__ __forceinline__ uint2 load_unit(uint2 const* from) {
  uint2 unit;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
               : "=r"(unit.x), "=r"(unit.y)
               : "l"(from)
               : "memory");
  return unit;
}

// Two neighbours, of which the first is at a multiple of 16 bytes.
__device__ __forceinline__ uint4 load_two_units(uint2 const* from) {
  uint4 units;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(units.x), "=r"(units.y), "=r"(units.z), "=r"(units.w)
               : "l"(from)
               : "memory");
  return units;
}

// ---- Approximations of the special function unit, within about 2^-22.

__device__ __forceinline__ float approximate_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

__device__ __forceinline__ float approximate_reciprocal(float x) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return reciprocal;
}

// ---- Warps, registers and shared memory.

__device__ __forceinline__ void* dynamic_shared() {
  extern __shared__ __align__(1024) uint8_t memory[];
  return memory;
}

// A barrier of one group of `Threads` threads; barrier 0 is __syncthreads'.
template <int Threads>
__device__ __forceinline__ void group_sync(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(Threads) : "memory");
}

// Arrives at such a barrier without waiting there.
template <int Threads>
__device__ __forceinline__ void group_arrive(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(Threads) : "memory");
}

template <int Registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

}  // namespace tripy

#endif
