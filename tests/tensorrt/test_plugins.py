"""Plugins: TensorRT's registry, creators and fields are real; only the layer is stood in for.

TensorRT-RTX has a registry and no plugin layers, so that no plugin has been built into an engine.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tripy as tp
from tests.helpers import raises
from tests.saving.support import info
from tripy.backends.tensorrt.lowering import LOWERINGS, Unsupported
from tripy.backends.tensorrt.lowering.plugins import made
from tripy.graph import make_node

trt = pytest.importorskip("tensorrt_rtx")
FIELDS = {
    "half": ("FLOAT16", np.float16), "factor": ("FLOAT32", np.float32),
    "wide": ("FLOAT64", np.float64), "flag": ("INT8", np.int8), "small": ("INT16", np.int16),
    "sizes": ("INT32", np.int32), "count": ("INT64", np.int64),
}  # fmt: skip


@tp.register_plugin("tests::like", outputs=lambda x, **attributes: (x.shape, x.dtype))
def like(x, **attributes):
    return x.clone()


class Creator(trt.IPluginCreatorV3One):
    """Keeps what it is asked to make, as numpy arrays of the types that TensorRT gives."""

    def __init__(self):
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = "like", "tests", "1"
        fields = [
            trt.PluginField(name, np.array([], dtype=kind), trt.PluginFieldType.__members__[field])
            for name, (field, kind) in FIELDS.items()
        ]
        fields.append(trt.PluginField("text", b"", trt.PluginFieldType.CHAR))
        fields.append(trt.PluginField("shape", b"", trt.PluginFieldType.DIMS))
        self.field_names = trt.PluginFieldCollection(fields)

    def create_plugin(self, name, fields, phase):
        assert phase == trt.TensorRTPhase.BUILD
        return SimpleNamespace(
            name=name,
            fields={
                f.name: None if f.type == trt.PluginFieldType.FLOAT16 else f.data.copy()
                for f in fields
            },
        )  # Python cannot read float16 of a field.


@pytest.fixture(scope="module", autouse=True)
def creator():
    found, registry = Creator(), trt.get_plugin_registry()
    assert registry.register_creator(found, "tests")
    yield found
    registry.deregister_creator(found)


def node(name="tests::like", version="1", **attributes):
    x = tp.ones((2,))._value
    attrs = {
        "name": name, "version": version, "attributes": tuple(attributes.items()),
        "shapes": (x.shape,), "dtypes": (x.dtype,),
    }  # fmt: skip
    return make_node("plugin", [x], attrs)


def test_attributes_become_fields_of_the_types_that_the_creator_names():
    given = {
        "half": 0.5, "factor": 2, "wide": (0.1, float("inf")), "flag": True, "small": -7.0,
        "sizes": (1, 2, 3), "count": 2**40,
    }  # fmt: skip
    plugin = made(trt, node(text="even", **given))
    assert plugin.name == "like"
    assert bytes(plugin.fields.pop("text")) == b"even"
    assert set(plugin.fields) == set(given)
    for name, value in given.items():
        field = plugin.fields[name]
        if name != "half":
            assert field.dtype == FIELDS[name][1]
            assert field.tolist() == (list(value) if isinstance(value, tuple) else [value])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"flag": 300}, "flag=300 does not fit a field of INT8"),
        ({"sizes": (1, 2.5)}, "does not fit a field of INT32"),
        ({"count": float("nan")}, "does not fit a field of INT64"),
        ({"factor": "text"}, "does not fit a field of FLOAT32"),
        ({"text": 3}, "does not fit a field of CHAR"),
        ({"shape": (2, 3)}, "does not fit a field of DIMS"),
        ({"other": 1}, "tests::like has no attribute other"),
    ],
    ids=str,
)
def test_attributes_that_do_not_fit(attributes, message):
    with pytest.raises(Unsupported, match=message):
        made(trt, node(**attributes))


def test_plugins_that_are_not_registered_with_it():
    for name, version in (("tests::like", "2"), ("tests::other", "1"), ("others::like", "1")):
        with pytest.raises(Unsupported, match=f"no plugin {name} of version {version}"):
            made(trt, node(name, version))


class Net:
    """As much of a network as the lowering asks for; it records the layer."""

    def __init__(self, kind=trt.float32, shape=(2,), outputs=1):
        self.trt, self.types, self.asked = trt, {tp.float32: trt.float32}, None
        self.result = SimpleNamespace(dtype=kind, shape=shape)
        self._layer = SimpleNamespace(num_outputs=outputs, get_output=lambda i: self.result)
        self.raw = SimpleNamespace(add_plugin_v3=self._add)
        self.finish = self.checked = lambda found: found

    def _add(self, tensors, shapes, plugin):
        self.asked = (tensors, shapes, plugin.name)
        return self._layer


def test_the_layer():
    net = Net()
    assert LOWERINGS["plugin"](net, node(factor=2.0), "x") == [net.result]
    assert net.asked == (["x"], [], "like")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Net(kind=trt.int32), "gives DataType.INT32 of shape"),
        (Net(shape=(3,)), "but float32.2. is declared"),
        (Net(shape=(2, 1)), "but float32.2. is declared"),
        (Net(outputs=2), "has 2 outputs, 1 are declared"),
    ],
    ids=["type", "size", "rank", "count"],
)
def test_a_layer_that_gives_something_else(net, message):
    with pytest.raises(Unsupported, match=message):
        LOWERINGS["plugin"](net, node(), "x")


def test_tensorrt_rtx_has_no_plugin_layers():
    def function(x):
        return tp.plugin("tests::like", [x])  # the user's line

    wanted = "TensorRT has nothing for it: tensorrt_rtx has no plugin layers[\\s\\S]*full TensorRT"
    with raises(wanted, "# the user's line"):
        tp.compile(function, args=[info(2)], backend="tensorrt", target="sm_89")
