// Products of matrices, by the type of the inputs (int8_t, __nv_fp8_e4m3) and of the output.
#pragma once

#include "api.h"

namespace tripy {

template <class In, class Out>
cudaError_t scaled_gemm_of(ScaledGemm const& problem, cudaStream_t stream);

}  // namespace tripy
