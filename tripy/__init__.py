"""tripy: quantized inference with lazy tensors, modules and a compiler."""

from tripy import config, types
from tripy.compiler import compile
from tripy.device import device
from tripy.dtypes import (
    bfloat16,
    bool,
    dtype,
    float8,
    float16,
    float32,
    floating,
    int4,
    int8,
    int32,
    int64,
    integer,
)  # fmt: skip
from tripy.errors import TripyException
from tripy.executable import Executable
from tripy.generation import generate
from tripy.input_info import Bounds, DimensionInputInfo, InputInfo, NamedDimension
from tripy.logger import logger
from tripy.nn import *  # noqa: F403
from tripy.nn import __all__ as _modules
from tripy.ops import *  # noqa: F403
from tripy.ops import __all__ as _functions
from tripy.ops.foreign import instead_of as _instead_of
from tripy.ops.plugins import register_plugin
from tripy.stream import Stream, default_stream
from tripy.tensor import DimensionSize, Tensor

__version__ = "0.1.0"

__all__ = [
    "Bounds", "DimensionInputInfo", "DimensionSize", "Executable", "InputInfo", "NamedDimension",
    "Stream", "Tensor", "TripyException", "bfloat16", "bool", "compile", "config",
    "default_stream", "device", "dtype", "float8", "float16", "float32", "floating", "generate",
    "int4", "int8", "int32", "int64", "integer", "logger", "register_plugin", "types",
    *_functions, *_modules,
]  # fmt: skip


def __getattr__(name: str) -> object:
    raise AttributeError(f"tripy has no '{name}'.{_instead_of(name, __all__)}")
