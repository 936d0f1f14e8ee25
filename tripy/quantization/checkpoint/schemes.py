"""What the formats call a quantization, and whether a layer's fits it."""

from __future__ import annotations

from collections.abc import Mapping

from tripy.errors import TripyException
from tripy.quantization.state import LinearState

# By the formats of weight and input: Hugging Face's name, and that of JSON + npz.
NAMES = {
    ("fp8 per tensor", "fp8 per tensor"): ("FP8", "fp8"),
    ("int8 per channel", "int8 per tensor"): ("W8A8_SQ_PER_CHANNEL", "int8_sq"),
    ("int8 per channel", ""): ("W8A16", None),
    ("int4 blocks", ""): ("W4A16_AWQ", "int4_awq"),
    ("int4 blocks then fp8 per tensor", "fp8 per tensor"): ("W4A8_AWQ", "w4a8_awq"),
}


def kind_of(state: LinearState) -> tuple[str, str]:
    """Formats of a layer's weight and input, without block sizes."""
    parts = [
        "int4 blocks" if q.config.num_bits == 4 and q.config.block_size else str(q.config)
        for q in state.weight_quantizers
    ]
    inputs = state.input_quantizer
    return " then ".join(parts), "" if inputs is None else str(inputs.config)


def is_quantized(state: LinearState) -> bool:
    """Whether anything of a layer is rounded."""
    return bool(state.weight_quantizers) or state.input_quantizer is not None


def common(states: Mapping[str, LinearState], column: int) -> tuple[str | None, int]:
    """The one name of all layers that are quantized, and the size of their blocks (0: none).

    Args:
        states: Layers by name.
        column: 0 for Hugging Face's name, 1 for that of JSON + npz.

    Raises:
        TripyException: For layers of different kinds, or of one that has no name there.
    """
    first: str | None = None
    for name, state in states.items():
        if not is_quantized(state):
            continue
        found = NAMES.get(kind_of(state), (None, None))[column]
        if found is None:
            known = [f"{w}, input {i or 'as it is'}" for (w, i), n in NAMES.items() if n[column]]
            raise TripyException(
                f"{name}: the checkpoint format has no name for the layer's quantization.",
                got=state.scheme,
                expected="; ".join(known),
            )
        if first is not None and kind_of(states[first]) != kind_of(state):
            raise TripyException(
                f"{name}: the checkpoint format holds one quantization for all layers.",
                got=f"{state.scheme}; {first} has {states[first].scheme}",
                expected="one of them, and layers that are not quantized",
            )
        if first is not None and _block(states[first]) != _block(state):
            raise TripyException(
                f"{name}: the checkpoint format holds one size of blocks.",
                got=f"{_block(state)}; {first} has {_block(states[first])}",
                expected="equal sizes",
            )
        first = first or name
    if first is None:
        return None, 0
    return NAMES[kind_of(states[first])][column], _block(states[first])


def _block(state: LinearState) -> int:
    return state.weight_quantizers[0].config.block_size or 0 if state.weight_quantizers else 0
