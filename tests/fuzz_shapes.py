"""More steps for random graphs: moving, creating, reducing, and what models are made of."""

from __future__ import annotations

from typing import Optional

import numpy as np
import torch

import tripy as tp
from tests.fuzz import Program, Step
from tests.fuzz_steps import ANY, FLOATS, INTS, NUMBERS, SMALL, axis, constant, family, step, tame

MOVED = (*ANY, *SMALL)


@family("reshape", weight=2)
def _reshape(p: Program) -> Optional[Step]:
    name, run, least = p.choose(
        [
            ("reshape to one", lambda x: tp.reshape(x, (-1,)), 0),
            ("reshape first two", lambda x: tp.reshape(
                x, [x.shape[0] * x.shape[1], *x.shape[2:]]), 2),
            ("reshape last with -1", lambda x: tp.reshape(x, [*x.shape[:-1], 1, -1]), 1),
            ("reshape turned", lambda x: tp.reshape(x, [x.shape[1], x.shape[0], *x.shape[2:]]), 2),
            ("unsqueeze", lambda x: tp.unsqueeze(x, 0), 0),
            ("unsqueeze last", lambda x: tp.unsqueeze(x, -1), 0),
            ("flatten", lambda x: tp.flatten(x), 1),
        ]
    )  # fmt: skip
    kinds = ANY if name == "flatten" else MOVED
    return step(f"{name}({{0}})", run, p.pick(*kinds, least=least))


@family("permute")
def _permute(p: Program) -> Optional[Step]:
    x = p.pick(*MOVED, least=2)
    if x is None:
        return None
    order = tuple(int(i) for i in p.rng.permutation(p.value(x).rank))
    return step(f"permute({{0}}, {order})", lambda a: tp.permute(a, order), x)


@family("expand")
def _expand(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, *INTS, tp.bool)
    y = p.pick(*ANY)
    if x is None or y is None or p.value(y).rank < p.value(x).rank:
        return None
    return step("expand({0}, shape of {1})", lambda a, b: tp.expand(a, b.shape), x, y)


@family("concatenate", weight=2)
def _concatenate(p: Program) -> Optional[Step]:
    x = p.pick(*MOVED, least=1)
    if x is None:
        return None
    dim, shape = axis(p, x), p.value(x).shape

    def fits(t: tp.Tensor) -> bool:
        d = dim % len(shape)
        return t.rank == len(shape) and all(
            i == d or m == n for i, (m, n) in enumerate(zip(t.shape, shape))
        )

    y = p.pick(p.value(x).dtype, fits=fits)
    return step(f"concatenate([{{0}}, {{1}}, {{0}}], {dim})",
                lambda a, b: tp.concatenate([a, b, a], dim), x, y)  # fmt: skip


@family("concatenate", "reshape")
def _stack(p: Program) -> Optional[Step]:
    x = p.pick(*MOVED)
    if x is None:
        return None
    y = p.pick(p.value(x).dtype, fits=lambda t: t.shape == p.value(x).shape)
    dim = int(p.rng.integers(0, p.value(x).rank + 1))
    return step(f"stack([{{0}}, {{1}}], {dim})", lambda a, b: tp.stack([a, b], dim), x, y)


