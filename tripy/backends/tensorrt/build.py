"""Building engines: options, profiles, progress, interruption."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch

from tripy.backends.tensorrt.distribution import Distribution
from tripy.backends.tensorrt.lower import Names, lower, refused
from tripy.backends.tensorrt.messages import Messages, library
from tripy.backends.tensorrt.network import Network
from tripy.backends.tensorrt.plan import serialized
from tripy.backends.tensorrt.timing_cache import TimingCache
from tripy.backends.torch import storage
from tripy.errors import TripyException
from tripy.graph import Graph, dims

# Builds that take longer show how far they are.
_SILENT_SECONDS = 2.0


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


class _Progress:
    """Passes a builder's steps on to a progress bar, and a wish to stop to the builder."""

    def __init__(self, trt: Any) -> None:
        self.stop = False
        self._start = time.monotonic()
        self._shown = False
        outer = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.steps: dict[str, int] = {}

            def phase_start(self, name: str, parent: Optional[str], steps: int) -> None:
                self.steps[name] = steps

            def step_complete(self, name: str, step: int) -> bool:
                outer.show(name, step + 1, self.steps.get(name, 0))
                return not outer.stop

            def phase_finish(self, name: str) -> None:
                self.steps.pop(name, None)

        self.monitor = Monitor()

    def show(self, phase: str, step: int, steps: int) -> None:
        seconds = time.monotonic() - self._start
        if seconds < _SILENT_SECONDS or not sys.stderr.isatty():
            return
        self._shown = True
        sys.stderr.write(f"\r\x1b[Ktensorrt: {seconds:.0f} s, {phase} {step}/{steps}")
        sys.stderr.flush()

    def finish(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")


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
    with library(distribution.name).lock:  # One build at a time: they share a builder.
        made = draft(distribution, graph, targets, optimization_level)
        storage.give_memory_back()  # What was needed to turn and pack weights.
        raw, options, net = made.net.raw, made.options, made.net
        timing = TimingCache(distribution, options)
        progress = _Progress(distribution.module)
        options.progress_monitor = progress.monitor
        plan = serialized(
            distribution.module, made.builder, raw, options, lambda work: _run(work, progress)
        )
        if plan is None:
            raise _failed("the engine cannot be built", made.messages, net, "")
        timing.store()
    storage.give_memory_back()
    layers = [_describe(raw.get_layer(i), net) for i in range(raw.num_layers)]
    return Engine(plan, made.names, layers, made.messages.weight_bytes)


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
        profile.set_shape(name, *corners)
    inputs = {raw.get_input(i).name: raw.get_input(i) for i in range(raw.num_inputs)}
    for name, symbol in sizes.items():
        if inputs[name].is_shape_tensor:
            dynamic = True
            bounds = (symbol.minimum, symbol.optimum, symbol.maximum)
            profile.set_shape_input(name, *([bound] for bound in bounds))
    if dynamic:
        options.add_optimization_profile(profile)


def _run(work: Any, progress: _Progress) -> Any:
    """Build in another thread, so that this one notices when the user stops it."""
    result: list[Any] = []

    def target() -> None:
        try:
            result.append(work())
        except BaseException as error:  # Passed on to the thread that waits.
            result.append(error)

    thread = threading.Thread(target=target, name="tensorrt build")
    thread.start()
    interrupted = False
    while thread.is_alive():
        try:
            thread.join(0.1)
        except KeyboardInterrupt:
            interrupted = progress.stop = True
    progress.finish()
    if interrupted:
        raise KeyboardInterrupt
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _failed(what: str, messages: Messages, net: Optional[Network], reason: str) -> TripyException:
    """The error for a failed build: the operation that TensorRT's message names, if it does."""
    text = " ".join(messages.errors) or reason or "TensorRT gives no reason"
    for name, node in net.layers.items() if net is not None else ():
        if node is not None and re.search(rf"\b{re.escape(name)}\b", text):
            return refused(node, text)
    memory = re.search(r"out of memory|OutOfMemory|bad_alloc|Error Code 2\b", text)
    return TripyException(
        f"compile: {what}.",
        got=f"what TensorRT says: {' '.join(text.split())[:500]}",
        hint="a machine with more memory, or smaller bounds of the inputs' sizes"
        if memory
        else 'backend="torch", or another target',
    )


def _describe(layer: Any, net: Network) -> tuple[str, str, str]:
    kind = str(layer.type).rpartition(".")[2]
    node = net.layers.get(layer.name)
    place = node.location.place() if node is not None and node.location is not None else ""
    return layer.name, kind, place
