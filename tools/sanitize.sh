#!/usr/bin/env bash
# NVIDIA's compute-sanitizer on small cases of every kernel, the native ones and Triton's: memcheck
# (out of bounds, misaligned) and racecheck (shared memory). Needs a GPU of compute capability 9.0,
# the library (make native) and compute-sanitizer, of the CUDA toolkit. Exit status 0: all is clean.
#
#   tools/sanitize.sh [TOOL[:GROUP] ...]
#
# A group of cases is one of tools/sanitize_cases.py; without one all run, each in a process of its
# own, so that one that hangs (SECONDS_EACH, default 120) or fails spares the others. They run at
# the same time: most of it is work of one core. PYTHON names the interpreter (default python3).
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Each tensor is an allocation of its own, whose end memcheck then knows.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
groups="products few_rows many_rows decode_step layers norms attention rows_of_tables generation"
said=$(mktemp -d) || exit 1
trap 'rm -rf "$said"' EXIT

# One tool on one group; PyTorch's own kernels make the data and are not looked at.
check() {
    timeout -k 10 "${SECONDS_EACH:-120}" compute-sanitizer --tool "$1" \
        --kernel-name-exclude kernel_substring=at6native --print-limit 10 \
        --error-exitcode 9 "${PYTHON:-python3}" tools/sanitize_cases.py "$2" >"$said/$1.$2" 2>&1
    local code=$?
    echo "$1, $2: exit status $code" >>"$said/$1.$2"
    return $code
}

[ $# -gt 0 ] || set -- memcheck racecheck
processes=()
for each in "$@"; do
    name=${each%%:*}
    [[ "$each" == *:* ]] && chosen=${each#*:} || chosen=$groups
    for group in $chosen; do
        check "$name" "$group" &
        processes+=($!)
    done
done
status=0
for process in "${processes[@]}"; do
    wait "$process" || status=1
done
cat "$said"/*
exit $status
