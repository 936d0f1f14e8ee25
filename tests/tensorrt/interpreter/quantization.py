"""Pages Quantize and Dequantize of TensorRT's operator documentation."""

from __future__ import annotations

import torch

from tests.tensorrt.interpreter.values import FLOATS, RANGES, Step

QUANTIZED = ("INT8", "INT4", "FP8")
LARGEST_FP8 = 448.0


def blocks_of(step: Step) -> list[int]:
    """The block shape, empty where none is set: the API raises then."""
    try:
        found = step.layer.block_shape
    except RuntimeError:
        return []
    return [] if found is None else list(found)


def spread_scale(step: Step, scale_type: str) -> torch.Tensor:
    """The scale of each element.

    A scalar, or one dimension along `axis`, or the input's rank for blocks: a block's lengths are
    the input's divided by the scale's, and are those of `block_shape` where one is set.
    """
    x, scale = step.value(0), step.value(1)
    if step.tensor(1).name not in step.constants:
        raise step.refuse("the scale must be a build-time constant")
    if step.type(1) != scale_type:
        raise step.refuse(f"the scale is {step.type(1)}, not {scale_type}")
    if not bool((scale > 0).all() and scale.isfinite().all()):
        raise step.refuse("a scale that isn't positive and finite")
    if step.has(2) and bool((step.value(2).float() != 0).any()):
        raise step.refuse("a zero point that isn't zero")
    if step.has(2) and step.value(2).shape != scale.shape:
        raise step.refuse("the shape of the zero point isn't the scale's")
    scale, blocks = scale.float(), blocks_of(step)
    if not scale.dim():
        return scale
    if scale.dim() == 1 and not blocks:
        axis = step.layer.axis
        if not 0 <= axis < x.dim():
            raise step.refuse(f"axis {axis} of {x.dim()} dimensions")
        if scale.shape[0] != x.shape[axis]:
            raise step.refuse(f"{scale.shape[0]} scales for {x.shape[axis]} slices")
        return scale.reshape([-1 if a == axis else 1 for a in range(x.dim())])
    if scale.dim() != x.dim():
        raise step.refuse(f"a scale of {scale.dim()} dimensions for an input of {x.dim()}")
    if any(not s or n % s for s, n in zip(scale.shape, x.shape)):
        raise step.refuse(f"scales of {tuple(scale.shape)} for an input of {tuple(x.shape)}")
    lengths = [n // s for s, n in zip(scale.shape, x.shape)]
    if blocks and [n if b == -1 else b for b, n in zip(blocks, x.shape)] != lengths:
        raise step.refuse(f"blocks of {blocks}, and scales for blocks of {lengths}")
    if not blocks and sum(length > 1 for length in lengths) > 1:
        raise step.refuse("blocks along more than one axis need a block shape")
    if not blocks and any(length > 1 for length in lengths[:-2]):
        raise step.refuse("without a block shape, blocks lie along one of the last two axes")
    for axis, length in enumerate(lengths):
        scale = scale.repeat_interleave(length, axis)
    return scale


def quantize(step: Step) -> list[torch.Tensor]:
    """Page Quantize: clamp(round(input / scale)), halfway to even; the scale has the input's type.

    In float8 the rounding is that of the type, and the bounds are its largest numbers.
    """
    step.demand(FLOATS, 0)
    to = step.out_type()
    if to not in QUANTIZED:
        raise step.missing(f"quantization to {to}")
    if to == "INT4" and blocks_of(step):
        # The page allows it; builders answer that the output must be int8 or fp8.
        raise step.refuse("a block shape for INT4")
    x = step.value().float() / spread_scale(step, step.type(0))
    if bool(x.isnan().any()):
        raise step.undocumented("what NaN is quantized to")
    if to == "FP8":
        return [x.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn)]
    return [torch.round(x).clamp(*RANGES[to]).to(torch.int8)]


def dequantize(step: Step) -> list[torch.Tensor]:
    """Page Dequantize: input times scale, in the scale's type."""
    step.demand(QUANTIZED, 0)
    if step.out_type() not in FLOATS:
        raise step.refuse(f"dequantization to {step.out_type()}")
    return [step.rounded(step.value().float() * spread_scale(step, step.out_type()))]
