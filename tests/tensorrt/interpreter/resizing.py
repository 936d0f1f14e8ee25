"""Page Resize of TensorRT's operator documentation, and the formulas at its enumerations."""

from __future__ import annotations

import math

import torch

from tests.tensorrt.interpreter.values import FLOATS, Step


def sizes(step: Step, x: torch.Tensor) -> list[int]:
    """The output's lengths: an input's, floor(length * scale), or an attribute's."""
    layer = step.layer
    if step.has(1):
        return step.integers(1)
    scales = list(layer.scales)
    if not scales:
        return list(layer.shape)
    if len(scales) != x.dim():
        raise step.refuse(f"{len(scales)} scales for {x.dim()} dimensions")
    if any((n * s) % 1 for n, s in zip(x.shape, scales)):
        raise step.undocumented("which ratio coordinates use where scales don't give whole lengths")
    return [math.floor(n * s) for n, s in zip(x.shape, scales)]


def origins(step: Step, length: int, resized: int) -> torch.Tensor:
    """The coordinate in the input of each coordinate in the output, in float64."""
    layer, at = step.layer, torch.arange(resized, dtype=torch.float64)
    transformation = layer.coordinate_transformation.name
    if resized == 1 and layer.selector_for_single_pixel.name == "UPPER":
        return torch.zeros(1, dtype=torch.float64)
    if transformation == "ALIGN_CORNERS":
        if resized == 1:
            if length > 1:
                raise step.undocumented("ALIGN_CORNERS of a single pixel by the formula")
            return torch.zeros(1, dtype=torch.float64)
        return at * ((length - 1) / (resized - 1))
    if transformation == "ASYMMETRIC":
        return at * (length / resized)
    if transformation == "HALF_PIXEL":
        return (at + 0.5) * (length / resized) - 0.5
    raise step.missing(f"the transformation {transformation}")


def cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """The weight of a neighbour in cubic convolution, by its distance, with the coefficient a."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def nearest(step: Step, length: int, resized: int) -> torch.Tensor:
    """Which element of the input each of the output is: it alone, whatever is beside it."""
    functions = {
        "FLOOR": torch.floor,
        "CEIL": torch.ceil,
        "HALF_UP": lambda x: torch.floor(x + 0.5),
        "HALF_DOWN": lambda x: torch.ceil(x - 0.5),
    }
    rounded = functions[step.layer.nearest_rounding.name](origins(step, length, resized))
    return rounded.clamp(0, length - 1).long()


def weights(step: Step, length: int, resized: int) -> torch.Tensor:
    """The matrix [resized, length] that interpolates one axis; the border is repeated outside."""
    layer, at = step.layer, origins(step, length, resized)
    mode = layer.resize_mode.name
    matrix = torch.zeros(resized, length, dtype=torch.float64)
    first = torch.floor(at)
    reach = (0, 1) if mode == "LINEAR" else (-1, 0, 1, 2)
    for offset in reach:
        neighbour = first + offset
        distance = at - neighbour
        weight = 1 - distance.abs() if mode == "LINEAR" else cubic(distance, layer.cubic_coeff)
        if layer.exclude_outside:
            weight = torch.where((neighbour >= 0) & (neighbour < length), weight, 0)
        place = neighbour.clamp(0, length - 1).long()
        matrix.index_put_((torch.arange(resized), place), weight, accumulate=True)
    return matrix / matrix.sum(1, keepdim=True) if layer.exclude_outside else matrix


def resize(step: Step) -> list[torch.Tensor]:
    """Page Resize: of the innermost axes, at most three, and of two for CUBIC."""
    step.demand(FLOATS, 0)
    x, mode = step.real().double(), step.layer.resize_mode.name
    if mode not in ("NEAREST", "LINEAR", "CUBIC"):
        raise step.missing(f"the mode {mode}")
    after = sizes(step, x)
    if len(after) != x.dim() or min(after, default=1) < 1 or 0 in x.shape:
        raise step.refuse(f"a resize of {tuple(x.shape)} to {after}")
    inner = 2 if mode == "CUBIC" else 3
    for axis, (length, resized) in enumerate(zip(x.shape, after)):
        if length == resized:
            # Every transformation maps an axis that keeps its length to itself.
            continue
        if axis < x.dim() - inner:
            raise step.refuse(f"{mode} resizes the innermost {inner} axes, not axis {axis}")
        if mode == "NEAREST":
            x = x.index_select(axis, nearest(step, length, resized))
            continue
        if not bool(x.isfinite().all()):
            raise step.undocumented("what a neighbour of weight 0 that is NaN or infinite adds")
        matrix = weights(step, length, resized)
        x = torch.tensordot(x.movedim(axis, -1), matrix, dims=([-1], [1])).movedim(-1, axis)
    return [step.rounded(x.float())]
