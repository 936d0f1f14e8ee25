"""Which nodes of a program become one kernel: see ``decode_step``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Union

import torch

from tripy.backends.torch.kernels.base import Kernel
from tripy.backends.torch.kernels.cuda.decode_step import Run
from tripy.backends.torch.kernels.cuda.linear import GpuLinear
from tripy.graph import Node, Value


def plan(
    nodes: Sequence[Node],
    kernels: Mapping[Node, Kernel],
    in_place: AbstractSet[Node],
    outputs: Sequence[Value],
    where: torch.device,
) -> list[Union[Node, Run]]:
    """The nodes in an order that works, with runs in place of those that can be one kernel.

    Args:
        nodes: In order.
        kernels: Those that have been prepared.
        in_place: Nodes that write into their first input.
        outputs: Of the program.
        where: The GPU.
    """
    ordered: list[Union[Node, Run]] = []
    users: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None:
                users.setdefault(value, []).append(node)

    def close(run: Run) -> None:
        own = set(run.nodes)
        wanted = [
            value for node in run.nodes for value in node.outputs
            if value in outputs or any(user not in own for user in users.get(value, ()))
        ]  # fmt: skip
        if run.finish(wanted):
            ordered.append(run)
        else:
            ordered.extend(run.nodes)

    run = Run(where)
    for node in nodes:
        if _add(run, node, kernels, in_place):
            continue
        # What needs nothing of the run goes before it, unless it changes what the run reads.
        if run.nodes and (node in in_place or any(map(run.makes, node.inputs))):
            close(run)
            run = Run(where)
            if _add(run, node, kernels, in_place):
                continue
        ordered.append(node)
    close(run)
    return ordered


def _add(run: Run, node: Node, kernels: Mapping[Node, Kernel], in_place: AbstractSet[Node]) -> bool:
    if node.op == "reshape":
        return run.add_view(node)
    if node.op == "quantize":
        return run.add_rounding(node)
    if node.op == "append_and_attend":
        return node in in_place and run.add_attention(node)
    function = kernels[node].function if node in kernels else None
    if not isinstance(function, GpuLinear):
        return False
    inputs = kernels[node].inputs
    return run.add_linear(function, node, inputs[0], inputs[1] if len(inputs) > 1 else None)  # type: ignore[arg-type]
