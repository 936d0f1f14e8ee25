#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command. Results go to the folder given, or
# ./gpu-results: a file for each step, and all of them one after the other in all.txt. Without
# further names all parts run, each in steps that are stopped when they take too long:
#
#   native      the native library is built, and its kernels and Triton's are tested on the device
#   sanitize    compute-sanitizer's memcheck and racecheck on all kernels
#   operations  tests of operations and modules on the device
#   example     the example on the device, in all modes
#   kernels     benchmarks of kernels: gpu_linear.py --quick, gpu_kernels.py
#   decode      benchmarks of whole models: gpu_decode_kernel.py, gpu_gpt2.py --quick, and 100,000
#               steps of generation
#   cpu         the whole suite and the CPU benchmark on that machine's processor
#
#   tools/gpu_check.sh [FOLDER [PART ...]]
#
# PYTHON names the interpreter (default python3); it needs torch with CUDA, and the test tools.
set -u
out=$(realpath -m "${1:-gpu-results}")
python=${PYTHON:-python3}
mkdir -p "$out"
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TRIPY_VERIFY=1 PYTHONUNBUFFERED=1

shift $(($# > 0 ? 1 : 0))
parts=" ${*:-native sanitize operations example kernels decode cpu} "
wanted() { [[ "$parts" == *" $1 "* ]]; }
# run SECONDS NAME COMMAND ...: its output to NAME.txt, the last lines of it here.
run() {
    local seconds=$1 name=$2 start=$SECONDS code
    shift 2
    timeout -k 10 "$seconds" "$@" >"$out/$name.txt" 2>&1
    code=$?
    [ $code -ne 124 ] || code="124 (stopped)"
    echo "$name: exit status $code, $((SECONDS - start)) s"
    { echo "=== $name: exit status $code, $((SECONDS - start)) s"; cat "$out/$name.txt"; } \
        >>"$out/all.txt"
    grep -v '^{' "$out/$name.txt" | tail -n "${LINES_SHOWN:-4}"
}
# A test that hangs says where, before its step is stopped.
pytest=("$python" -m pytest -q -p no:cacheprovider -p no:benchmark -o faulthandler_timeout=90)

LINES_SHOWN=1 run 60 machine "$python" -c 'import platform, torch
print(platform.python_version(), torch.__version__, torch.cuda.get_device_name())'
if wanted native; then
    run 300 build bash -c 'cmake -S . -B build/native -DTRIPY_NATIVE=ON &&
        cmake --build build/native --parallel "$(nproc)" --target install'
    # All files at once: most of the time goes into Triton's compiler, on one core for each process.
    # Left out are tests that only compile, which need no GPU.
    LINES_SHOWN=12 run 400 native "${pytest[@]}" -n 8 -k "not test_builds" \
        --ignore tests/backends/cuda/test_compiles.py \
        tests/backends/cuda tests/backends/test_cuda_graphs.py tests/test_generation_gpu.py
fi
if wanted sanitize; then
    for tool in memcheck racecheck; do
        SECONDS_EACH=200 LINES_SHOWN=16 run 290 "sanitize-$tool" tools/sanitize.sh "$tool"
    done
fi
if wanted operations; then
    TRIPY_DEVICE=gpu run 200 operations "${pytest[@]}" -n 8 \
        tests/nn tests/ops tests/test_tensor.py tests/test_device.py
fi
if wanted example; then
    for mode in none int8 int8-weight-only int4-weight-only float8; do
        run 120 "example-$mode" "$python" examples/nanogpt/example.py --device gpu \
            --quant-mode "$mode" --max-new-tokens 60 --evaluate
    done
fi
if wanted kernels; then
    LINES_SHOWN=60 run 200 gpu_linear "$python" benchmarks/gpu_linear.py --quick \
        --plot "$out/linear.png"
    LINES_SHOWN=60 run 200 gpu_kernels "$python" benchmarks/gpu_kernels.py
fi
if wanted decode; then
    LINES_SHOWN=12 run 120 gpu_decode_kernel "$python" benchmarks/gpu_decode_kernel.py \
        --modes int8 int8-weight-only int4-weight-only float8
    LINES_SHOWN=40 run 280 gpu_gpt2 "$python" benchmarks/gpu_gpt2.py --quick
    run 300 soak "$python" benchmarks/gpu_gpt2.py --soak 100000
fi
if wanted cpu; then
    run 300 tests-cpu "${pytest[@]}" -n 8 tests --ignore tests/examples --ignore tests/backends/cuda
    OMP_NUM_THREADS=2 LINES_SHOWN=30 run 150 cpu_gpt2 \
        taskset -c 0,1 "$python" benchmarks/cpu_gpt2.py --rounds 7
fi
