#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: tests on the device, all tests as they are
# (another PyTorch, another Python), the example on the device, and the CPU benchmark there.
# Results go to the folder given, or ./gpu-results.
#
#   tools/gpu_check.sh [FOLDER]
#
# PYTHON names the interpreter (default python3); it needs torch with CUDA, and the test tools.
set -u
out=${1:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$out"
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TRIPY_VERIFY=1 PYTHONUNBUFFERED=1

"$python" -c 'import torch, platform; print(platform.python_version(), torch.__version__, torch.cuda.get_device_name())'
TRIPY_DEVICE=gpu timeout 200 "$python" -m pytest tests/nn tests/ops tests/test_tensor.py tests/test_device.py \
    -q -n 8 -p no:cacheprovider -p no:benchmark >"$out/tests-gpu.txt" 2>&1
echo "tests on the GPU: exit status $?"; tail -n 3 "$out/tests-gpu.txt"
timeout 200 "$python" -m pytest tests -q -n 8 -p no:cacheprovider -p no:benchmark \
    --ignore tests/examples >"$out/tests-cpu.txt" 2>&1
echo "tests on the CPU of that machine: exit status $?"; tail -n 3 "$out/tests-cpu.txt"
for mode in none int8 int8-weight-only int4-weight-only float8; do
    TRIPY_DEVICE=gpu timeout 60 "$python" examples/nanogpt/example.py --quant-mode "$mode" \
        --max-new-tokens 60 >"$out/example-$mode.txt" 2>&1
    echo "example on the GPU, $mode: exit status $?"
done
OMP_NUM_THREADS=2 timeout 150 taskset -c 0,1 "$python" benchmarks/cpu_gpt2.py --rounds 7 >"$out/cpu_gpt2.txt" 2>&1
echo "CPU benchmark: exit status $?"; grep -v '^{' "$out/cpu_gpt2.txt"
