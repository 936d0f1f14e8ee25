"""No operation without a public function, a docstring that runs, annotations and a test."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import tripy as tp
from tests.ops.cases import CASES
from tripy import ops
from tripy.backends.torch.lowering import LOWERINGS
from tripy.graph import SCHEMAS

# Operations that modules record; their tests are in tests/nn.
BY_MODULES = {
    "layer_norm": "LayerNorm", "rms_norm": "RMSNorm", "convolution": "Conv",
    "conv_transpose": "ConvTranspose",
}  # fmt: skip
# Functions that compute a Python value at once and record nothing: tests are in test_comparison.
AT_ONCE = {"allclose", "equal"}

OPERATORS = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge",
    "or", "and", "xor", "invert", "neg", "abs", "matmul", "getitem",
]  # fmt: skip

PUBLIC = [op for op in SCHEMAS.values() if not op.internal]


@pytest.mark.parametrize("schema", PUBLIC, ids=lambda s: s.name)
def test_every_operation_has_a_function_and_a_case(schema):
    if schema.name in BY_MODULES:
        assert hasattr(tp, BY_MODULES[schema.name])
        return
    names = {case.name for case in CASES if case.op == schema.name}
    assert names, f"no case in tests/ops/cases for {schema.name}"
    for name in names:
        assert hasattr(tp.Tensor, name[7:]) if name.startswith("Tensor.") else hasattr(tp, name)


@pytest.mark.parametrize("schema", PUBLIC, ids=lambda s: s.name)
def test_every_operation_has_a_lowering(schema):
    # A dynamic size is no computation: the compiler gives it its value.
    assert schema.name in LOWERINGS


@pytest.mark.parametrize("name", ops.__all__)
def test_every_function_has_a_case(name):
    assert name in AT_ONCE or any(case.name == name for case in CASES)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_has_a_case(name):
    assert any(case.name == f"Tensor.__{name}__" for case in CASES)


@pytest.mark.parametrize("name", ops.__all__)
def test_functions_are_annotated(name):
    signature = inspect.signature(getattr(tp, name))
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", ops.__all__)
def test_functions_describe_all_arguments(name):
    function = getattr(tp, name)
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Example:"):
        assert section in text, f"tp.{name} has no section {section}"
    arguments = text.split("Args:")[1].split("Returns:")[0]
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}:" in arguments, f"tp.{name} does not describe {parameter}"


def _public() -> Iterator[tuple[str, Any]]:
    """All public objects, and the methods and properties of the classes among them."""
    for name in tp.__all__:
        found = getattr(tp, name)
        yield name, found
        if inspect.isclass(found):
            for key, member in vars(found).items():
                if not key.startswith("_") and getattr(member, "__doc__", None):
                    yield f"{name}.{key}", member


@pytest.mark.parametrize(
    ("name", "found"), list(_public()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_examples_run(name, found):
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(found, name, globs={}):
        output: list[str] = []
        runner.run(example, out=output.append)
        assert not runner.failures, "".join(output)


@pytest.mark.parametrize("name", [*ops.__all__, "Tensor", "DimensionSize", "device", "dtype"])
def test_there_is_an_example(name):
    assert ">>> import tripy as tp" in inspect.getdoc(getattr(tp, name))


def test_an_unknown_name_is_answered_with_a_near_one():
    with pytest.raises(AttributeError, match=r"tripy has no 'softmacks'. Did you mean tp\.softmax"):
        tp.softmacks  # noqa: B018
