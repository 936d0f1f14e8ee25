#include "api.h"

extern "C" char const* tripy_error(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
