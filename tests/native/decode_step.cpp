// The kernel of csrc/decode_step.cu on a CPU.
#include "decode_kernel.cuh"

namespace {

template <class T>
void kernel(void* launch) {
  tripy::decode_step<T>(*static_cast<DecodeLaunch*>(launch));
}

}  // namespace

extern "C" char const* run_decode_step(DecodeLaunch* launch, uint64_t seed) {
  auto entry = launch->type == kTypeFloat16 ? kernel<__half> : kernel<__nv_bfloat16>;
  return emulator::run(
      entry, launch, launch->blocks, tripy::kStepThreads, sizeof(tripy::Shared), seed);
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
extern "C" int tripy_decode_warps() { return tripy::kWarps; }
extern "C" int tripy_decode_copies() { return tripy::kCopies; }
