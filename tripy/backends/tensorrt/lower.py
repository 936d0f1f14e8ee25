"""Graphs as networks: inputs, a lowering for each node, outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from tripy import config
from tripy.backends.tensorrt.lowering import LOWERINGS, Unsupported
from tripy.backends.tensorrt.lowering.table import operand
from tripy.backends.tensorrt.network import LayerRefused, Network
from tripy.backends.tensorrt.sizes import symbols_in, symbols_of
from tripy.backends.torch.aliasing import in_place_updates
from tripy.errors import TripyException
from tripy.graph import Graph, Node, Value
from tripy.graph.dims import Symbol


class Names(NamedTuple):
    """What the tensors of an engine are called.

    Attributes:
        inputs: The graph's inputs, in order.
        sizes: Sizes that are given at run time as numbers, by their symbols.
        outputs: The graph's outputs, in order.
    """

    inputs: list[str]
    sizes: dict[str, str]
    outputs: list[str]


def lower(net: Network, graph: Graph) -> tuple[Names, dict[str, Symbol]]:
    """Write a graph into an empty network.

    Returns:
        The names of the engine's tensors, and the sizes that are inputs, by their names there.

    Raises:
        TripyException: With the user's line of the operation that TensorRT does not have or accept.
    """
    tensors: dict[Value, Any] = {}
    taken: set[str] = set()
    inputs = [_add_input(net, value, tensors, _unique(value.name or "input", taken))
              for value in graph.inputs]  # fmt: skip
    sizes: dict[str, str] = {}
    given: dict[str, Symbol] = {}
    for symbol in _free_symbols(net, graph).values():
        name = sizes[symbol.name] = _unique(symbol.name, taken)
        given[name] = symbol
        tensor = net.raw.add_input(name, net.trt.int64, (1,))
        net.sizes.add_symbol(symbol.name, tensor)
    nodes = graph.nodes()
    net.in_place = {
        node for node in in_place_updates(graph, nodes) if _has_cache_layer(graph, node)
    }
    for node in nodes:
        _lower_node(net, node, tensors)
    net.begin(None)
    outputs = []
    for position, value in enumerate(graph.outputs):
        tensor = tensors[value] if value in tensors else net.value(value)
        if tensor.is_network_input or tensor.is_network_output or value.data is not None:
            tensor = net.add(net.raw.add_identity(tensor))
        outputs.append(_unique(f"result{position}", taken))
        tensor.name = outputs[-1]
        net.raw.mark_output(tensor)
    return Names(inputs, sizes, outputs), given


def _has_cache_layer(graph: Graph, node: Node) -> bool:
    """Whether TensorRT's layer can write into the cache: an input that is given back.

    TensorRT-RTX 1.7 crashes while it builds where the batch is dynamic and the positions are
    computed, so that such a cache is copied.
    """
    cache, positions = operand(node), operand(node, 2)
    safe = isinstance(cache.shape[0], int) or positions in graph.inputs
    return safe and cache in graph.inputs and node.output in graph.outputs


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        found, number = f"{name}.{number}", number + 1
    taken.add(found)
    return found


def _add_input(net: Network, value: Value, tensors: dict[Value, Any], name: str) -> str:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    tensor = net.raw.add_input(name, net.types[value.dtype], shape)
    if tensor is None:
        raise TripyException(
            f"compile: TensorRT does not accept the input {name}.", got=value.type_text
        )
    tensors[value] = tensor
    for axis, size in enumerate(value.shape):
        if not isinstance(size, int):
            # An input's size is a symbol by itself; equal names tell TensorRT of equal sizes.
            tensor.set_dimension_name(axis, str(size))
            net.sizes.add_source(str(size), tensor, axis)
    return name


def _free_symbols(net: Network, graph: Graph) -> dict[str, Symbol]:
    """The sizes that no input's shape tells: numbers that the function takes as arguments."""
    found: dict[str, Symbol] = {}
    for node in graph.nodes():
        found |= symbols_of(node.outputs)
        for attribute in node.attrs.values():
            found |= symbols_in(attribute)
    return {name: symbol for name, symbol in found.items() if not net.sizes.has(name)}


def _lower_node(net: Network, node: Node, tensors: dict[Value, Any]) -> None:
    net.begin(node)
    try:
        arguments = [
            None
            if v is None
            else tensors[v]
            if v.data is None
            else net.value(v, dequantized=node.op == "dequantize")
            for v in node.inputs
        ]
        results = LOWERINGS[node.op](net, node, *arguments)
    except Unsupported as error:
        raise TripyException(
            f"{node.op}: TensorRT has nothing for it: {error}.",
            got=", ".join(v.type_text for v in node.inputs if v is not None),
            hint=error.hint or 'backend="torch"',
            tensors=[("the operation", node)],
        ) from error
    except LayerRefused as error:
        raise refused(node, str(error)) from error
    results = results if isinstance(results, list) else [results]
    for value, tensor in zip(node.outputs, results):
        if config.verify:
            _verify(net, node, value, tensor)
        tensors[value] = tensor


def refused(node: Node, message: str) -> TripyException:
    """The error for an operation that TensorRT refuses, with the user's line."""
    return TripyException(
        f"{node.op}: TensorRT does not accept the operation.",
        got=", ".join(v.type_text for v in node.inputs if v is not None),
        expected=f"what TensorRT says: {' '.join(message.split())[:500]}",
        hint='backend="torch"',
        tensors=[("the operation", node)],
    )


def _verify(net: Network, node: Node, value: Value, tensor: Any) -> None:
    """A lowering that makes another type or shape than its schema says is an error of tripy."""
    if tensor.dtype != net.types[value.dtype] or len(tensor.shape) != value.rank:
        raise AssertionError(
            f"{node.op} makes {tensor.dtype} of shape {tuple(tensor.shape)}, not {value.type_text}"
        )
    for own, wanted in zip(tensor.shape, value.shape):
        if own >= 0 and isinstance(wanted, int) and own != wanted:
            raise AssertionError(f"{node.op} makes {tuple(tensor.shape)}, not {value.type_text}")
