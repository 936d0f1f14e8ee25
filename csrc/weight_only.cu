// Which kernels run a layer, by types. They are built in files of their own.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "weight_only.h"

namespace tripy {

template <int Kind, class X>
cudaError_t launch_rows(WeightOnly const& problem, cudaStream_t stream);

template <int Kind>
cudaError_t launch_kind(WeightOnly const& problem, cudaStream_t stream) {
  switch (problem.compute_type) {
    case kTypeFloat16:
      return launch_rows<Kind, __half>(problem, stream);
    case kTypeBFloat16:
      return launch_rows<Kind, __nv_bfloat16>(problem, stream);
    case kTypeInt8:
      if constexpr (Kind != kWeightFloat8) {
        return launch_rows<Kind, int8_t>(problem, stream);
      }
      return cudaErrorInvalidValue;
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tripy

extern "C" int tripy_weight_only(WeightOnly const* problem, void* stream) {
  auto where = static_cast<cudaStream_t>(stream);
  switch (problem->weight_kind) {
    case kWeightInt8:
      return tripy::launch_kind<kWeightInt8>(*problem, where);
    case kWeightInt4:
      return tripy::launch_kind<kWeightInt4>(*problem, where);
    case kWeightFloat8:
      return tripy::launch_kind<kWeightFloat8>(*problem, where);
    default:
      return cudaErrorInvalidValue;
  }
}

extern "C" int tripy_weight_only_size() { return sizeof(WeightOnly); }
