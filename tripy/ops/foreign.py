"""Names that PyTorch and numpy have and tripy has not: what to write in their place."""

from __future__ import annotations

import difflib
from typing import Any

from tripy import ops
from tripy.tensor import Tensor

# What to write, and the names that it stands for.
_INSTEAD = {
    "tp.concatenate(tensors, dim)": "cat concat hstack vstack",
    "a @ b": "matmul mm bmm dot",
    "a + b": "add",
    "a - b": "sub subtract",
    "a * b": "mul multiply",
    "a / b": "div divide",
    "a ** b": "pow power",
    "-a": "neg negative",
    "abs(a)": "abs absolute",
    "a & b": "logical_and",
    "a | b": "logical_or",
    "~a": "logical_not",
    "tp.minimum(tp.maximum(input, low), high)": "clamp clip",
    "tp.sqrt(tp.var(input, dim))": "std",
    "tp.max(input, dim)": "amax",
    "tp.min(input, dim)": "amin",
    "tp.Tensor(data)": "tensor as_tensor asarray array from_numpy",
    "tp.Tensor(data) of random numbers of numpy or PyTorch": "rand randn randint random",
    "tp.reshape(input, shape)": "view ravel",
    "tp.transpose(input, dim0, dim1)": "T mT t swapaxes",
    "tp.repeat(input, repeats, dim)": "repeat_interleave",
    "tp.split(input, num_split, dim)": "chunk unbind",
    "tp.cast(input, dtype)": "float half double int long type astype",
    "tp.copy(input, device)": "to cpu cuda",
    "tensor.tolist()": "item",
    "tensor.shape": "size",
    "the tensor as it is: there are no gradients and no strides": "detach contiguous clone",
    "the line without it: there are no gradients": "no_grad inference_mode requires_grad",
    "tp.Conv": "Conv1d Conv2d Conv3d",
    "tp.ConvTranspose": "ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "tp.BatchNorm": "BatchNorm1d BatchNorm2d BatchNorm3d",
    "tp.relu": "ReLU",
    "tp.gelu": "GELU",
    "tp.silu": "SiLU",
    "tp.maxpool": "max_pool2d MaxPool2d",
    "tp.avgpool": "avg_pool2d AvgPool2d",
    "tp.resize": "interpolate Upsample",
}
_BY_NAME = {name: text for text, names in _INSTEAD.items() for name in names.split()}


def instead_of(name: str, known: list[str]) -> str:
    """What to try in place of a name that tripy has not.

    Args:
        name: The name.
        known: Names of ``tripy``, of which near ones are looked up.

    Returns:
        A sentence after a space; "" where there is nothing near.
    """
    if name in _BY_NAME:
        return f" Try {_BY_NAME[name]}."
    near = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(f'tp.{n}' for n in near)}?" if near else ""


def _missing(tensor: Tensor, name: str) -> Any:
    """What a tensor has not: most of what other libraries have as methods are functions here."""
    hint = ""
    if not name.startswith("_"):
        hint = f" Try tp.{name}(tensor)." if name in ops.__all__ else instead_of(name, [])
    if hint:
        raise AttributeError(f"A tripy.Tensor has no '{name}'.{hint}")
    # Python adds the tensor's own name that is nearest.
    raise AttributeError(f"A tripy.Tensor has no '{name}'", name=name, obj=tensor)


# Behind the class's back: to a type checker, a tensor has no other attributes than its own.
Tensor.__getattr__ = _missing  # type: ignore[attr-defined]
