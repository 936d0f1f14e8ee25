"""Models whose decode step is one kernel, and what runs that kernel in the emulator."""

import ctypes
from typing import NamedTuple, Optional

import numpy as np

import tripy as tp
from tripy.backends.torch.kernels.cuda import decode_step, native_decode


class Sizes(NamedTuple):
    """Of a model, and how many blocks the emulator runs."""

    heads: int = 3
    groups: int = 3
    width: int = 64
    capacity: int = 200
    layers: int = 2
    inner: int = 4  # times the model's size
    norm: str = "layer"
    dtype: tp.dtype = tp.float16
    static: bool = True  # Whether inputs are of the weights' type too; else only weights are.
    weights: tp.dtype = tp.int8  # Of the blocks' layers.
    block: Optional[int] = 0  # Columns that share a scale; 0: all of a row; None: the whole weight.
    classes: int = 0  # Outputs of a last layer, whose inputs are not int8; 0: there is none.
    blocks: int = 3
    loud: float = 1.0  # What queries, keys and values are multiplied with.

    @property
    def size(self):
        return self.heads * self.width


LARGEST = {tp.int8: 127, tp.int4: 7, tp.float8: 448}
GPT = Sizes(classes=501)
OTHERS = {
    "many blocks": Sizes(layers=1, classes=40, blocks=20),  # Groups of fewer rows.
    "many blocks, only weights": Sizes(static=False, layers=1, blocks=25),
    "only weights are int8": Sizes(static=False, classes=71),
    # Scores of so wide a model are so large that two keys of about the same decide by a rounding.
    "only weights, bfloat16, wide": Sizes(
        heads=20, groups=4, static=False, dtype=tp.bfloat16, layers=1, loud=0.3
    ),
    "grouped, narrow heads": Sizes(heads=6, groups=2, width=32, capacity=600, norm="rms"),
    "wide heads, several chunks": Sizes(heads=2, groups=1, width=128, capacity=300),
    "bfloat16": Sizes(dtype=tp.bfloat16, layers=1),
    "several quads, stages and rounds": Sizes(heads=33, groups=33, capacity=40, layers=1, inner=2),
    "groups of eight rows": Sizes(heads=20, groups=4, layers=1),
    "large stages": Sizes(heads=33, groups=1, capacity=40, layers=1),
    "float8": Sizes(weights=tp.float8, block=None, classes=501),
    "float8, many blocks": Sizes(weights=tp.float8, block=None, layers=1, blocks=25),
    "float8, bfloat16": Sizes(weights=tp.float8, dtype=tp.bfloat16, layers=1),
    "float8, large": Sizes(
        heads=33, groups=33, capacity=40, layers=1, inner=2, weights=tp.float8, block=None
    ),
    "only weights are float8": Sizes(weights=tp.float8, static=False, classes=71),
    "only weights are float8, bfloat16, many blocks": Sizes(
        weights=tp.float8, block=None, static=False, dtype=tp.bfloat16, layers=1, blocks=25
    ),
    "int4, blocks of 64": Sizes(weights=tp.int4, block=64, static=False, classes=501),
    "int4, blocks of 32, many blocks": Sizes(
        weights=tp.int4, block=32, static=False, layers=1, blocks=25
    ),
    "int4, blocks of 128": Sizes(
        heads=4, groups=2, weights=tp.int4, block=128, static=False, layers=1
    ),
    "int4, a scale for each output, bfloat16": Sizes(
        weights=tp.int4, static=False, dtype=tp.bfloat16, layers=1
    ),
    "int4, bfloat16, large": Sizes(
        heads=33, groups=33, capacity=40, layers=1, inner=2, weights=tp.int4, block=64,
        static=False, dtype=tp.bfloat16,
    ),
}  # fmt: skip


