// The kernels of csrc/weight_only.cu on a CPU.
#include "weight_dispatch.cuh"

namespace tripy {
namespace {

uint64_t seed = 1;
char const* failed = "";

struct Map {
  emulator::Box box;
  int element;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

CUtensorMap make_map(void const* data, int rows, int row_bytes, int box_rows, int element) {
  CUtensorMap map = {};
  Map known = {{static_cast<uint8_t const*>(data), rows, row_bytes, box_rows}, element};
  memcpy(&map, &known, sizeof(known));
  return map;
}

// As launch_blocks() in csrc/weight_launch.cuh, but one part of the rows of x after the other.
template <class Launch>
cudaError_t run(WeightOnly const& p, int outputs, int threads, int bytes, Launch launch) {
  int of_cluster = outputs * p.cluster, clusters = (p.n + of_cluster - 1) / of_cluster;
  int blocks = (clusters + p.passes - 1) / p.passes * p.cluster;
  for (int first = 0; first < p.m; first += p.rows_at_once) {
    launch.set(p, first);
    failed = emulator::run(
        [](void* argument) { static_cast<Launch*>(argument)->run(); }, &launch, blocks, threads,
        bytes, seed++, p.cluster);
    if (failed[0] != 0) {
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

// The rows from `first` on.
WeightOnly part_of(WeightOnly p, int first) {
  auto of = [&](void const* data, int type, int columns) {
    int const bytes[] = {4, 2, 2, 1, 1};
    auto start = static_cast<uint8_t const*>(data);
    return start == nullptr ? nullptr : start + int64_t{first} * columns * bytes[type];
  };
  p.x = of(p.x, p.x_type, p.k);
  p.residual = of(p.residual, p.result_type, p.n);
  p.out = const_cast<uint8_t*>(of(p.out, p.out_type, p.n));
  p.m = p.m - first < p.rows_at_once ? p.m - first : p.rows_at_once;
  return p;
}

template <class C>
struct Resident {
  CUtensorMap map;
  WeightOnly p;

  void set(WeightOnly const& all, int first) {
    p = part_of(all, first);
    map = make_map(p.weight, p.n, p.row_bytes, C::kOutputs, 1);
  }
  void run() { weight_only<C>(map, p); }
};

template <class C>
struct Streamed {
  CUtensorMap weights, x;
  WeightOnly p;

  void set(WeightOnly const& all, int first) {
    constexpr int kElement = sizeof(typename C::X);
    p = part_of(all, first);
    weights = make_map(p.weight, p.n, p.row_bytes, C::kOutputs, 1);
    x = make_map(p.x, p.m, p.k * kElement, C::kRows, kElement);
  }
  void run() { weight_stream<C>(weights, x, p); }
};

}  // namespace

template <class C>
cudaError_t launch_weight(WeightOnly const& p, cudaStream_t) {
  return run(p, C::kOutputs * C::kGroups, C::kThreads, WeightLayout::of<C>(p).bytes, Resident<C>());
}

template <class C>
cudaError_t launch_stream(WeightOnly const& p, cudaStream_t) {
  return run(p, C::kOutputs, C::kThreads, StreamLayout::of<C>(p).bytes, Streamed<C>());
}

}  // namespace tripy

// Each kind of weight and each type to multiply in, but not each pair of them, which takes minutes.
extern "C" int tripy_weight_only(WeightOnly const* problem, void*) {
  int kind = problem->weight_kind, type = problem->compute_type;
  if (kind == kWeightInt4 && type == kTypeFloat16) {
    return tripy::launch_rows<kWeightInt4, __half>(*problem, nullptr);
  }
  if (kind == kWeightInt8 && type == kTypeBFloat16) {
    return tripy::launch_rows<kWeightInt8, __nv_bfloat16>(*problem, nullptr);
  }
  if (kind == kWeightFloat8 && type == kTypeFloat16) {
    return tripy::launch_rows<kWeightFloat8, __half>(*problem, nullptr);
  }
  if (kind == kWeightInt4 && type == kTypeInt8) {
    return tripy::launch_rows<kWeightInt4, int8_t>(*problem, nullptr);
  }
  return cudaErrorInvalidValue;
}

extern "C" char const* tripy_error(int) { return tripy::failed; }
