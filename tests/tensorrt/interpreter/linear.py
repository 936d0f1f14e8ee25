"""Pages Einsum and MatrixMultiply of TensorRT's operator documentation."""

from __future__ import annotations

import math
import re

import torch

from tests.tensorrt.interpreter.values import Step


def matrix_multiply(step: Step) -> list[torch.Tensor]:
    """Page MatrixMultiply: batches of matrices or vectors, whose lengths are equal or one."""
    step.demand_same(0, 1)
    a, b = step.real(0), step.real(1)
    op0, op1 = step.layer.op0.name, step.layer.op1.name
    for x, op in ((a, op0), (b, op1)):
        if x.dim() < (1 if op == "VECTOR" else 2):
            raise step.refuse(f"{op} of {x.dim()} dimensions")
    a = a.mT if op0 == "TRANSPOSE" else a.unsqueeze(-2) if op0 == "VECTOR" else a
    b = b.mT if op1 == "TRANSPOSE" else b.unsqueeze(-1) if op1 == "VECTOR" else b
    if a.dim() != b.dim():
        raise step.refuse(f"batches of {a.dim() - 2} and of {b.dim() - 2} dimensions")
    for n, m in zip(a.shape[:-2], b.shape[:-2]):
        if n != m and 1 not in (n, m):
            raise step.refuse(f"batches of {tuple(a.shape[:-2])} and {tuple(b.shape[:-2])}")
    if a.shape[-1] != b.shape[-2]:
        raise step.refuse(f"inner lengths {a.shape[-1]} and {b.shape[-2]}")
    result = torch.matmul(a, b)
    if op1 == "VECTOR":
        result = result.squeeze(-1)
    if op0 == "VECTOR":
        result = result.squeeze(-1 if op1 == "VECTOR" else -2)
    return [step.rounded(result)]


def einsum(step: Step) -> list[torch.Tensor]:
    """Page Einsum: lower-case labels, no ellipsis, no diagonals; one float type."""
    count, equation = step.layer.num_inputs, step.layer.equation.replace(" ", "")
    step.demand_same(*range(count))
    if not re.fullmatch(r"[a-z]*(,[a-z]*)*(->[a-z]*)?", equation):
        raise step.refuse(f"the equation {equation!r}")
    terms = equation.partition("->")[0].split(",")
    if len(terms) != count or any(len(set(term)) < len(term) for term in terms):
        raise step.refuse(f"{equation!r} has a diagonal, or another number of inputs")
    inputs = [step.real(index) for index in range(count)]
    if any(len(term) != x.dim() for term, x in zip(terms, inputs)):
        raise step.refuse(f"{equation!r} for inputs of {[x.dim() for x in inputs]} dimensions")
    if not math.prod(x.numel() for x in inputs):
        raise step.undocumented("Einsum of empty tensors")
    return [step.rounded(torch.einsum(equation, *inputs))]
