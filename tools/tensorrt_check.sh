#!/usr/bin/env bash
# What TensorRT-RTX does on this machine's GPU: what "auto" chooses and says, and whether an engine
# that was built for the GPU runs and gives what eager gives.
#
#   tools/tensorrt_check.sh
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
"${PYTHON:-python3}" -m tripy
"${PYTHON:-python3}" - <<'PROGRAM'
import tempfile

import tripy as tp

linear = tp.Linear(64, 32, quant_dtype=tp.int8, weight_quant_dim=0)
linear.weight = tp.iota((32, 64), 1) / 32 - 1
linear.bias, linear.weight_scale, linear.input_scale = tp.ones((32,)), tp.full((32,), 0.01), 0.02
info = tp.InputInfo(((1, 4, 16), 64), tp.float32)
x = tp.iota((4, 64), 1) / 64
chosen = tp.compile(linear, args=[info])
print(chosen.report())
difference = abs(chosen(x).numpy() - linear(x).numpy()).max()
print(f"largest difference from eager: {difference}")
try:
    tp.compile(linear, args=[info], backend="tensorrt")
except tp.TripyException as error:
    print(error)
try:
    ahead = tp.compile(linear, args=[info], backend="tensorrt", target="sm_89")
    print(ahead.report())
    with tempfile.NamedTemporaryFile(suffix=".tripy") as file:
        ahead.save(file.name)
        tp.Executable.load(file.name)
except tp.TripyException as error:
    print(error)
PROGRAM
# Where an engine can run: every operation, and nanoGPT with its caches. Elsewhere, why not.
"${PYTHON:-python3}" -m pytest -q -rs tests/tensorrt/test_distributions.py
