"""Random graphs: eager and compiled execution agree on them, for known and for dynamic sizes.

    python -m tests.fuzz --count 2000          seeds 0 to 1999
    python -m tests.fuzz --seed 17 --print     one of them, step by step

A graph is drawn step by step (tests/fuzz_steps.py). Each step is run eagerly at once, for three
choices of the dynamic sizes, and kept only if it is accepted for all of them. What the compiled
function gives is then the very same, bit for bit, except behind an activation that a fused kernel
computes by itself: such values are marked as fuzzy, compared with a tolerance, and not rounded,
compared or divided by any further.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

import tripy as tp
from tests.helpers import plain

LARGEST = 3000  # Elements of one value.
SMALLEST_UNIT = {tp.float32: 2.0**-24, tp.float16: 2.0**-11, tp.bfloat16: 2.0**-8}
INPUT_TYPES = [tp.float32] * 8 + [tp.float16, tp.bfloat16, tp.int32, tp.int64, tp.int8, tp.bool]


class Step(NamedTuple):
    """Some values made from others.

    Attributes:
        text: How a person would write it, with ``{0}``, ``{1}``, … for the inputs.
        inputs: Which values it reads.
        run: Makes a tensor, or a list of them, from those values.
        fuzzy: Whether the results are fuzzy even if the inputs are not.
        product: Whether a result is a matrix product, with which an activation may be fused.
        after_layer: Whether it is a layer, or a layer and what may be fused with it.
    """

    text: str
    inputs: tuple[int, ...]
    run: Callable[..., Any]
    fuzzy: bool = False
    product: bool = False
    after_layer: bool = False


def flat(result: Any) -> list[tp.Tensor]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


class Program:
    """A random graph: inputs, steps and outputs, with eager values for three sets of sizes."""

    def __init__(self, seed: int, draw: Callable[[Program], Optional[Step]]) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.sizes = [
            {letter: int(self.rng.integers(low, 7)) for letter in "ABC"} for low in (2, 2, 1)
        ]
        for sizes in self.sizes:
            sizes["D"] = self.choose([1, sizes["A"]])  # Broadcasts with A, one way or another.
        self.shapes = [self._shape() for _ in range(int(self.rng.integers(1, 5)))]
        self.types = [self.choose(INPUT_TYPES) for _ in self.shapes]
        if self.rng.random() < 0.3:  # A cache, and what is written into it.
            self.shapes += [["A", 2, 7, 3], ["A", 2, self.choose(["C", 1, 2]), 3]]
            self.types += [self.choose(INPUT_TYPES[:10])] * 2
        self.arguments = [
            [self._data(shape, kind, sizes) for shape, kind in zip(self.shapes, self.types)]
            for sizes in self.sizes
        ]
        self.values = [list(each) for each in self.arguments]
        self.fuzzy = [False] * len(self.shapes)
        self.product = [False] * len(self.shapes)
        self.after_layer = [False] * len(self.shapes)
        self.steps: list[Step] = []
        wanted = int(self.rng.integers(1, 21))
        for _ in range(12 * wanted):
            if len(self.steps) == wanted:
                break
            step = draw(self)
            if step is not None:
                self._try(step)
        count = len(self.fuzzy)
        # All that nothing reads, so that no step is in vain, and sometimes more.
        read = {i for step in self.steps for i in step.inputs}
        others = self.rng.integers(0, count, self.choose([0, 0, 1, 2])).tolist()
        self.outputs = [i for i in range(count) if i not in read] + others

    def choose(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def _shape(self) -> list[Any]:
        rank = self.choose([0, 1, 1, 2, 2, 2, 2, 3, 3, 4])
        return [self.choose(["A", "A", "D", "B", 1, 3, 4]) for _ in range(rank)]

    def _data(self, shape: list[Any], kind: Any, sizes: dict[str, int]) -> tp.Tensor:
        known = [sizes.get(size, size) for size in shape]
        if kind is tp.bool:
            data = self.rng.random(known) < 0.5
        elif issubclass(kind, tp.floating):
            data = self.rng.integers(-8, 9, known) / 2
        else:
            data = self.rng.integers(-9, 10, known)
        return tp.cast(tp.Tensor(np.asarray(data, dtype=np.float32)), kind).eval()

    def pick(
        self,
        *kinds: Any,
        rank: Optional[int] = None,
        least: int = 0,
        exact: bool = False,
        fits: Callable[[tp.Tensor], bool] = lambda tensor: True,
    ) -> Optional[int]:
        """A value of some types and rank, rather a late one; None if there is none."""
        found = [
            i
            for i, tensor in enumerate(self.values[0])
            if tensor.dtype in kinds
            and (rank is None or tensor.rank == rank)
            and tensor.rank >= least
            and not (exact and self.fuzzy[i])
            and fits(tensor)
        ]
        if not found:
            return None
        if self.rng.random() < 0.6:
            found = found[-3:]
        return self.choose(found)

    def value(self, index: int) -> tp.Tensor:
        """A value for the first set of sizes."""
        return self.values[0][index]

    def _try(self, step: Step) -> None:
        results = []
        for values in self.values:
            try:
                made = [t.eval() for t in flat(step.run(*(values[i] for i in step.inputs)))]
            except tp.TripyException:
                return
            if any(np.prod(t.shape, dtype=np.int64) > LARGEST for t in made):
                return
            results.append(made)
        for values, made in zip(self.values, results):
            values += made
        fuzzy = step.fuzzy or any(self.fuzzy[i] for i in step.inputs)
        self.fuzzy += [fuzzy] * len(results[0])
        self.product += [step.product] * len(results[0])
        self.after_layer += [step.after_layer] * len(results[0])
        self.steps.append(step)

    def run(self, arguments: Sequence[tp.Tensor], outputs: Sequence[int]) -> list[tp.Tensor]:
        values = list(arguments)
        for step in self.steps:
            values += flat(step.run(*(values[i] for i in step.inputs)))
        return [values[i] for i in outputs]

    def compile(self, outputs: Sequence[int], dynamic: bool, level: int = 3) -> tp.Executable:
        def size(letter: Any) -> Any:
            known = self.sizes[0].get(letter, letter)
            return tp.NamedDimension(letter, 1, known, 8) if dynamic and known != letter else known

        infos = [
            tp.InputInfo([size(s) for s in shape], kind)
            for shape, kind in zip(self.shapes, self.types)
        ]
        return tp.compile(lambda *values: self.run(values, outputs), level, args=infos)

    def check(self, outputs: Optional[Sequence[int]] = None) -> set[str]:
        """Compare the compiled function with the eager values; the operations that it has."""
        outputs = self.outputs if outputs is None else outputs
        unfused = self.compile(outputs, dynamic=False, level=0)
        self._compare(unfused, outputs, 0, "level 0")
        self._compare(self.compile(outputs, dynamic=False), outputs, 0, "static")
        dynamic = self.compile(outputs, dynamic=True)
        for number in range(3):
            self._compare(dynamic, outputs, number, f"dynamic, {self.sizes[number]}")
        if self.seed % 4 == 0:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "function"
                dynamic.save(path)
                self._compare(tp.Executable.load(path), outputs, 1, "saved")
        return {node.op for node in unfused.graph.nodes() + dynamic.graph.nodes()}

    def _compare(self, fast: tp.Executable, outputs: Sequence[int], number: int, how: str) -> None:
        # Copies: a compiled function may write into a cache that it is given.
        arguments = [tp.Tensor(t.torch().clone(), dtype=t.dtype) for t in self.arguments[number]]
        results = flat(fast(*arguments))
        assert len(results) == len(outputs)
        for result, index in zip(results, outputs):
            expected = self.values[number][index]
            where = f"{how}: value {index}"
            assert result.dtype is expected.dtype, f"{where}: {result.dtype}, not {expected.dtype}"
            got, wanted = plain(result), plain(expected)
            assert got.shape == wanted.shape, f"{where}: shape {got.shape}, not {wanted.shape}"
            if self.fuzzy[index]:
                size = max(1.0, np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
                near = 64 * SMALLEST_UNIT.get(result.dtype, 0) * size
                np.testing.assert_allclose(got, wanted, 0, near, err_msg=where)
            else:
                np.testing.assert_array_equal(got, wanted, err_msg=where)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, sizes {self.sizes}"]
        for i, (shape, kind) in enumerate(zip(self.shapes, self.types)):
            lines.append(f"  v{i} = input {kind}[{', '.join(map(str, shape))}]")
        count = len(self.shapes)
        for step in self.steps:
            made = len(flat(step.run(*(self.values[0][i] for i in step.inputs))))
            names = ", ".join(f"v{count + i}" for i in range(made))
            kinds = ", ".join(t._value.type_text for t in self.values[0][count : count + made])
            fuzzy = "  (fuzzy)" if self.fuzzy[count] else ""
            text = step.text.format(*(f"v{i}" for i in step.inputs))
            lines.append(f"  {names} = {text} : {kinds}{fuzzy}")
            count += made
        return "\n".join([*lines, f"  return {', '.join(f'v{i}' for i in self.outputs)}"])

    def smallest_failure(self) -> str:
        """The first value alone that goes wrong, with what is said of it."""
        for index in range(len(self.shapes), len(self.fuzzy)):
            try:
                self.check([index])
            except Exception as error:
                return f"first wrong alone: v{index}: {str(error).strip().splitlines()[0]}"
        return "no value is wrong alone"


class Failure(AssertionError):
    """A graph on which eager and compiled execution differ, and how to run it again."""


def program_of(seed: int) -> Program:
    """The graph of a seed."""
    # Here, since the steps need this module's names.
    steps = importlib.import_module("tests.fuzz_steps")
    importlib.import_module("tests.fuzz_shapes")
    return Program(seed, steps.draw)


def check_seed(seed: int) -> set[str]:
    """Draw and check one graph.

    Returns:
        The operations that it has.

    Raises:
        Failure: With the graph and the command that runs it again.
    """
    program = program_of(seed)
    try:
        return program.check()
    except Exception as error:
        raise Failure(
            f"{error}\n{program}\n{program.smallest_failure()}\n"
            f"again: python -m tests.fuzz --seed {seed} --print"
        ) from error


def asked_for(description: str) -> tuple[range, bool]:
    """What the command line asks for: the seeds, and whether to print the graphs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=100, help="how many graphs")
    parser.add_argument("--seed", type=int, help="one graph only")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--print", action="store_true", dest="show", help="print the graphs")
    options = parser.parse_args()
    if options.seed is not None:
        return range(options.seed, options.seed + 1), options.show
    return range(options.first, options.first + options.count), options.show


def main() -> int:
    seeds, show = asked_for("Compare eager and compiled random graphs.")
    seen: set[str] = set()
    failed = []
    for seed in seeds:
        if show:
            print(program_of(seed))
        try:
            seen |= check_seed(seed)
        except Failure as failure:
            failed.append(seed)
            print(f"seed {seed} FAILED\n{failure}\n", flush=True)
    print(f"seeds {seeds.start} to {seeds.stop - 1}: {len(seeds) - len(failed)} graphs agree, "
          f"{len(failed)} do not {failed or ''}; {len(seen)} operations seen")  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    # Under its own name, so that the steps find the same classes.
    sys.exit(importlib.import_module("tests.fuzz").main())
