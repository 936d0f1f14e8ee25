"""Symbolic sizes as shape tensors: int64 tensors of one element that TensorRT computes.

A size that is known is a number as long as possible. A symbol is read from the shape of an input
that has it, or is itself an input of the network: a size that the function takes as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tripy import dtypes
from tripy.graph import dims
from tripy.graph.dims import Call, Dim, Expr, Factor, Symbol

if TYPE_CHECKING:
    from tripy.backends.tensorrt.network import Network


def is_static(sizes: Sequence[Dim]) -> bool:
    return all(isinstance(size, int) for size in sizes)


class Sizes:
    """Makes shape tensors, each once."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self._known: dict[Any, Any] = {}
        self._sources: dict[str, tuple[Any, int]] = {}

    def add_source(self, symbol: str, tensor: Any, axis: int) -> None:
        """Tell where a symbol is read: a dimension of an input."""
        self._sources.setdefault(symbol, (tensor, axis))

    def add_symbol(self, symbol: str, tensor: Any) -> None:
        """Tell the one-element tensor that holds a symbol."""
        self._known[Symbol(symbol, 0, 0, 0)] = tensor

    def has(self, symbol: str) -> bool:
        return symbol in self._sources or Symbol(symbol, 0, 0, 0) in self._known

    def vector(self, sizes: Sequence[Dim]) -> Any:
        """Sizes as one int64 tensor of one dimension."""
        key = tuple(sizes)
        if key not in self._known:
            if is_static(sizes):
                self._known[key] = self._constant(key)
            elif len(key) == 1:
                self._known[key] = self._one(key[0])
            else:
                parts: list[Any] = []
                run: list[Dim] = []
                for size in key:  # Neighbouring numbers are one constant.
                    if isinstance(size, int):
                        run.append(size)
                        continue
                    if run:
                        parts.append(self._constant(tuple(run)))
                        run = []
                    parts.append(self._one(size))
                if run:
                    parts.append(self._constant(tuple(run)))
                self._known[key] = self._net.concatenate(parts, 0)
        return self._known[key]

    def _constant(self, numbers: tuple) -> Any:
        data = torch.tensor(numbers, dtype=torch.int64)
        return self._net.constant(data, dtypes.int64)

    def _one(self, size: Dim) -> Any:
        if isinstance(size, int):
            return self.vector((size,))
        if size not in self._known:
            total: Any = None
            for factors, coefficient in size.terms.items():
                term: Any = None
                for factor in factors:
                    part = self._factor(factor)
                    term = part if term is None else self._net.binary("PROD", term, part)
                if term is None or coefficient != 1:
                    number = self.vector((coefficient,))
                    term = number if term is None else self._net.binary("PROD", term, number)
                total = term if total is None else self._net.binary("SUM", total, term)
            self._known[size] = total
        return self._known[size]

    def _factor(self, factor: Factor) -> Any:
        if factor not in self._known:
            if isinstance(factor, Symbol):
                tensor, axis = self._sources[factor.name]
                shape = self._net.add(self._net.raw.add_shape(tensor))
                one = self._net.raw.add_slice(shape, (axis,), (1,), (1,))
                self._known[factor] = self._net.add(one)
            else:
                self._known[factor] = self._call(factor)
        return self._known[factor]

    def _call(self, call: Call) -> Any:
        net = self._net
        left, right = (self._one(argument) for argument in call.arguments)
        if call.function in ("max", "min"):
            return net.binary(call.function.upper(), left, right)
        if call.function == "broadcast":  # The other one where a size is 1.
            one = net.binary("EQUAL", left, self.vector((1,)))
            return net.add(net.raw.add_select(one, right, left))
        quotient = net.binary("FLOOR_DIV", left, right)
        if call.function == "floordiv":
            return quotient
        return net.binary("SUB", left, net.binary("PROD", quotient, right))


def symbols_of(values: Sequence[Any]) -> dict[str, Symbol]:
    """All symbols in the shapes of values, by name."""
    found: dict[str, Symbol] = {}
    for value in values:
        for size in value.shape:
            found |= {symbol.name: symbol for symbol in dims.symbols(size)}
    return found


def symbols_in(attribute: Any) -> dict[str, Symbol]:
    """All symbols in an attribute of a node, by name."""
    if isinstance(attribute, tuple):
        return {k: v for item in attribute for k, v in symbols_in(item).items()}
    if isinstance(attribute, Expr):
        return {symbol.name: symbol for symbol in dims.symbols(attribute)}
    return {}
