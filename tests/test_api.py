"""The public names: all that the API page promises, with its arguments, and nothing more."""

from __future__ import annotations

import ast
import inspect
import pkgutil

import pytest
import torch

import tripy as tp
from docs.tools import public
from tripy import nn, ops

# Name → arguments with their defaults, as the API page has them.
SIGNATURES = {
    "full": "shape, value, dtype=float32",
    "full_like": "input, value, dtype=None",
    "ones": "shape, dtype=float32",
    "zeros": "shape, dtype=float32",
    "ones_like": "input, dtype=None",
    "zeros_like": "input, dtype=None",
    "iota": "shape, dim=0, dtype=float32",
    "iota_like": "input, dim=0, dtype=None",
    "tril": "tensor, diagonal=0",
    "triu": "tensor, diagonal=0",
    "allclose": "input, other, rtol=1e-05, atol=1e-08",
    "equal": "input, other",
    "cast": "input, dtype",
    "concatenate": "tensors, dim",
    "stack": "tensors, dim=0",
    "copy": "input, device",
    "cumsum": "input, dim",
    "expand": "input, sizes",
    "flatten": "input, start_dim=0, end_dim=-1",
    "flip": "input, dim=None",
    "gather": "input, dim, index",
    "masked_fill": "input, mask, value",
    "where": "condition, input, other",
    "maximum": "lhs, rhs",
    "minimum": "lhs, rhs",
    "outer": "vec1, vec2",
    "pad": "input, pad, mode='constant', value=0",
    "permute": "input, perm",
    "transpose": "input, dim0, dim1",
    "repeat": "input, repeats, dim",
    "reshape": "input, shape",
    "softmax": "input, dim=None",
    "split": "input, num_split_or_sizes, dim=0",
    "squeeze": "input, dims",
    "unsqueeze": "input, dim",
    "avgpool": "input, kernel_dims, stride=None, padding=None, count_include_pad=True",
    "maxpool": "input, kernel_dims, stride=None, padding=None",
    "sum": "input, dim=None, keepdim=False",
    "prod": "input, dim=None, keepdim=False",
    "max": "input, dim=None, keepdim=False",
    "min": "input, dim=None, keepdim=False",
    "mean": "input, dim=None, keepdim=False",
    "var": "input, dim=None, keepdim=False, correction=1",
    "all": "input, dim=None, keepdim=False",
    "any": "input, dim=None, keepdim=False",
    "argmax": "input, dim=None, keepdim=False",
    "argmin": "input, dim=None, keepdim=False",
    "topk": "input, k, dim",
    **dict.fromkeys(["cos", "exp", "log", "rsqrt", "sin", "sqrt"], "input"),
    **dict.fromkeys(["sigmoid", "silu", "tanh", "relu"], "input"),
    "gelu": "input, approximate='none'",
    "scaled_dot_product_attention": (
        "query, key, value, mask=None, is_causal=False, scale=None, key_value_lengths=None"
    ),
    "kv_cache_update": "cache, update, write_indices",
    "plugin": "name, inputs, **attributes",
    "register_plugin": "name, *, outputs, version='1'",
    "rotary_embedding": "input, cos, sin, interleaved=False",
    "quantize": "input, scale, dtype, dim=None",
    "dequantize": "input, scale, dtype, dim=None",
    "dynamic_quantize": "input, dtype, dim=None",
    "Linear": "in_features, out_features, bias=True, dtype=float32, quant_dtype=None, "
    "weight_quant_dim=None",
    "Embedding": "num_embeddings, embedding_dim, dtype=float32",
    "LayerNorm": "normalized_shape, dtype=float32, eps=1e-05",
    "RMSNorm": "normalized_shape, dtype=float32, eps=1e-05",
    "GroupNorm": "num_groups, num_channels, dtype=float32, eps=1e-05",
    "InstanceNorm": "num_channels, dtype=float32, eps=1e-05",
    "BatchNorm": "num_features, dtype=float32, eps=1e-05",
    "Sequential": "*modules",
    "Tensor": "data, dtype=None, device=None, name=None",
    "DimensionSize": "data, name=None",
    "NamedDimension": "name, min, opt, max",
    "InputInfo": "shape, dtype",
    "DimensionInputInfo": "value_bounds",
    "Bounds": "min, opt, max",
    "compile": "func, optimization_level=3, *, args=(), kwargs=None, backend='auto', device=None, "
    "target=None",
    "generate": "decode, prompts, caches, *, prefill, max_new_tokens, temperature=0.0, top_k=None, "
    "seed=0, row_ids=None, stop_tokens=(), lookahead=8",
    "Stream": "priority=0",
}
# Overloads and others that are told by what they accept.
OTHERS = {"arange", "resize", "Conv", "ConvTranspose", "Parameter", "Module", "Executable",
          "default_stream", "device", "dtype"}  # fmt: skip
