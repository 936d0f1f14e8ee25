"""What tests share: random tensors, references, and one check for eager and compiled execution.

``check`` is how an operation is tested: it runs a function eagerly, compiled for the very shapes of
its inputs, and compiled for ranges of shapes, and compares each with a reference in numpy.
"""

from __future__ import annotations

import contextlib
import linecache
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Union

import numpy as np
import pytest
import torch
from hypothesis import settings

import tripy as tp
from tripy import dtypes

F = (tp.float32, tp.float16, tp.bfloat16)
I = (tp.int32, tp.int64)  # noqa: E741  (the reference's short form)
ALL = (*F, tp.float8, tp.int4, tp.int8, *I, tp.bool)
_SHORT = {
    "F": F, "I": I, "f8": (tp.float8,), "i8": (tp.int8,), "i4": (tp.int4,), "b": (tp.bool,),
    "any": ALL, **{kind.name: (kind,) for kind in ALL},
}  # fmt: skip

# How far the last step of a computation rounds: half the distance between two neighbours of 1.
ROUNDING = {tp.float32: 2.0**-24, tp.float16: 2.0**-11, tp.bfloat16: 2.0**-8, tp.float8: 2.0**-4}

TORCH = {
    tp.float32: torch.float32, tp.float16: torch.float16, tp.bfloat16: torch.bfloat16,
    tp.float8: torch.float8_e4m3fn, tp.int4: torch.int8, tp.int8: torch.int8,
    tp.int32: torch.int32, tp.int64: torch.int64, tp.bool: torch.bool,
}  # fmt: skip

# All finite values of E4M3, from its definition: 1 sign, 4 exponent (bias 7), 3 mantissa bits.
_POSITIVE = [
    (1 + m / 8) * 2.0 ** (e - 7) if e else m / 8 * 2.0**-6 for e in range(16) for m in range(8)
][:-1]  # The last code is NaN.
E4M3 = np.array(sorted({*_POSITIVE, *(-v for v in _POSITIVE)}))


def types_of(short: str) -> tuple[Any, ...]:
    """The data types of a short form such as ``"F i8 I b"``, as in the API's tables."""
    return tuple(kind for part in short.split() for kind in _SHORT[part])


def is_accepted_cast(source: Any, target: Any) -> bool:
    """Whether the API has a cast between two data types."""
    refused = {
        (tp.float8, tp.int8), (tp.int8, tp.float8), (tp.float8, tp.int4), (tp.int4, tp.float8),
        (tp.int4, tp.int8), (tp.int4, tp.int64),
    }  # fmt: skip
    return (source, target) not in refused


def where() -> tp.device:
    """The device that tests run on: TRIPY_DEVICE, else the CPU."""
    return tp.device(os.environ.get("TRIPY_DEVICE", "cpu"))


def plain(tensor: Any) -> np.ndarray:
    """A tensor's values as a numpy array: float64 for all floating-point types."""
    array = tensor.torch().cpu() if isinstance(tensor, tp.Tensor) else tensor
    return (array.double() if array.dtype.is_floating_point else array).numpy()


