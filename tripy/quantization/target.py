"""One layer of a model, of PyTorch or of tripy, through one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.quantization.state import LinearState, Sections

Callback = Callable[[torch.Tensor], None]
# Which layers make keys and values: by the last part of the name, the sections of the result.
# "query_key_value" is not among them: its queries, keys and values lie head by head.
FUSED = ("c_attn", "qkv_proj", "qkv", "Wqkv")
KEYS, VALUES = ("k_proj", "key", "k"), ("v_proj", "value", "v")


class Target(ABC):
    """One linear layer.

    Attributes:
        name: Its dotted name in the model.
        kind: Its class, before it was quantized.
        module: The layer.
        reason: Why it cannot be quantized; "" if it can be.
        convolution: Whether it is one: those have no blocks, and their inputs are not rows that
            meet a matrix, which smoothquant, awq and gptq need.
    """

    name: str
    kind: str
    module: Any
    reason: str = ""
    convolution: bool = False
    _original: Any = None

    @abstractmethod
    def weight(self) -> torch.Tensor:
        """[out, in], floating point; shares the layer's memory where it can."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @abstractmethod
    def bias(self) -> Any:
        """[out], or None: as the model has it."""

    @abstractmethod
    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        """Shows each input, and each result, to a function; calling what it returns ends that."""

    @abstractmethod
    def apply(self, state: LinearState) -> None:
        """Makes the model compute with the quantized layer."""

    @abstractmethod
    def revert(self) -> None:
        """Makes the model compute with the layer as it was."""

    @abstractmethod
    def state(self) -> LinearState:
        """The layer as it is, quantized or not."""

    def forget(self) -> None:
        """Gives up the layer as it was: after this it cannot be reverted."""
        self._original = None

    def sections(self) -> Optional[Sections]:
        """Where in its result keys and values are; None for layers that make none."""
        last, (out, inputs) = self.name.rpartition(".")[2], self.shape
        if last in FUSED:
            # Queries are as wide as the input; what is left is shared by keys and values.
            width = (out - inputs) // 2
            return Sections((out - 2 * width, width, width), 1, 2) if width > 0 else None
        if last in KEYS or last in VALUES:
            return Sections((out,), 0 if last in KEYS else None, 0 if last in VALUES else None)
        return None
