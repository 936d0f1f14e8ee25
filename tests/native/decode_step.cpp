// The kernel of csrc/decode_step.cu on a CPU.
#include "decode_kernel.cuh"
#include "decode_launch.cuh"

namespace {

template <class T, int Weights, int Width, int Quads>
void kernel(void* launch) {
  tripy::decode_step<T, Weights, Width, Quads>(*static_cast<DecodeLaunch*>(launch));
}

}  // namespace

extern "C" char const* run_decode_step(DecodeLaunch* launch, uint64_t seed) {
  auto entry = tripy::with_types(*launch, [&](auto type, auto weights) {
    return tripy::with_sizes(*launch, [=](auto width, auto quads) {
      return &kernel<decltype(type), decltype(weights)::value, width, quads>;
    });
  });
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
