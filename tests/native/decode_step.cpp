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

// Four inputs at a time as a step rounds them, and as its product gets them.
extern "C" void round_float8(
    float const* x, int count, float scale, uint8_t* bytes, uint16_t* halves) {
  DecodeStep step = {};
  step.in_scale = scale;
  step.inverse_in_scale = 1.0f / scale;
  for (int i = 0; i < count; i += 4) {
    float const four[4] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
    uint32_t word = tripy::to_float8(step, four), pairs[2];
    tripy::from_float8(__half(), word, pairs);
    std::memcpy(bytes + i, &word, 4);
    std::memcpy(halves + i, pairs, 8);
  }
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
extern "C" int tripy_decode_warps() { return tripy::kWarps; }
extern "C" int tripy_decode_copies() { return tripy::kCopies; }
