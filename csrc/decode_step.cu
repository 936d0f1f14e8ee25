// The launch of the kernel in decode_kernel.cuh.
#include "decode_kernel.cuh"

namespace tripy {

template <class T, int Weights>
cudaError_t launch_decode(DecodeLaunch const& launch, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared);
  static_assert(kBytes <= kSharedBytes);
  cudaError_t error = cudaFuncSetAttribute(
      decode_step<T, Weights>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) {
    return error;
  }
  // All blocks wait for each other, so all must be there at once, or none.
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = launch.blocks;
  config.blockDim = kStepThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, decode_step<T, Weights>, launch);
}

template <class T>
cudaError_t launch_of_weights(DecodeLaunch const& launch, cudaStream_t stream) {
  switch (launch.weights) {
    case kInt8Weights:
      return launch_decode<T, kInt8Weights>(launch, stream);
    case kFloat8Weights:
      return launch_decode<T, kFloat8Weights>(launch, stream);
    case kInt4Weights:
      return launch_decode<T, kInt4Weights>(launch, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tripy

extern "C" int tripy_decode_step(DecodeLaunch const* launch, void* stream) {
  auto where = static_cast<cudaStream_t>(stream);
  return launch->type == kTypeFloat16 ? tripy::launch_of_weights<__half>(*launch, where)
                                      : tripy::launch_of_weights<__nv_bfloat16>(*launch, where);
}

extern "C" int tripy_decode_step_size() { return sizeof(DecodeStep); }
extern "C" int tripy_decode_launch_size() { return sizeof(DecodeLaunch); }
extern "C" int tripy_decode_warps() { return tripy::kWarps; }
extern "C" int tripy_decode_copies() { return tripy::kCopies; }
