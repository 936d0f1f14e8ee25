"""No operation without a public function, a lowering and a test, and examples that run.

What else a public name has to have is in docs/tools/public.py, and held by tests/test_api.py.
"""

from __future__ import annotations

import doctest
import inspect

import pytest

import tripy as tp
from docs.tools import public
from tests.ops.cases import CASES
from tripy import ops
from tripy.backends.torch.lowering import LOWERINGS
from tripy.graph import SCHEMAS

# Operations that modules record; their tests are in tests/nn.
BY_MODULES = {
    "layer_norm": "LayerNorm", "rms_norm": "RMSNorm", "convolution": "Conv",
    "conv_transpose": "ConvTranspose",
}  # fmt: skip
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
def test_functions_describe_all_arguments(name):
    function = getattr(tp, name)
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Example:"):
        assert section in text, f"tp.{name} has no section {section}"
    arguments = text.split("Args:")[1].split("Returns:")[0]
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}:" in arguments, f"tp.{name} does not describe {parameter}"


@pytest.mark.parametrize("entry", public.entries(), ids=lambda entry: entry.name)
def test_examples_run(entry):
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(entry.found, entry.name, globs={}):
        output: list[str] = []
        runner.run(example, out=output.append)
        assert not runner.failures, "".join(output)


def test_an_unknown_name_is_answered_with_a_near_one():
    with pytest.raises(AttributeError, match=r"tripy has no 'softmacks'. Did you mean tp\.softmax"):
        tp.softmacks  # noqa: B018
