"""The generated table of operations: up to date, in agreement with the API page, and readable."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import tripy as tp
from docs.tools import observe, reference
from tests.helpers import types_of
from tripy import dtypes, ops
from tripy.graph import SCHEMAS

# The data types of the API page, in its short forms: of a function's first operand; of the operand
# after the dot; of the result after the arrow. The page says nothing of those left out.
FUNCTIONS = {
    "arange.dtype": "any",
    **dict.fromkeys(["full.dtype", "full_like.dtype"], "F i8 I b"),
    **dict.fromkeys(["ones.dtype", "zeros.dtype"], "F i8 I b"),
    **dict.fromkeys(["ones_like.dtype", "zeros_like.dtype"], "F i8 I b"),
    **dict.fromkeys(["iota.dtype", "iota_like.dtype"], "any"),
    **dict.fromkeys(["tril", "triu"], "F i8 I b"),
    "allclose": "F",
    "equal": "F i8 I b",
    **dict.fromkeys(["cast", "cast.dtype"], "any"),
    **dict.fromkeys(["concatenate", "stack"], "any"),
    "cumsum": "F",
    "expand": "F I b",
    "flatten": "any but f8",
    "flip": "F I b",
    "gather.index": "I",
    **dict.fromkeys(["masked_fill.mask", "where.condition"], "b"),
    **dict.fromkeys(["maximum", "minimum"], "F i8 I b"),
    "outer": "F",
    **dict.fromkeys(["pad", "repeat"], "F I b"),
    "resize": "float32 float16 i8",
    "softmax": "F",
    **dict.fromkeys(["avgpool", "maxpool"], "F i8"),
    **dict.fromkeys(["sum", "prod", "max", "min", "mean"], "F I"),
    "var": "F",
    **dict.fromkeys(["all", "any", "all→", "any→"], "b"),
    **dict.fromkeys(["argmax→", "argmin→"], "int32"),
    **dict.fromkeys(["cos", "exp", "log", "rsqrt", "sin", "sqrt"], "F"),
    **dict.fromkeys(["gelu", "sigmoid", "silu", "tanh"], "F i8"),
    "relu": "F i8 I",
    "scaled_dot_product_attention": "F",
    **{"kv_cache_update": "F", "kv_cache_update.write_indices": "int32"},
    "rotary_embedding": "F",
    **{"quantize": "F", "quantize.dtype": "i4 i8 f8", "quantize.scale": "F"},
    **{"dequantize": "i4 i8 f8", "dequantize.dtype": "F", "dequantize→": "F"},
    **{"dynamic_quantize": "F", "dynamic_quantize.dtype": "i4 i8 f8"},
}
OPERATORS = {
    **dict.fromkeys(["a + b", "a - b", "a * b", "a / b", "a // b", "a % b"], "F i8 I b"),
    "a ** b": "F i8 int64",
    **dict.fromkeys(["a == b", "a != b", "a < b", "a <= b", "a > b", "a >= b"], "F i8 I b"),
    **dict.fromkeys(["a | b", "a & b", "a ^ b", "~a"], "b"),
    **dict.fromkeys(["-a", "abs(a)"], "F i8 I"),
    "a @ b": "F",
    "a[b]": "any but f8",
}
COMPARISONS = ["a == b", "a != b", "a < b", "a <= b", "a > b", "a >= b"]


def kinds(text):
    text, _, refused = text.partition(" but ")
    return set(types_of(text)) - set(types_of(refused))


def first(use):
    return next(iter(use.operands.values()))


@pytest.mark.parametrize("row", FUNCTIONS)
def test_data_types_of_functions(row):
    name, mark, operand = re.fullmatch(r"(\w+)([.→]?)(\w*)", row).groups()
    use = observe.function(name)
    slot = use.results[0] if mark == "→" else use.operands[operand] if operand else first(use)
    assert set(slot.types) == kinds(FUNCTIONS[row])


def test_all_operators_are_on_the_page():
    assert sorted(symbol for _, symbol, _ in observe.operators()) == sorted(OPERATORS)


@pytest.mark.parametrize("symbol", OPERATORS)
def test_data_types_of_operators(symbol):
    (use,) = (use for _, other, use in observe.operators() if other == symbol)
    slots = list(use.operands.values())
    # An index is no operand with a data type of the tensor's.
    assert all(set(slot.types) == kinds(OPERATORS[symbol]) for slot in slots)
    result = kinds("b") if symbol in COMPARISONS else kinds(OPERATORS[symbol])
    assert set(use.results[0].types) == result


def test_the_page_is_what_the_script_writes():
    assert reference.PAGE.read_text() == reference.page(), (
        "run python docs/tools/reference.py: schemas or docstrings have changed"
    )


@pytest.mark.parametrize("how", [["docs/tools/reference.py"], ["-m", "docs.tools.reference"]])
def test_as_a_script(how):
    done = subprocess.run(
        [sys.executable, *how, "--check"], cwd=reference.ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_page_that_is_out_of_date(monkeypatch, tmp_path, capsys):
    page = tmp_path / "operations.md"
    monkeypatch.setattr(reference, "PAGE", page)
    assert reference.main(["--check"]) == 1
    assert "run python docs/tools/reference.py" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    page.write_text(page.read_text().replace("F i8", "F", 1))
    assert reference.main(["--check"]) == 1


def test_every_function_operator_module_and_schema_has_a_row():
    names = {*ops.__all__, *SCHEMAS, *reference.modules()}
    cells = re.findall(r"^\| `(\w+)[`(]", reference.page(), re.MULTILINE)
    assert names <= set(cells)


def test_tables_are_whole():
    width, text = None, reference.page()
    for line in text.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        assert width in (None, len(cells)), line
        width = len(cells)
        assert not any(cell.count("`") % 2 for cell in cells), line
    assert "``" not in text and ":func:" not in text and ":class:" not in text


def test_short_forms():
    assert reference.short(dtypes.ALL) == "any"
    assert reference.short(set(dtypes.ALL) - {tp.float8}) == "any but f8"
    assert reference.short([tp.int8, *dtypes.FLOATS, tp.bool]) == "F i8 b"
    assert reference.short([tp.float16, tp.float32, tp.int64]) == "float32 float16 int64"


def test_a_parameter_that_a_check_of_the_functions_own_narrows(monkeypatch):
    """Without its own check, outer would accept all that a product accepts."""
    assert observe.function.__wrapped__("outer").operands["vec1"].types == dtypes.FLOATS
    narrowed = SCHEMAS["mul"]._replace(types={"T": (tp.float32,)})
    monkeypatch.setitem(SCHEMAS, "mul", narrowed)
    assert observe.function.__wrapped__("outer").operands["vec1"].types == (tp.float32,)


def test_a_data_type_given_as_an_attribute_is_checked_by_the_schema():
    for op, accepted in (("full", "F i8 I b"), ("quantize", "i4 i8 f8"), ("iota", "any")):
        assert set(SCHEMAS[op].types["dtype"]) == kinds(accepted)
    make = observe.recording.make_node
    with pytest.raises(tp.TripyException, match="full: the data type is not supported"):
        make("full", [], {"shape": (1,), "value": 1, "dtype": tp.int4}, None, tp.device("cpu"))


def test_count(capsys):
    assert reference.main(["--count"]) == 0
    text = capsys.readouterr().out
    assert f"public names: {len(tp.__all__)}" in text
    for what, have, asked in re.findall(r"^(\w+): (\d+) of (\d+)", text, re.MULTILINE):
        assert have == asked, what
