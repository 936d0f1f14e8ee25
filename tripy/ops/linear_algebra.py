"""Outer products, attention, its cache, and rotary embeddings; the matrix product is ``@``."""

from __future__ import annotations

from typing import Optional

from tripy.dtypes import FLOATS
from tripy.errors import TripyException
from tripy.ops import arguments
from tripy.tensor import Tensor, apply


def outer(vec1: Tensor, vec2: Tensor) -> Tensor:
    """The product of each element of one vector with each of another.

    Args:
        vec1: A vector of float32, float16 or bfloat16.
        vec2: A vector of the same data type.

    Returns:
        A matrix of shape [vec1's size, vec2's size].

    Raises:
        TripyException: For tensors of another rank.

    Example:
        >>> import tripy as tp
        >>> tp.outer(tp.Tensor([1.0, 2.0]), tp.Tensor([3.0, 4.0])).tolist()
        [[3.0, 4.0], [6.0, 8.0]]
    """
    for tensor, name in ((vec1, "vec1"), (vec2, "vec2")):
        if arguments.tensor_of("outer", tensor, FLOATS, name).rank != 1:
            raise TripyException(
                f"outer: {name} is not a vector.",
                got=f"{name}: {tensor._value.type_text}",
                expected="a tensor of rank 1",
                hint="tp.flatten",
                tensors=[(name, tensor)],
            )
    column = apply("reshape", [vec1], {"shape": (*vec1._value.shape, 1)})
    return apply("mul", [column, vec2])


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Optional[Tensor] = None,
    is_causal: bool = False,
    scale: Optional[float] = None,
    key_value_lengths: Optional[Tensor] = None,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` for each head.

    (Vaswani et al., "Attention Is All You Need", 2017.) With fewer key and value heads than query
    heads, each of them serves a group of query heads (Ainslie et al., "GQA", 2023).

    Args:
        query: [batch, heads, length, dim].
        key: [batch, key/value heads, key length, dim].
        value: [batch, key/value heads, key length, value dim].
        mask: Broadcastable to [batch, heads, length, key length]; a bool mask is True where a
            query may look at a key, one of the query's data type is added to the scores.
        is_causal: Whether query i sees keys 0 to i only. As in PyTorch, positions are counted
            from the start in queries and keys alike, also where their lengths differ.
        scale: What scores are multiplied with; by default ``1 / sqrt(dim)``.
        key_value_lengths: int32 [batch]: how many keys and values of each batch row count; those
            after them, such as the unwritten end of a cache, are not looked at. Queries that may
            look at no key, here or by a mask, give zeros.

    Returns:
        [batch, heads, length, value dim].

    Raises:
        TripyException: For shapes that do not fit, a mask beside ``is_causal`` or
            ``key_value_lengths``, and lengths outside the keys wherever they are known on the host.

    Example:
        >>> import tripy as tp
        >>> q = tp.ones((1, 2, 3, 4))
        >>> tp.scaled_dot_product_attention(q, q, q, is_causal=True).shape
        (1, 2, 3, 4)
    """
    op = "scaled_dot_product_attention"
    for tensor, name in ((query, "query"), (key, "key"), (value, "value")):
        arguments.tensor(op, tensor, name)
    if mask is not None:
        arguments.tensor(op, mask, "mask")
    if key_value_lengths is not None:
        arguments.tensor(op, key_value_lengths, "key_value_lengths")
    attrs = {
        "is_causal": arguments.choice(op, is_causal, "is_causal", (True, False)),
        "scale": None if scale is None else float(arguments.number(op, scale, "scale")),
    }
    return apply(op, [query, key, value, mask, key_value_lengths], attrs)


def kv_cache_update(cache: Tensor, update: Tensor, write_indices: Tensor) -> Tensor:
    """A key or value cache with new positions written into it.

    The result is functional: the cache that is passed in keeps its values. In a compiled function,
    a cache that is an argument and is not read afterwards is written in place, and the result has
    its memory.

    Args:
        cache: [batch, heads, capacity, dim].
        update: [batch, heads, n, dim].
        write_indices: int32 [batch]: the position at which each batch row is written.

    Returns:
        [batch, heads, capacity, dim].

    Raises:
        TripyException: For shapes that do not fit, and for positions past the capacity wherever
            they are known on the host.

    Example:
        >>> import tripy as tp
        >>> cache = tp.zeros((1, 1, 4, 1))
        >>> new = tp.kv_cache_update(cache, tp.ones((1, 1, 2, 1)), tp.Tensor([1]))
        >>> tp.flatten(new).tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    op = "kv_cache_update"
    for tensor, name in ((cache, "cache"), (update, "update"), (write_indices, "write_indices")):
        arguments.tensor(op, tensor, name)
    return apply(op, [cache, update, write_indices])


def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Pairs of elements rotated by an angle that depends on the position.

    (Su et al., "RoFormer", 2021.) A pair (a, b) becomes
    ``(a * cos - b * sin, b * cos + a * sin)``.

    Args:
        input: [..., length, dim] with an even dim.
        cos: Cosines of the angles, broadcastable to [..., length, dim / 2].
        sin: Sines of the angles, of the same shape.
        interleaved: Whether pairs are neighbours (0, 1), (2, 3), …; else elements i and
            i + dim / 2 are a pair, as Llama's checkpoints have it.

    Returns:
        A tensor of the input's shape.

    Example:
        >>> import tripy as tp
        >>> x = tp.Tensor([[1.0, 2.0]])
        >>> tp.rotary_embedding(x, tp.zeros((1, 1)), tp.ones((1, 1))).tolist()
        [[-2.0, 1.0]]
    """
    op = "rotary_embedding"
    for tensor, name in ((input, "input"), (cos, "cos"), (sin, "sin")):
        arguments.tensor(op, tensor, name)
    attrs = {"interleaved": arguments.choice(op, interleaved, "interleaved", (True, False))}
    return apply(op, [input, cos, sin], attrs)
