// Values that the blocks of one kernel hand to each other, without a barrier of all of them.
//
// A value travels with the number of the launch that wrote it, in one store of 8 bytes. Whoever
// needs it reads until the number is the present one: no fence, no second trip to a flag. (Other
// libraries send data between GPUs in this way, under the name "low latency protocol".) Each place
// is written once a launch, so nobody waits to write.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tripy {

struct Exchange {
  uint2* values;
  uint32_t launch;

  __device__ __forceinline__ void write(int at, float value) const {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(values + at),
                 "r"(__float_as_uint(value)), "r"(launch)
                 : "memory");
  }

  // Two neighbours, the first at an even place; whether both are there.
  __device__ __forceinline__ bool try_pair(int at, float2& pair) const {
    uint4 raw;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                 : "l"(values + at)
                 : "memory");
    pair = {__uint_as_float(raw.x), __uint_as_float(raw.z)};
    return raw.y == launch && raw.w == launch;
  }

  // A value's bits and the launch that wrote it, which may not be the present one.
  __device__ __forceinline__ uint2 raw(int at) const {
    uint2 result;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
                 : "=r"(result.x), "=r"(result.y)
                 : "l"(values + at)
                 : "memory");
    return result;
  }

  // An error instead of waiting forever, after some seconds: a block that ended without its work.
  __device__ __forceinline__ static void give_up(uint32_t tries) {
    if (tries > 1u << 24) {
      __trap();
    }
  }
};

}  // namespace tripy
