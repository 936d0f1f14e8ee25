"""Operations: thin functions that check arguments and record a node. One family a file."""

from tripy.ops import foreign as foreign  # Makes errors of ``tensor.name`` helpful.
from tripy.ops import indexing as indexing  # Makes ``tensor[index]`` work.
from tripy.ops.comparison import allclose, equal
from tripy.ops.create import (
    arange,
    full,
    full_like,
    iota,
    iota_like,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from tripy.ops.elementwise import (
    cast,
    cos,
    exp,
    gelu,
    log,
    relu,
    rsqrt,
    sigmoid,
    silu,
    sin,
    sqrt,
    tanh,
)
from tripy.ops.joining import concatenate, split, stack
from tripy.ops.linear_algebra import (
    kv_cache_update,
    outer,
    rotary_embedding,
    scaled_dot_product_attention,
)
from tripy.ops.movement import (
    copy,
    expand,
    flatten,
    gather,
    permute,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)
from tripy.ops.plugins import plugin
from tripy.ops.quantization import dequantize, dynamic_quantize, quantize
from tripy.ops.reduction import (
    all,
    any,
    argmax,
    argmin,
    cumsum,
    max,
    mean,
    min,
    prod,
    softmax,
    sum,
    topk,
    var,
)
from tripy.ops.selection import masked_fill, maximum, minimum, where
from tripy.ops.spatial import avgpool, maxpool, resize
from tripy.ops.tiling import flip, pad, repeat

__all__ = [
    "all", "allclose", "any", "arange", "argmax", "argmin", "avgpool", "cast", "concatenate",
    "copy", "cos", "cumsum", "dequantize", "dynamic_quantize", "equal", "exp", "expand", "flatten",
    "flip", "full", "full_like", "gather", "gelu", "iota", "iota_like", "kv_cache_update", "log",
    "masked_fill", "max", "maximum", "maxpool", "mean", "min", "minimum", "ones", "ones_like",
    "outer", "pad", "permute", "plugin", "prod", "quantize", "relu", "repeat", "reshape", "resize",
    "rotary_embedding", "rsqrt", "scaled_dot_product_attention", "sigmoid", "silu", "sin",
    "softmax", "split", "sqrt", "squeeze", "stack", "sum", "tanh", "topk", "transpose", "tril",
    "triu", "unsqueeze", "var", "where", "zeros", "zeros_like",
]  # fmt: skip
