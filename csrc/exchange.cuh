// Values that the blocks of one kernel hand to each other, without a barrier of all of them.
//
// A unit is 8 bytes: 4 of values (two floating-point ones of 16 bits, four of int8, or a float32)
// and the number of the launch that wrote it. Whoever needs it reads until the number is the
// present one: no fence, no second trip to a flag. (Other libraries send data between GPUs in this
// way, under the name "low latency protocol".) Each unit is written once a launch, so nobody waits to
// write.
#pragma once

#include "hopper.cuh"

namespace tripy {

// Of all units; each block reads one of them. While units are written, fewer blocks then ask for
// the same lines of the L2 cache: of 132 blocks that wait for 384 units all see them 8% earlier
// than with one copy, and later again with more than four.
constexpr int kCopies = 4;

struct Exchange {
  uint2* units;     // of the copy that this block reads
  uint2* all;       // copies
  int copy_units;
  uint32_t launch;

  // Into one copy. As many lanes as there are copies have the value, and write one each.
  __device__ __forceinline__ void write(int at, uint32_t value, int copy) const {
    store_unit(all + int64_t{copy} * copy_units + at, {value, launch});
  }

  // Two neighbours, the first at an even place; whether both are there.
  __device__ __forceinline__ bool try_two(int at, uint2& values) const {
    uint4 raw = load_two_units(units + at);
    values = {raw.x, raw.z};
    return raw.y == launch && raw.w == launch;
  }

  // A unit's values and the launch that wrote it, which may not be the present one.
  __device__ __forceinline__ uint2 raw(int at) const { return load_unit(units + at); }

  // An error instead of waiting forever, after some seconds: a block that ended without its work.
  __device__ __forceinline__ static void give_up(uint32_t tries) {
    if (tries > 1u << 24) {
      __trap();
    }
  }
};

}  // namespace tripy
