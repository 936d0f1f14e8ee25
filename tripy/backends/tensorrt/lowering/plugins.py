"""Operations that a user has written, as layers of TensorRT's plugins."""

from __future__ import annotations

from typing import Any

import torch

from tripy.backends.tensorrt.lowering.table import Unsupported, lowering
from tripy.backends.tensorrt.network import Network
from tripy.backends.tensorrt.sizes import is_static
from tripy.graph import Node

# The fields that numbers are given in; TensorRT reads their elements from memory.
NUMBERS = {
    "FLOAT16": torch.float16, "FLOAT32": torch.float32, "FLOAT64": torch.float64,
    "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64,
}  # fmt: skip


@lowering("plugin")
def _plugin(net: Network, node: Node, *tensors: Any) -> list[Any]:
    name = node.attrs["name"]
    if not hasattr(net.raw, "add_plugin_v3"):
        raise Unsupported(
            f"{net.trt.__name__} has no plugin layers, so {name} cannot be one",
            'backend="torch", or the full TensorRT: pip install tensorrt-cu13',
        )
    layer = net.finish(net.raw.add_plugin_v3(list(tensors), [], made(net.trt, node)))
    if layer.num_outputs != len(node.outputs):
        raise Unsupported(
            f"TensorRT's {name} has {layer.num_outputs} outputs, {len(node.outputs)} are declared"
        )
    results = []
    for position, value in enumerate(node.outputs):
        tensor = net.checked(layer.get_output(position))
        own, declared = tuple(tensor.shape), value.shape
        differs = len(own) != len(declared) or any(
            size >= 0 and isinstance(wanted, int) and size != wanted
            for size, wanted in zip(own, declared)
        )
        if tensor.dtype != net.types[value.dtype] or differs:
            raise Unsupported(
                f"TensorRT's {name} gives {tensor.dtype} of shape {own}, but {value.type_text} is "
                "declared",
                "the same types and shapes in outputs= as TensorRT's plugin has",
            )
        # A result of another size is then an error when it runs, and never written past the end of
        # the memory that it was given.
        results.append(tensor if is_static(declared) else net.reshape(tensor, declared))
    return results


def made(trt: Any, node: Node) -> Any:
    """The plugin, made by its creator in TensorRT's registry from the node's attributes."""
    namespace, _, name = node.attrs["name"].partition("::")
    version = node.attrs["version"]
    creator: Any = trt.get_plugin_registry().get_creator(name, version, namespace)
    if creator is None:
        raise Unsupported(
            f"no plugin {node.attrs['name']} of version {version} is registered with it",
            "tensorrt.plugin.register, or loading the library that has it, before tp.compile",
        )
    fields, kept = collection(trt, creator, node)
    phase = trt.TensorRTPhase.BUILD
    quick: Any = getattr(trt, "IPluginCreatorV3Quick", None)
    if quick is not None and isinstance(creator, quick):
        # Made with tensorrt.plugin's decorators. One that is compiled ahead of time needs no Python
        # where the engine runs; without it, the other kind is made.
        request = getattr(trt, "QuickPluginCreationRequest", None)
        rest = () if request is None else (request.PREFER_AOT,)
        plugin = creator.create_plugin(name, namespace, fields, phase, *rest)
    elif isinstance(creator, trt.IPluginCreatorV3One):
        plugin = creator.create_plugin(name, fields, phase)
    else:
        raise Unsupported(f"the plugin {node.attrs['name']} has an interface older than V3")
    del kept  # Creators copy what they need: until here, fields point into this memory.
    if plugin is None:
        raise Unsupported(f"the creator of {node.attrs['name']} has made none")
    return plugin


def collection(trt: Any, creator: Any, node: Node) -> tuple[Any, list[Any]]:
    """The attributes as fields of the types that a creator asks for, and what holds their memory.

    Raises:
        Unsupported: For attributes that the creator does not know or that do not fit its types.
    """
    wanted = {field.name: field.type for field in creator.field_names}
    fields: list[Any] = []
    kept: list[Any] = []
    for name, value in node.attrs["attributes"]:
        if name not in wanted:
            raise Unsupported(
                f"the plugin {node.attrs['name']} has no attribute {name}",
                f"one of {', '.join(wanted) or 'none'}",
            )
        kind = wanted[name]
        if kind == trt.PluginFieldType.CHAR and isinstance(value, str):
            text = value.encode()
            kept.append(text)
            fields.append(trt.PluginField(name, text, kind))
            continue
        data = _numbers(kind.name, value, f"{node.attrs['name']}: the attribute {name}={value!r}")
        kept.append(data)
        fields.append(trt.PluginField(name, data.numpy(), kind))
    return trt.PluginFieldCollection(fields), kept


def _numbers(kind: str, value: Any, what: str) -> torch.Tensor:
    """An attribute's numbers in a field's type, exactly but for the rounding of floats."""
    items = list(value) if isinstance(value, tuple) else [value]
    if kind not in NUMBERS or any(isinstance(item, str) for item in items):
        raise Unsupported(f"{what} does not fit a field of {kind}")
    target = NUMBERS[kind]
    if not target.is_floating_point:
        low, high = torch.iinfo(target).min, torch.iinfo(target).max
        if any(item != item or not low <= item <= high or item != int(item) for item in items):
            raise Unsupported(f"{what} does not fit a field of {kind}")
        items = [int(item) for item in items]
    return torch.tensor(items, dtype=target)
