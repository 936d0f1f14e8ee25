"""Random graphs, built as engines: their networks mean what eager does.

    python -m tests.tensorrt.fuzz --count 100          seeds 0 to 99
    python -m tests.tensorrt.fuzz --seed 17 --print    one of them, step by step

The graphs are those of tests/fuzz.py. Each is built for known and for dynamic sizes, and its
network computed by tests/tensorrt/network_interpreter.py. Where that says of a value that it hangs
on what TensorRT does not document, the graph is counted, and not compared.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch

import tripy as tp
from tests import fuzz
from tests.helpers import plain
from tests.tensorrt import network_interpreter
from tests.tensorrt.interpreter.values import Undocumented
from tests.tensorrt.support import drafted, reason_it_cannot

# Eager and the interpreter may each round the same sum in another order.
ROUNDINGS = 64


def compiled(program: fuzz.Program, outputs: Sequence[int], dynamic: bool) -> tp.Executable:
    """The function of a random graph, as an engine for a GPU that need not be there."""

    def size(letter: object) -> object:
        known = program.sizes[0].get(letter, letter)
        return tp.NamedDimension(letter, 1, known, 8) if dynamic and known != letter else known

    infos = [
        tp.InputInfo([size(s) for s in shape], kind)
        for shape, kind in zip(program.shapes, program.types)
    ]
    return tp.compile(
        lambda *values: program.run(values, outputs),
        args=infos,
        backend="tensorrt",
        target="sm_89",
    )


def compare(program: fuzz.Program, outputs: Sequence[int], dynamic: bool) -> None:
    """Build an engine, and compute its network for each choice of sizes."""
    executable = compiled(program, outputs, dynamic)
    made = drafted(executable)
    for number in range(3 if dynamic else 1):
        where = f"dynamic, {program.sizes[number]}" if dynamic else "static"
        arguments = program.arguments[number]
        inputs = {name: t.torch() for name, t in zip(made.names.inputs, arguments)}
        for symbol, name in made.names.sizes.items():
            inputs[name] = torch.tensor([program.sizes[number][symbol]], dtype=torch.int64)
        results = network_interpreter.run(made.net.trt, made.net.raw, inputs)
        for name, index in zip(made.names.outputs, outputs, strict=True):
            agree(results[name], program.values[number][index], f"{where}: value {index}")


def agree(result: torch.Tensor, expected: tp.Tensor, where: str) -> None:
    """Compare a value with eager's: the integers and bools exactly, others up to rounding."""
    got, wanted = plain(result), plain(expected)
    assert got.shape == wanted.shape, f"{where}: shape {got.shape}, not {wanted.shape}"
    size = max(1.0, np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    near = ROUNDINGS * fuzz.SMALLEST_UNIT.get(expected.dtype, 0) * size
    np.testing.assert_allclose(got, wanted, 0, near, err_msg=where)


def check(program: fuzz.Program, outputs: Optional[Sequence[int]] = None) -> str:
    """Check one graph.

    Returns:
        What came of it: "agrees", "undocumented", or the documented reason for refusing it.
    """
    outputs = program.outputs if outputs is None else outputs
    try:
        for dynamic in (False, True):
            compare(program, outputs, dynamic)
    except (Undocumented, OverflowError):
        return "undocumented"
    except tp.TripyException as error:
        reason = reason_it_cannot(str(error))
        if not reason:
            raise
        return reason
    return "agrees"


def first_failure(program: fuzz.Program) -> str:
    """The first value that goes wrong alone, with what is said of it."""
    for index in range(len(program.shapes), len(program.fuzzy)):
        try:
            check(program, [index])
        except Exception as error:
            return f"first wrong alone: v{index}: {str(error).strip()}"
    return "no value is wrong alone"


def main() -> int:
    seeds, show = fuzz.asked_for("Compare eager with TensorRT's networks.")
    found: Counter = Counter()
    for seed in seeds:
        program = fuzz.program_of(seed)
        if show:
            print(program)
        try:
            found[check(program)] += 1
        except Exception as error:
            found["WRONG"] += 1
            print(f"seed {seed} FAILED\n{error}\n{program}\n{first_failure(program)}\n", flush=True)
    print(f"seeds {seeds.start} to {seeds.stop - 1}: {dict(found)}")
    return 1 if found["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
