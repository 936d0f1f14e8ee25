// Which types there are.
#include "scaled_gemm.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace tripy {

template <class In>
static cudaError_t scaled_gemm_from(ScaledGemm const& problem, cudaStream_t stream) {
  switch (problem.out_type) {
    case kTypeFloat32:
      return scaled_gemm_of<In, float>(problem, stream);
    case kTypeFloat16:
      return scaled_gemm_of<In, __half>(problem, stream);
    case kTypeBFloat16:
      return scaled_gemm_of<In, __nv_bfloat16>(problem, stream);
    default:
      return problem.out_type == problem.in_type ? scaled_gemm_of<In, In>(problem, stream)
                                                 : cudaErrorInvalidValue;
  }
}

}  // namespace tripy

extern "C" int tripy_scaled_gemm(ScaledGemm const* problem, void* stream) {
  auto run = problem->in_type == kTypeInt8 ? tripy::scaled_gemm_from<int8_t>
                                           : tripy::scaled_gemm_from<__nv_fp8_e4m3>;
  return run(*problem, static_cast<cudaStream_t>(stream));
}

extern "C" int tripy_scaled_gemm_size() { return sizeof(ScaledGemm); }
