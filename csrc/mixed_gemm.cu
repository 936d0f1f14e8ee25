// Which kernels run a layer, by types. They are built in files of their own.
#include "mixed_gemm.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace tripy {

template <int Kind, class X>
cudaError_t mixed_gemm_of(MixedGemm const& problem, cudaStream_t stream);

template <int Kind>
static cudaError_t mixed_gemm_from(MixedGemm const& problem, cudaStream_t stream) {
  switch (problem.x_type) {
    case kTypeFloat16:
      return mixed_gemm_of<Kind, __half>(problem, stream);
    case kTypeBFloat16:
      return mixed_gemm_of<Kind, __nv_bfloat16>(problem, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tripy

extern "C" int tripy_mixed_gemm(MixedGemm const* problem, void* stream) {
  auto where = static_cast<cudaStream_t>(stream);
  switch (problem->weight_kind) {
    case kWeightInt8:
      return tripy::mixed_gemm_from<kWeightInt8>(*problem, where);
    case kWeightInt4:
      return tripy::mixed_gemm_from<kWeightInt4>(*problem, where);
    case kWeightFloat8:
      return tripy::mixed_gemm_from<kWeightFloat8>(*problem, where);
    default:
      return cudaErrorInvalidValue;
  }
}

extern "C" int tripy_mixed_gemm_size() { return sizeof(MixedGemm); }
