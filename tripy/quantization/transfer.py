"""From a quantized model to a tripy Module, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

import torch

from tripy import nn
from tripy.errors import TripyException
from tripy.quantization.checkpoint.huggingface import Checkpoint
from tripy.quantization.describe import describe
from tripy.quantization.norms import refuse_norms
from tripy.quantization.state import LinearState
from tripy.quantization.target import Target
from tripy.quantization.targets import find_targets
from tripy.tensor import Tensor

CONVOLUTIONS = ("Conv", "ConvTranspose")
Rename = Union[Mapping[str, str], Callable[[str], Optional[str]]]


def to_tripy(source: Any, module: nn.Module, names: Optional[Rename] = None) -> nn.Module:
    """Load a quantized model into a tripy Module: small weights, scales and all the rest.

    A :class:`tripy.Linear` takes the quantization of the layer that it gets its weight from; one
    that was made with a ``quant_dtype`` has to fit it.

    Args:
        source: A PyTorch model or a tripy Module, quantized by :func:`quantize` or by
            nvidia-modelopt, or not quantized; or a checkpoint that :func:`load_hf` has read.
        module: The tripy Module; it may be without values yet.
        names: From a name in ``source``, of a layer or a parameter, to the name in ``module``, or
            to None for what is left out: a function or a dict. By default names are the same, but
            for the prefix of the base model that transformers' models have ("transformer.").

    Returns:
        The module.

    Raises:
        TripyException: For parameters that stay without a value, shapes and formats that do not
            fit. All are listed, and the module is as it was.

    Example:
        >>> import torch, tripy as tp, tripy.quantization as tq
        >>> source = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> _ = tq.quantize(source, tq.INT8_WEIGHT_ONLY_CFG)
        >>> module = tq.to_tripy(source, tp.Sequential(tp.Linear(8, 4)))
        >>> print(module[0].weight.dtype)
        int8
    """
    refuse_norms(source, "to_tripy")
    rename = _rename(source, names)
    layers = source.layers if isinstance(source, Checkpoint) else describe(source)
    given = {rename(name): state for name, state in layers.items()}
    targets = find_targets(module)
    done: list[Target] = []
    problems: list[str] = []
    try:
        for name, target in targets.items():
            state = given.get(name)
            problem = "" if state is None else _misfit(target, state)
            if problem:
                problems.append(f"{name}: {problem}")
            elif state is not None and _does_anything(state):
                done.append(target)
                target.apply(state)
        if problems:
            raise _refused(problems)
        small = {t.name for t in done if given[t.name].scheme != "not quantized"}
        _load_rest(source, module, rename, layers, {target.name for target in done}, small)
    except BaseException:
        for target in done:
            target.revert()
        raise
    return module


def _rename(source: Any, names: Optional[Rename]) -> Callable[[str], Optional[str]]:
    if callable(names):
        return names
    if names is not None:
        table = dict(names)
        return lambda name: table.get(name)
    prefix = getattr(source, "base_model_prefix", None)  # Of transformers' models.
    return lambda name: name.removeprefix(f"{prefix}.") if prefix else name


def _does_anything(state: LinearState) -> bool:
    found = (state.input_quantizer, state.key_quantizer, state.value_quantizer)
    return bool(state.weight_quantizers) or any(each is not None for each in found)


def _misfit(target: Any, state: LinearState) -> str:
    """Why the state cannot go into the layer; "" if it can."""
    layer = target.module
    if target.convolution != (state.kind in CONVOLUTIONS):
        return f"got a {state.kind}; expected a {target.kind}"
    if target.shape != state.shape:
        return f"got a weight {list(state.shape)}; expected {list(target.shape)}"
    if state.bias is not None and layer.bias is None:
        return "got a bias; expected none, as the layer was made with bias=False"
    if layer.quant_dtype is not None and state.weight_quantizers:
        config = state.weight_quantizers[0].config
        dim = None if config.axis is None else target.outputs
        if config.format.dtype is not layer.quant_dtype or dim != layer.weight_quant_dim:
            return (
                f"got {state.scheme}; expected quant_dtype={layer.quant_dtype}, "
                f"weight_quant_dim={layer.weight_quant_dim}, as the layer was made"
            )
    return ""


def _load_rest(
    source: Any,
    module: nn.Module,
    rename: Callable[[str], Optional[str]],
    layers: dict[str, LinearState],
    done: set[str],
    small: set[str],
) -> None:
    """Everything but what ``done`` layers have already: their scales, and ``small`` weights."""
    values: dict[str, torch.Tensor] = {}
    # A convolution that is not quantized comes as it is, in its own layout.
    layers = {
        name: state for name, state in layers.items()
        if state.kind not in CONVOLUTIONS or rename(name) in small
    }  # fmt: skip
    for name, state in layers.items():
        target = rename(name)
        if target is None:
            continue
        if target not in small:
            values[f"{target}.weight"] = state.weight
        if state.bias is not None:
            values[f"{target}.bias"] = state.bias
    inside = tuple(f"{name}." for name in layers)
    for name, value in source.state_dict().items():
        value = value if isinstance(value, torch.Tensor) else value.torch()
        target = None if name.startswith(inside) else rename(name)
        if target is not None:
            values[target] = value
    wanted = module.state_dict()
    # What is set already by a quantized layer has no other source.
    fixed = {
        name for name in wanted if name.rpartition(".")[0] in done and not _is_loaded(name, small)
    }
    problems = [
        f"{name}: nothing in the source" for name in wanted if name not in {*values, *fixed}
    ]
    if problems:
        raise _refused(problems)
    loaded = {
        name: _tensor(values[name], parameter)
        for name, parameter in wanted.items()
        if name in values and name not in fixed
    }
    module.load_state_dict(loaded, strict=False)


def _is_loaded(name: str, small: set[str]) -> bool:
    """Whether a quantized layer's parameter is not among what quantization gives it."""
    layer, _, last = name.rpartition(".")
    return last == "bias" or (last == "weight" and layer not in small)


def _tensor(value: torch.Tensor, like: Tensor) -> Tensor:
    made = Tensor(value.detach().contiguous(), device=like.device)
    return made if made.dtype is like.dtype else made.cast(like.dtype).eval()


def _refused(problems: list[str]) -> TripyException:
    return TripyException(
        "to_tripy: the model does not fit the module; nothing was loaded.",
        got="".join(f"\n    {problem}" for problem in problems),
        expected="a value for each parameter of the module, of its shape and format",
        hint="names=, a function from the source's names to the module's",
    )