def values(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Random values that a data type holds exactly: extremes of integers, ties, zeros."""
    shape = tuple(shape)
    if dtype is tp.bool:
        return rng.random(shape) < 0.5
    if dtype is tp.float8:
        return rng.choice(E4M3, shape)
    if issubclass(dtype, tp.integer):
        low, high = dtypes.INTEGER_RANGE[dtype]
        low, high = max(low, -1000), min(high, 1000)
        return rng.integers(low, high + 1, shape)
    array = rng.normal(size=shape) * 3
    array = np.where(rng.random(shape) < 0.3, np.round(array * 2) / 2, array)
    return torch.from_numpy(np.asarray(array)).to(TORCH[dtype]).double().numpy()


def tensor(array: Any, dtype: Any) -> tp.Tensor:
    """A tripy tensor of numpy values, on the device that tests run on."""
    data = torch.from_numpy(np.array(array)).to(TORCH[dtype])
    return tp.Tensor(data, dtype=dtype, device=where())


def randn(rng: np.random.Generator, shape: Sequence[int], dtype: Any = tp.float32) -> tp.Tensor:
    """A random tensor; see :func:`values`."""
    return tensor(values(rng, shape, dtype), dtype)


def assert_close(
    result: Any,
    expected: Any,
    dtype: Any,
    *,
    rtol: Optional[float] = None,
    atol: float = 0.0,
    rounds: int = 1,
) -> None:
    """A tensor's data type and shape, and its values: exactly for integers and bools.

    Floating-point results may differ by ``rtol`` times the value plus ``atol``. By default that is
    ``rounds`` roundings to the data type, with room for a few operations in float32.
    """
    assert isinstance(result, tp.Tensor), f"got {type(result).__name__}, expected a Tensor"
    assert result.dtype is dtype, f"got {result.dtype}, expected {dtype}"
    got, expected = plain(result), np.asarray(expected)
    assert got.shape == tuple(int(s) for s in result.shape)
    assert got.shape == expected.shape, f"got shape {got.shape}, expected {expected.shape}"
    if not issubclass(dtype, tp.floating):
        np.testing.assert_array_equal(got, expected)
        return
    if rtol is None:
        rtol = rounds * ROUNDING[dtype] + 20 * ROUNDING[tp.float32]
    expected = expected.astype(np.float64)
    end = dtypes.FLOAT_END.get(dtype, float("inf"))
    expected = np.where(np.abs(expected) >= end, np.copysign(np.inf, expected), expected)
    smallest = {tp.float16: 2.0**-24, tp.float8: 2.0**-9}.get(dtype, 2.0**-126)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=max(atol, smallest))


Results = Union[tp.Tensor, Sequence[tp.Tensor]]


def _sequence(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (list, tuple)) else [results]


def check(
    function: Callable[..., Results],
    *tensors: tp.Tensor,
    reference: Any,
    dtype: Any = None,
    rtol: Optional[float] = None,
    atol: float = 0.0,
    rounds: int = 1,
    compiled: bool = True,
    dynamic: bool = True,
) -> None:
    """Test a function eagerly, compiled for its inputs' shapes, and compiled for ranges of shapes.

    Args:
        function: Takes the tensors; gives a tensor or a tuple of them.
        tensors: The inputs.
        reference: The expected values, or a function from the inputs' numpy values to them; a
            tuple for several results.
        dtype: The results' data type, or one for each; by default the first input's.
        rtol: See :func:`assert_close`.
        atol: See :func:`assert_close`.
        rounds: See :func:`assert_close`.
        compiled: Whether to compile it; a function that looks at values cannot be.
        dynamic: Whether to compile it for ranges of shapes; a function that makes decisions from
            sizes cannot be.
    """
    if callable(reference):
        with np.errstate(all="ignore"):
            reference = reference(*(plain(t) for t in tensors))
    expected = list(reference) if isinstance(reference, (list, tuple)) else [reference]
    kinds = list(dtype) if isinstance(dtype, (list, tuple)) else [dtype] * len(expected)
    kinds = [tensors[0].dtype if kind is None else kind for kind in kinds]

    def compare(results: Any, how: str) -> None:
        results = _sequence(results)
        assert len(results) == len(expected), f"{how}: {len(results)} results"
        for got, wanted, kind in zip(results, expected, kinds):
            try:
                assert_close(got, wanted, kind, rtol=rtol, atol=atol, rounds=rounds)
            except AssertionError as error:
                raise AssertionError(f"{how}: {error}") from error

    compare(function(*tensors), "eager")
    if not compiled:
        return
    compare(compile_for(function, tensors, dynamic=False)(*tensors), "compiled")
    if dynamic and any(t.rank for t in tensors):
        compare(compile_for(function, tensors, dynamic=True)(*tensors), "compiled, dynamic")


def compile_for(
    function: Callable, tensors: Sequence[tp.Tensor], dynamic: bool, **options: Any
) -> Any:
    """A function compiled for tensors of these shapes, or of a range around each size."""

    def bounds(size: int) -> Any:
        return (min(size, 1), size, size + 3) if dynamic else size

    names = [f"argument{i}" for i in range(len(tensors))]
    # Written out, since the compiler asks the function for its signature.
    scope: dict[str, Any] = {"function": function}
    exec(f"def run({', '.join(names)}): return function({', '.join(names)})", scope)
    infos = [tp.InputInfo([bounds(int(s)) for s in t.shape], t.dtype) for t in tensors]
    return tp.compile(scope["run"], args=infos, device=where(), **options)


@contextlib.contextmanager
def raises(match: str, line: Optional[str] = None) -> Iterator[pytest.ExceptionInfo]:
    """Inside it, a TripyException whose message matches and shows the user's own line.

    Args:
        match: A regular expression that the message contains.
        line: A piece of the source line that the message has to show; by default the line outside
            of tripy that was running.
    """
    with pytest.raises(tp.TripyException, match=match) as caught:
        yield caught
    message = str(caught.value)
    package, of_torch = (os.path.dirname(module.__file__) + os.sep for module in (tp, torch))
    if line is None:
        place = None
        trace = caught.value.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            # Such as torch.from_dlpack; systems keep torch in folders of other names, too.
            of_a_library = f"{os.sep}site-packages{os.sep}" in file or file.startswith(of_torch)
            if not file.startswith(package) and file != __file__ and not of_a_library:
                place = (file, trace.tb_lineno)
            trace = trace.tb_next
        assert place is not None
        line = linecache.getline(*place).strip()
        assert line, place
    assert line in message, f"the message does not show the line {line!r}:\n{message}"
    assert "^" in message, f"the message has no caret:\n{message}"
    assert package not in message, f"the message shows a line of the library:\n{message}"


def once(function: Callable) -> Callable:
    """One example of a hypothesis test is enough."""
    return settings(max_examples=1)(function)
