"""JAX's arrays, in and out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.interop.support import CPU, IN_DLPACK, VALUES, VIEWS, address, sample

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("dtype", IN_DLPACK, ids=str)
def test_jax_both_ways(jax, ml_dtypes, dtype):
    name = "float8_e4m3fn" if dtype is tp.float8 else str(dtype)
    array = jax.numpy.asarray(VALUES.astype(getattr(ml_dtypes, name, name)))
    x = tp.Tensor(array)
    assert (x.dtype, x.shape, x.device) == (dtype, (3, 4), CPU)
    assert address(x) == address(array)
    assert x.tolist() == VALUES.tolist()
    back = jax.dlpack.from_dlpack(x)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert address(back) == address(array)


@pytest.mark.parametrize("dtype", IN_DLPACK, ids=str)
def test_to_jax(jax, dtype):
    # JAX takes memory over only where it is aligned to 64 bytes, which torch's is.
    x = sample(dtype)
    array = jax.dlpack.from_dlpack(x)
    assert array.tolist() == VALUES.tolist()
    assert address(array) == address(x)


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_jax(jax, view):
    part = VIEWS[view][0](jax.numpy.asarray(VALUES, dtype="float32"))
    x = tp.Tensor(part)
    assert x.shape == part.shape
    assert x.tolist() == part.tolist()
    assert jax.dlpack.from_dlpack(x).tolist() == part.tolist()


def test_strided_tensors_to_jax(jax):
    """JAX has compact arrays only; a copy is one."""
    data = torch.arange(12.0).reshape(3, 4)
    assert jax.dlpack.from_dlpack(tp.Tensor(data.T)).tolist() == data.T.tolist()
    x = tp.Tensor(data[:, ::2])
    with pytest.raises(Exception, match="compact"):
        jax.dlpack.from_dlpack(x)
    assert jax.dlpack.from_dlpack(tp.copy(x, CPU)).tolist() == data[:, ::2].tolist()


def test_what_jax_has_and_tripy_has_not(jax):
    with raises(r"does not have the array's data type[\s\S]*uint8[\s\S]*dtype=", "tp.Tensor(jax."):
        tp.Tensor(jax.numpy.ones(2, "uint8"))
    assert tp.Tensor(jax.numpy.ones(2, "uint8"), dtype=tp.int32).tolist() == [1, 1]
    with raises(r"data is not an array[\s\S]*DLPack", "tp.Tensor(jax."):
        tp.Tensor(jax.numpy.ones(2, "int4"))


def test_jax_in_a_process_of_its_own(jax):
    """Whichever library is imported first, and with warnings as errors."""
    code = (
        "import jax.numpy as jnp, tripy as tp\n"
        "x = tp.Tensor(jnp.ones((2, 3), jnp.bfloat16)) * 2\n"
        "import jax\n"
        "print(jax.dlpack.from_dlpack(x).sum())"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("12\n", "")
