"""Building engines: options, profiles, and what goes wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch

from tripy.backends.tensorrt.distribution import Distribution
from tripy.backends.tensorrt.lower import Names, lower, refused
from tripy.backends.tensorrt.messages import Messages, library
from tripy.backends.tensorrt.network import Network
from tripy.backends.tensorrt.plan import serialized
from tripy.backends.tensorrt.progress import Progress
from tripy.backends.tensorrt.timing_cache import TimingCache
from tripy.backends.torch import storage
from tripy.errors import TripyException
from tripy.graph import Graph, dims

_LARGEST_SIZE = 2**31 - 1
# What is said where memory runs out, by TensorRT, torch, Python and the system.
_NO_MEMORY = re.compile(
    "bad_alloc|out of memory|OutOfMemory|(can't|[Cc]annot) allocate memory|can't start new thread"
)


class Engine(NamedTuple):
    """What a build gives.

    Attributes:
        plan: The serialized engine, as bytes in a uint8 tensor.
        names: What its tensors are called.
        layers: The network's layers: name, kind, and the user's line.
        weight_bytes: Memory that the weights take by the builder's own account; 0 if it says none.
    """

    plan: torch.Tensor
    names: Names
    layers: list[tuple[str, str, str]]
    weight_bytes: int


class Draft(NamedTuple):
    """A network that is ready to be built.

    Attributes:
        builder: The IBuilder, which the others live in.
        net: The network, with the nodes that its layers belong to.
        options: The IBuilderConfig.
        names: What the engine's tensors are called.
        messages: What the builder says.
    """

    builder: Any
    net: Network
    options: Any
    names: Names
    messages: Messages


def draft(
    distribution: Distribution, graph: Graph, targets: Sequence[str], optimization_level: int
) -> Draft:
    """Write a graph as a network, with the options to build it.

    Args:
        distribution: The TensorRT that builds.
        graph: The graph, after the passes.
        targets: Compute capabilities to build for; none for the present GPU.
        optimization_level: 0 to 5, as TensorRT has it.

    Raises:
        TripyException: For what TensorRT does not have or accept, with the user's line.
    """
    trt = distribution.module
    shared = library(distribution.name)
    messages = shared.listen()
    try:
        builder = shared.builder()
    except (TypeError, RuntimeError) as error:  # No driver, or one that is too old.
        raise _failed("a builder cannot be made", messages, None, str(error)) from error
    raw = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    net = Network(trt, raw, messages.errors)
    names, sizes = lower(net, graph)
    options = _options(distribution, builder, targets, optimization_level)
    _add_profile(builder, options, raw, graph, names, sizes)
    return Draft(builder, net, options, names, messages)


def build(
    distribution: Distribution, graph: Graph, targets: Sequence[str], optimization_level: int
) -> Engine:
    """Build an engine; arguments and errors as for :func:`draft`.

    Raises:
        TripyException: Also for what TensorRT refuses only when it builds.
        KeyboardInterrupt: When the user stops it; the builder ends at its next step.
    """
    # One build at a time: they share a builder.
    with library(distribution.name).lock, _memory_needed():
        made = draft(distribution, graph, targets, optimization_level)
        storage.give_memory_back()  # What was needed to turn and pack weights.
        raw, options, net = made.net.raw, made.options, made.net
        timing = TimingCache(distribution, options)
        progress = Progress(distribution.module)
        options.progress_monitor = progress.monitor
        plan = serialized(distribution.module, made.builder, raw, options, progress.watch)
        if plan is None:
            raise _failed("the engine cannot be built", made.messages, net, "")
        timing.store()
    layers = [_describe(raw.get_layer(i), net) for i in range(raw.num_layers)]
    net.let_go()
    storage.give_memory_back()
    return Engine(plan, made.names, layers, made.messages.weight_bytes)


@contextlib.contextmanager
def _memory_needed() -> Iterator[None]:
    """Inside it, an error of torch, Python or the system that says so is one of ours."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise _no_memory(str(error).partition("\n")[0] or type(error).__name__) from error


def _no_memory(said: str) -> TripyException:
    return TripyException(
        "compile: there is not enough memory to build the engine.",
        got=said,
        expected="twice the engine's weights, beside the model, and some 100 MiB",
        hint="a machine with more memory, smaller quantized weights, or smaller bounds of the "
        "inputs' sizes",
    )


def _options(
    distribution: Distribution, builder: Any, targets: Sequence[str], optimization_level: int
) -> Any:
    trt = distribution.module
    options = builder.create_builder_config()
    options.builder_optimization_level = optimization_level
    options.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Rounding float32 to 10 bits of mantissa is quantization that nobody asked for.
    options.clear_flag(trt.BuilderFlag.TF32)
    if targets:
        options.num_compute_capabilities = len(targets)
        for position, name in enumerate(targets):
            capability = trt.ComputeCapability.__members__[name.replace("sm_", "SM")]
            options.set_compute_capability(capability, position)
    return options


def _add_profile(
    builder: Any, options: Any, raw: Any, graph: Graph, names: Names, sizes: Mapping[str, Any]
) -> None:
    """The smallest, usual and largest shapes of the inputs."""
    profile = builder.create_optimization_profile()
    dynamic = False
    for name, value in zip(names.inputs, graph.inputs):
        if all(isinstance(size, int) for size in value.shape):
            continue
        dynamic = True
        corners = []
        for pick in ("minimum", "optimum", "maximum"):
            known = {
                symbol.name: getattr(symbol, pick)
                for size in value.shape
                for symbol in dims.symbols(size)
            }
            corners.append(tuple(dims.evaluate(size, known) for size in value.shape))
        if max(corners[-1]) > _LARGEST_SIZE:  # TensorRT would cut off the upper bits.
            raise TripyException(
                "compile: TensorRT has no sizes as large as an input's.",
                got=f"{name}: {value.type_text}, of at most {corners[-1]}",
                expected=f"sizes up to {_LARGEST_SIZE}",
            )
        profile.set_shape(name, *corners)
    inputs = {raw.get_input(i).name: raw.get_input(i) for i in range(raw.num_inputs)}
    for name, symbol in sizes.items():
        if inputs[name].is_shape_tensor:
            dynamic = True
            bounds = (symbol.minimum, symbol.optimum, symbol.maximum)
            profile.set_shape_input(name, *([bound] for bound in bounds))
    if dynamic:
        options.add_optimization_profile(profile)


def _failed(what: str, messages: Messages, net: Optional[Network], reason: str) -> TripyException:
    """The error for a failed build: the operation that TensorRT's message names, if it does."""
    # While it cleans up after an error, TensorRT finds no driver where it needs none.
    errors = [text for text in messages.errors if "cudaError 35:" not in text] or messages.errors
    text = " ".join(" ".join(errors).split()) or reason or "TensorRT gives no reason"
    said = f"what TensorRT says: {text[:500]}"
    if _NO_MEMORY.search(text):
        return _no_memory(said)
    for name, node in net.layers.items() if net is not None else ():
        if node is not None and re.search(rf"\b{re.escape(name)}\b", text):
            return refused(node, text)
    return TripyException(f"compile: {what}.", got=said, hint='backend="torch", or another target')


def _describe(layer: Any, net: Network) -> tuple[str, str, str]:
    kind = str(layer.type).rpartition(".")[2]
    node = net.layers.get(layer.name)
    place = node.location.place() if node is not None and node.location is not None else ""
    return layer.name, kind, place