TYPES = ["float32", "float16", "bfloat16", "float8", "int4", "int8", "int32", "int64", "bool"]


def arguments(name):
    found = getattr(tp, name)
    texts = []
    for parameter in inspect.signature(found).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        texts.append(str(parameter.replace(annotation=inspect.Parameter.empty)))
    return ", ".join(texts)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert arguments(name) == SIGNATURES[name]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_signatures_of_convolutions(kind):
    assert arguments(kind).startswith(
        "in_channels, out_channels, kernel_dims, stride=None, padding=None, dilation=None, "
        "groups=None, bias=True, dtype=float32"
    )


def test_overloads():
    assert tp.arange(3).tolist() == [0.0, 1.0, 2.0]
    assert tp.arange(1, 7, 2, dtype=tp.int32).tolist() == [1, 3, 5]
    image = tp.ones((1, 1, 2, 2))
    assert tp.resize(image, (1, 1, 4, 4)).shape == (1, 1, 4, 4)
    assert tp.resize(image, [1.0, 1.0, 2.0, 2.0], mode="nearest").shape == (1, 1, 4, 4)


def test_nothing_is_public_that_is_not_described():
    described = set(SIGNATURES) | OTHERS | set(TYPES)
    described |= {"TripyException", "config", "logger", "types", "floating", "integer"}
    assert set(tp.__all__) == described
    assert len(set(tp.__all__)) == len(tp.__all__)


ENTRIES = public.entries()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_public_name_has_what_it_has_to_have(entry):
    """Schema, docstring, example, annotations and test: whichever its kind needs."""
    lacking = [what for what in public.required(entry) if not public.PREDICATES[what](entry)]
    assert not lacking, f"{entry.kind} {entry.name} has no {' and no '.join(lacking)}"


def test_the_walk_meets_everything():
    found = {entry.name: entry.kind for entry in ENTRIES}
    assert len(found) == len(ENTRIES)
    assert set(tp.__all__) <= set(found)
    functions = {name for name, kind in found.items() if kind == "function"}
    assert functions == {*ops.__all__, "compile", "default_stream", "generate", "register_plugin"}
    modules = {name for name, kind in found.items() if kind == "module"}
    assert modules == {*nn.__all__} - {"Module", "Parameter"}
    methods = {f"{c.__name__}.{n}" for c, names in METHODS.items() for n in names.split()}
    assert {name for name in methods if "._" not in name} <= set(found)
    assert {f"{name}.forward" for name in modules} <= set(found)
    for name in ("Tensor.__add__", "Tensor.__getitem__", "Module.__call__", "Executable.load"):
        assert name in found


def lacks(found, kind, name="softmax"):
    entry = public.Entry(name, kind, found)
    return [what for what in public.required(entry) if not public.PREDICATES[what](entry)]