class Block(tp.Module):
    """Attention over a cache and an MLP, as in the nanoGPT example."""

    def __init__(self, sizes):
        self.sizes = sizes
        size, pairs = sizes.size, 2 * sizes.groups * sizes.width
        dim = 0 if sizes.block == 0 else None
        options = {"quant_dtype": sizes.weights, "weight_quant_dim": dim, "dtype": sizes.dtype}
        norm = tp.LayerNorm if sizes.norm == "layer" else tp.RMSNorm
        self.norm_1, self.norm_2 = (norm(size, sizes.dtype) for _ in range(2))
        self.qkv = tp.Linear(size, size + pairs, **options)
        self.out = tp.Linear(size, size, **options)
        self.up = tp.Linear(size, sizes.inner * size, **options)
        self.down = tp.Linear(sizes.inner * size, size, bias=False, **options)

    def forward(self, x, cache, position):
        s = self.sizes
        heads = tp.reshape(self.qkv(self.norm_1(x)), (x.shape[0], -1, 1, s.width))
        query, pair = tp.split(heads, [s.heads, 2 * s.groups], dim=1)
        cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(cache, 2, dim=1)
        y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
        x = x + self.out(tp.reshape(y, x.shape))
        return x + self.down(tp.gelu(self.up(self.norm_2(x)), approximate="tanh")), cache


class Model(tp.Module):
    """Blocks with random weights and static scales."""

    def __init__(self, sizes=GPT):
        self.sizes = sizes
        self.blocks = [Block(sizes) for _ in range(sizes.layers)]
        if sizes.classes:
            self.norm = tp.LayerNorm(sizes.size, sizes.dtype)
            self.head = tp.Linear(
                sizes.size, sizes.classes, bias=False, dtype=sizes.dtype, quant_dtype=tp.int8,
                weight_quant_dim=0,
            )  # fmt: skip
        random = np.random.default_rng(0)
        state = {}
        parameters = self.state_dict()
        for name, parameter in parameters.items():
            shape = tuple(int(n) for n in parameter.shape)
            if name.endswith("weight_scale"):
                most = LARGEST[tp.int8 if name.startswith("head") else sizes.weights]
                if sizes.block and not name.startswith("head"):
                    outputs, columns = map(int, parameters[name.removesuffix("_scale")].shape)
                    shape = (outputs, columns // sizes.block)
                values = random.uniform(0.25, 0.75, shape) / most
            elif "norm" in name:
                values = random.uniform(0.5, 1.5, shape)
            else:
                values = random.normal(0, 0.1, shape)
            values *= sizes.loud if "qkv" in name else 1
            values = tp.Tensor(values.astype(np.float32), device=tp.config.default_device)
            state[name] = tp.cast(values, sizes.dtype)
        self.load_state_dict(state)
        for block in self.blocks:
            for layer in (block.qkv, block.out, block.up, block.down) if sizes.static else ():
                layer.input_scale = 5 / LARGEST[sizes.weights]

    def forward(self, x, position, caches):
        written = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, cache, position)
            written.append(cache)
        return self.head(self.norm(x)) if self.sizes.classes else x, written


def compiled(model, rows=1):
    s = model.sizes
    cache = tp.InputInfo((rows, 2 * s.groups, s.capacity, s.width), s.dtype)
    args = [tp.InputInfo((rows, s.size), s.dtype), tp.InputInfo((rows,), tp.int32)]
    args.append([cache] * s.layers)
    return tp.compile(model, args=args, backend="torch")


def runs(executable):
    functions = [step.function for step in executable._program._steps]
    return [function for function in functions if isinstance(function, decode_step.Run)]


class Kernel:
    """Runs launches in the emulator, each with another order of events."""

    def __init__(self, library):
        self.library, self.seed, self.spaces = library, 0, {}

    def space(self, run):
        if run not in self.spaces:
            self.spaces[run] = native_decode.Exchange(run._exchanged, run.where)
        return self.spaces[run]

    def run(self, launch, where):
        self.seed += 1
        error = self.library.run_decode_step(ctypes.byref(launch), ctypes.c_uint64(self.seed))
        assert not error, error.decode()
