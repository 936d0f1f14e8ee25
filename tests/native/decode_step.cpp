// The kernel of csrc/decode_step.cu on a CPU.
#include "decode_kernel.cuh"

namespace {

template <class T, int Weights>
void kernel(void* launch) {
  tripy::decode_step<T, Weights>(*static_cast<DecodeLaunch*>(launch));
}

template <class T>
auto kernel_for(int weights) {
  return weights == kFloat8Weights ? kernel<T, kFloat8Weights>
         : weights == kInt4Weights ? kernel<T, kInt4Weights>
                                   : kernel<T, kInt8Weights>;
}

}  // namespace

extern "C" char const* run_decode_step(DecodeLaunch* launch, uint64_t seed) {
  auto entry = launch->type == kTypeFloat16 ? kernel_for<__half>(launch->weights)
                                            : kernel_for<__nv_bfloat16>(launch->weights);
  return emulator::run(
      entry, launch, launch->blocks, tripy::kStepThreads, sizeof(tripy::Shared), seed);
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
extern "C" int tripy_decode_warps() { return tripy::kWarps; }
extern "C" int tripy_decode_copies() { return tripy::kCopies; }