def test_the_walk_finds_what_is_missing():
    def bare(x, *, y: int = 0):
        return x

    class Bare:
        def __init__(self, x) -> None: ...

        @property
        def size(self):
            """Not annotated."""

    assert lacks(bare, "function") == ["docstring", "example", "annotations"]
    assert public.missing_annotations(public.Entry("f", "function", bare)) == ["x", "return"]
    # Put together, or it would be found here.
    unknown = "no" + "where"
    assert lacks(tp.softmax, "method", f"Tensor.{unknown}") == ["test"]
    assert lacks(Bare, "class", unknown) == ["docstring", "example", "annotations", "test"]
    assert public.missing_annotations(public.Entry("s", "property", Bare.size)) == ["return"]


def test_an_operation_without_a_schema_is_found(monkeypatch):
    entry = public.Entry("softmax", "function", tp.softmax)
    assert public.has_schema(entry)
    monkeypatch.delitem(public.SCHEMAS, "softmax")
    assert not public.has_schema(entry)


def test_members_that_other_tests_do_not_need():
    assert tp.ones((2,)).location.place().startswith(__file__)
    assert tp.Stream().ptr == 0 or torch.cuda.is_available()
    fast = tp.compile(lambda x: x + 1, args=[tp.InputInfo((2,), tp.float32)], backend="torch")
    assert [layer.kind for layer in fast.layers()] == ["add"]
    with pytest.raises(tp.TripyException, match="there is no engine"):
        fast.serialized_tensorrt_engine  # noqa: B018


METHODS = {
    tp.Tensor: "eval tolist numpy torch copy cast reshape transpose flatten permute squeeze "
    "unsqueeze __dlpack__ __dlpack_device__ __bool__ __iter__ __getitem__ __matmul__",
    tp.Module: "forward __call__ state_dict load_state_dict named_children named_parameters "
    "initialize_dummy_parameters",
    tp.Executable: "__call__ save load report",
    tp.Stream: "synchronize __eq__ __hash__",
    tp.Bounds: "is_static",
}
PROPERTIES = {
    tp.Tensor: "name dtype rank ndim device shape",
    tp.Executable: "stream device graph",
    tp.Stream: "ptr",
}


@pytest.mark.parametrize("found", METHODS, ids=lambda c: c.__name__)
def test_methods(found):
    for name in METHODS[found].split():
        assert callable(getattr(found, name)), name


@pytest.mark.parametrize("found", PROPERTIES, ids=lambda c: c.__name__)
def test_properties(found):
    for name in PROPERTIES[found].split():
        assert isinstance(inspect.getattr_static(found, name), property), name


@pytest.mark.parametrize("name", TYPES)
def test_data_types(name):
    kind = getattr(tp, name)
    assert isinstance(kind, tp.dtype)
    assert str(kind) == kind.name == name
    assert issubclass(kind, tp.floating) == ("float" in name)
    assert issubclass(kind, tp.integer) == name.startswith("int")
    bits = 8 if name == "bool" else int("".join(filter(str.isdigit, name)))
    assert kind.itemsize == bits / 8


def test_names_for_annotations():
    for name in ("TensorLike", "IntLike", "ShapeLike"):
        assert hasattr(tp.types, name)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"tripy has no 'lineer'.*tp\.Linear"):
        tp.lineer  # noqa: B018
    with pytest.raises(AttributeError, match=r"tripy has no 'zzzz'\.$"):
        tp.zzzz  # noqa: B018
    assert not hasattr(tp, "__path_that_is_not_there__")


def test_streams():
    stream = tp.Stream()
    stream.synchronize()
    assert stream == stream
    assert stream != tp.Stream()
    assert hash(stream) == hash(stream)
    assert tp.default_stream() == tp.default_stream(tp.device("cpu"))
    assert {tp.default_stream(): 1}[tp.default_stream()] == 1


def asserts(source):
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def test_no_assert_checks_what_a_user_gives():
    """Those that are there tell mypy what cannot be otherwise."""
    found = {}
    for module in pkgutil.walk_packages(tp.__path__, "tripy."):
        if module.name.startswith(("tripy.ops", "tripy.nn")):
            source = inspect.getsource(pkgutil.resolve_name(module.name))
            found[module.name] = asserts(source)
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_package_is_typed():
    assert pkgutil.get_data("tripy", "py.typed") == b""
