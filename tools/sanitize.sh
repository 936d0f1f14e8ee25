#!/usr/bin/env bash
# NVIDIA's compute-sanitizer on the native matrix products: memcheck (out of bounds, misaligned) and
# racecheck (shared memory). Needs a GPU of compute capability 9.0, the library (make native) and
# compute-sanitizer, of the CUDA toolkit. Exit status 0: both are clean.
#
#   tools/sanitize.sh [TOOL...]
#
# PYTHON names the interpreter (default python3).
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# Each tensor is an allocation of its own, whose end memcheck then knows.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
status=0
[ $# -gt 0 ] || set -- memcheck racecheck
for name in "$@"; do
    compute-sanitizer --tool "$name" --kernel-name kernel_substring=scaled_gemm \
        --error-exitcode 9 "${PYTHON:-python3}" tools/sanitize_cases.py
    code=$?
    echo "$name: exit status $code"
    [ $code -eq 0 ] || status=1
done
exit $status