@family("slice", weight=4)
def _slice(p: Program) -> Optional[Step]:
    name, run = p.choose(
        [
            ("[1:]", lambda x: x[1:]),
            ("[:-1]", lambda x: x[:-1]),
            ("[-2:]", lambda x: x[-2:]),
            ("[::-1]", lambda x: x[::-1]),
            ("[::2]", lambda x: x[::2]),
            ("[3:0:-2]", lambda x: x[3:0:-2]),
            ("[..., 0]", lambda x: x[..., 0]),
            ("[0]", lambda x: x[0]),
            ("[-1]", lambda x: x[-1]),
            ("[None, ..., None]", lambda x: x[None, ..., None]),
            ("[: n // 2]", lambda x: x[: x.shape[0] // 2]),
            ("[n // 2 :]", lambda x: x[x.shape[0] // 2 :]),
            ("[n - 1]", lambda x: x[x.shape[0] - 1]),
            ("[: m of the last]", lambda x: x[: x.shape[-1]]),
            ("[n - 1 :: -1]", lambda x: x[x.shape[0] - 1 :: -1]),
        ]
    )
    kinds = [kind for kind in MOVED if kind is not tp.float8]
    return step(f"{{0}}{name}", run, p.pick(*kinds, least=1))


@family("slice", "concatenate")
def _tiling(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, *INTS, tp.bool, least=1)
    if x is None:
        return None
    dim = axis(p, x)
    name, run = p.choose(
        [
            ("flip", lambda a: tp.flip(a, dim)),
            ("repeat", lambda a: tp.repeat(a, 2, dim)),
            ("pad", lambda a: tp.pad(a, [(1, 0)] * a.rank)),
        ]
    )
    return step(f"{name}({{0}}, {dim})", run, x)


@family("pad")
def _pad(p: Program) -> Optional[Step]:
    x, mode = p.pick(*FLOATS, *INTS, tp.bool, least=1), p.choose(["constant", "reflect"])
    return step(f"pad({{0}}, (0, 2) each, {mode})",
                lambda a: tp.pad(a, [(0, 2)] + [(1, 0)] * (a.rank - 1), mode), x)  # fmt: skip


@family("split")
def _split(p: Program) -> Optional[Step]:
    x = p.pick(*MOVED, least=1)
    if x is None:
        return None
    dim = axis(p, x)
    name, run = p.choose(
        [
            ("in 2", lambda a: tp.split(a, 2, dim)),
            ("first and rest", lambda a: tp.split(a, [1, a.shape[dim] - 1], dim)),
        ]
    )
    return step(f"split({{0}}, {name}, {dim})", run, x)


@family("gather")
def _gather(p: Program) -> Optional[Step]:
    x = p.pick(*MOVED, least=1)
    if x is None:
        return None
    dim, index = axis(p, x), tp.Tensor(p.rng.integers(-1, 1, (2, 2)).astype(np.int32))
    return step(f"gather({{0}}, {dim}, constant)", lambda a: tp.gather(a, dim, index), x)


@family("gather")
def _gather_computed(p: Program) -> Optional[Step]:
    x, y = p.pick(*MOVED, least=1), p.pick(*INTS)
    return step("gather({0}, 0, {1} % n)", lambda a, i: tp.gather(a, 0, i % a.shape[0]), x, y)


@family("copy")
def _copy(p: Program) -> Optional[Step]:
    return step("copy({0})", lambda a: tp.copy(a, tp.device("cpu")), p.pick(*MOVED))


@family("full", "iota", "dimension", "tril", "triu", weight=3)
def _create(p: Program) -> Optional[Step]:
    name, run, least = p.choose(
        [
            ("ones", lambda x: tp.ones(x.shape), 0),
            ("full_like", lambda x: tp.full_like(x, 1), 0),
            ("iota_like", lambda x: tp.iota_like(x, -1), 1),
            ("iota", lambda x: tp.iota((x.shape[0], 2), 0, tp.int32), 1),
            ("arange", lambda x: tp.arange(x.shape[0]), 1),
            ("arange of a product", lambda x: tp.arange(x.shape[0] * x.shape[-1] - 1), 2),
            ("zeros of a sum", lambda x: tp.zeros((x.shape[0] + x.shape[-1], 2)), 2),
            ("tril", lambda x: tp.tril(x, 1), 2),
            ("triu", lambda x: tp.triu(x), 2),
            ("times its size", lambda x: x * x.shape[0], 1),
            ("size minus it", lambda x: x.shape[-1] // 2 - x, 1),
        ]
    )
    # A dynamic size that may not fit int8 is refused.
    kinds = [k for k in NUMBERS if k is not tp.int8] if "size" in name else NUMBERS
    return step(f"{name}({{0}})", run, p.pick(*kinds, least=least))


@family("sum", "mean", "max", "min", "prod", "var", weight=3)
def _reduce(p: Program) -> Optional[Step]:
    name = p.choose(["sum", "mean", "max", "min", "prod", "var"])
    function, keep = getattr(tp, name), bool(p.rng.random() < 0.5)
    kinds = FLOATS if name == "var" else (*FLOATS, *INTS)
    x = p.pick(*kinds, exact=name in ("prod", "var"))
    if x is None:
        return None
    dim = axis(p, x) if p.value(x).rank and p.rng.random() < 0.8 else None
    text = f"{name}({{0}}, {dim}, {keep})"
    return step(text, lambda a: function(a, dim, keepdim=keep), x)


@family("all", "any", "argmax", "argmin")
def _choose(p: Program) -> Optional[Step]:
    name = p.choose(["all", "any", "argmax", "argmin"])
    kinds = (tp.bool,) if name in ("all", "any") else (*FLOATS, *INTS)
    x = p.pick(*kinds, least=1, exact=True)
    if x is None:
        return None
    dim, function = axis(p, x), getattr(tp, name)
    return step(f"{name}({{0}}, {dim})", lambda a: function(a, dim), x)


@family("topk", "cumsum", "softmax")
def _along(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, least=1, exact=True)
    if x is None:
        return None
    dim = axis(p, x)
    name, run = p.choose(
        [
            ("topk", lambda a: tp.topk(a, 2, dim)),
            ("cumsum", lambda a: tp.cumsum(a, dim)),
            ("softmax", lambda a: tp.softmax(a, dim)),
            ("softmax of all", lambda a: tp.softmax(a)),
        ]
    )
    return step(f"{name}({{0}}, {dim})", run, x)


@family("layer_norm", "rms_norm")
def _norm(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, least=2, exact=True, fits=lambda t: t.shape[-1] > 0)
    if x is None:
        return None
    size, kind = int(p.value(x).shape[-1]), p.value(x).dtype
    layer = p.choose([tp.LayerNorm, tp.RMSNorm])(size, dtype=kind)
    layer.weight = constant(p, kind, size)
    if isinstance(layer, tp.LayerNorm):
        layer.bias = constant(p, kind, size)
    return step(f"{type(layer).__name__}({{0}})", lambda a: layer(a), x)


@family("scaled_dot_product_attention")
def _attention(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, rank=4, exact=True)
    if x is None:
        return None
    y = p.pick(p.value(x).dtype, rank=4, exact=True,
               fits=lambda t: t.shape[:2] == p.value(x).shape[:2]
               and t.shape[3] == p.value(x).shape[3])  # fmt: skip
    causal = bool(p.rng.random() < 0.5)

    def run(q: tp.Tensor, k: tp.Tensor) -> tp.Tensor:
        return tp.scaled_dot_product_attention(tame(q), tame(k), tame(k), is_causal=causal)

    return step(f"attention({{0}}, {{1}}, causal={causal})", run, x, y, fuzzy=True)


@family("kv_cache_update", weight=3)
def _cache(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, rank=4)
    if x is None:
        return None
    shape = p.value(x).shape
    y = p.pick(p.value(x).dtype, rank=4, fits=lambda t: (t.shape[0], t.shape[1], t.shape[3])
               == (shape[0], shape[1], shape[3]))  # fmt: skip

    start = p.choose([0, 0, 1])

    def run(cache: tp.Tensor, update: tp.Tensor) -> tp.Tensor:
        index = tp.full((cache.shape[0],), start, dtype=tp.int32)
        return tp.kv_cache_update(cache, update, index)

    return step(f"kv_cache_update({{0}}, {{1}}, {start})", run, x, y)


@family("rotary_embedding")
def _rotary(p: Program) -> Optional[Step]:
    x, interleaved = p.pick(*FLOATS, least=1, exact=True), bool(p.rng.random() < 0.5)

    def run(a: tp.Tensor) -> tp.Tensor:
        angle = tp.iota((a.shape[-1] // 2,), dtype=a.dtype)
        return tp.rotary_embedding(a, tp.cos(angle), tp.sin(angle), interleaved)

    return step(f"rotary_embedding({{0}}, {interleaved})", run, x)


@family("convolution", "conv_transpose", weight=2)
def _convolution(p: Program) -> Optional[Step]:
    x = p.pick(tp.float32, rank=4, exact=True, fits=lambda t: t.shape[1] > 0)
    if x is None:
        return None
    channels = int(p.value(x).shape[1])
    kind, small = p.choose([tp.Conv, tp.ConvTranspose]), p.choose([None, None, tp.int8, tp.float8])
    layer = kind(channels, 2, (2, 2), padding=((1, 1), (1, 1)), quant_dtype=small)
    layer.weight = constant(p, tp.float32, *layer.weight._value.shape)
    layer.bias = constant(p, tp.float32, 2)
    if small is not None:
        layer.weight_scale = 1.0
        layer.input_scale = p.choose([None, 0.5])
    relu = p.rng.random() < 0.5

    def run(x: tp.Tensor) -> tp.Tensor:
        y = layer(tame(x))
        return tp.relu(y) if relu else y

    return step(f"{kind.__name__}(tame({{0}}), {small}, relu={relu})", run, x)


@family("maxpool", "avgpool", "resize")
def _spatial(p: Program) -> Optional[Step]:
    x = p.pick(tp.float32, tp.float16, rank=4, exact=True)
    name, run = p.choose(
        [
            ("maxpool", lambda a: tp.maxpool(a, (2, 2))),
            ("avgpool", lambda a: tp.avgpool(a, (2, 1))),
            ("resize", lambda a: tp.resize(a, (a.shape[0], a.shape[1], 5, 4), mode="nearest")),
        ]
    )
    return step(f"{name}({{0}})", run, x)


@tp.register_plugin("fuzz::both", outputs=lambda x, y: (x, ((y.shape[0] * 2,), y.dtype)))
def _both(x, y):
    return x.clone(), torch.cat([y, y])


@family("plugin")
def _plugin(p: Program) -> Optional[Step]:
    x, y, part = p.pick(*ANY), p.pick(*ANY, rank=1), p.choose([0, 1])
    run = lambda a, b: tp.plugin("fuzz::both", [a, b])[part]  # noqa: E731
    return step(f"plugin both({{0}}, {{1}})[{part}]", run, x, y)
