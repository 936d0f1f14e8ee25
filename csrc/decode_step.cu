// The library's functions around the kernels of decode_kernel.cuh.
#include "decode_launch.cuh"

extern "C" int tripy_decode_step(DecodeLaunch const* launch, void* stream) {
  // Each warp's first rows of a step are in the ring at once.
  if (launch->stages < tripy::kWarps || launch->stages > tripy::kMostStages || launch->in_flight < 1 ||
      launch->stages * launch->stage_bytes > tripy::kRingBytes || launch->stage_bytes % 128) {
    return cudaErrorInvalidValue;
  }
  return tripy::with_types(*launch, [&](auto type, auto weights) {
    return tripy::launch_decode<decltype(type), weights>(
        *launch, static_cast<cudaStream_t>(stream));
  });
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
extern "C" int tripy_decode_warps() { return tripy::kWarps; }
extern "C" int tripy_decode_copies() { return tripy::kCopies; }
extern "C" int tripy_decode_clocks() { return tripy::kClocks ? kMoments : 0; }
