"""GPT-2 in tripy, in floating point or quantized, with its state in the arguments.

One set of weights serves three functions, each compiled once for all lengths: `forward` for the
logits of every position, `prefill` for a prompt, `decode` for one more token. A cache is an
argument, is returned, and is written in place by the compiled function. There is one for each
layer, [batch, 2 * heads, capacity, head size]: the heads of the keys, then those of the values,
as `c_attn` orders them, so that one write stores both. Prefill starts at position 0: it attends
causally to the keys that it has just made, and reads no cache. Decode attends to everything before
it: it needs no mask, only how many positions of each row's cache are filled. No shape depends on
that, so a GPU repeats one recorded step, and rows of a batch may have prompts of any length: what
padding leaves in the caches is overwritten before it is read.

Names are Hugging Face's. The head shares the token embedding's table, of which an embedding reads
one row, but logits take all: a third of the bytes of the smallest GPT-2. So the quantized modes
have an int8 head, and the table for embeddings stays in floating point.
"""

import math
from dataclasses import dataclass
from functools import partial

import tripy as tp

# For the linear layers of a block: the data type; the dimension of the weights that their scales
# belong to (None: one scale, or blocks); whether inputs have scales too, from calibration.
QUANT_MODES = {
    "none": (None, None, False),
    "int8-weight-only": (tp.int8, 0, False),
    "int8": (tp.int8, 0, True),
    "smoothquant": (tp.int8, 0, True),
    "int4-weight-only": (tp.int4, None, False),
    "int4-awq": (tp.int4, None, False),
    "w4a8": (tp.int4, None, True),
    "float8": (tp.float8, None, True),
}


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and quantization of a GPT-2; the defaults are the demo's sizes."""

    vocab_size: int = 256
    block_size: int = 256
    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 384
    n_inner: int | None = None  # width of the MLP; None for 4 * n_embd
    layer_norm_epsilon: float = 1e-5
    quant_mode: str = "none"
    dtype: tp.dtype = tp.float32  # of what is not quantized; GPUs are faster in float16

    def __post_init__(self):
        if self.quant_mode not in QUANT_MODES:
            modes = ", ".join(QUANT_MODES)
            raise ValueError(f"[GPT] got quant_mode={self.quant_mode!r}; expected one of {modes}")

    inner = property(lambda self: self.n_inner or 4 * self.n_embd, doc="Width of the MLP.")


class Bfloat16Linear(tp.Linear):
    """In bfloat16, between float32 layers: CPUs have int4 kernels for that type only."""

    def forward(self, x):
        return tp.cast(super().forward(tp.cast(x, tp.bfloat16)), tp.float32)


def linear(config: GPTConfig, inputs: int, outputs: int) -> tp.Linear:
    dtype, dim, _ = QUANT_MODES[config.quant_mode]
    options = {"quant_dtype": dtype, "weight_quant_dim": dim}
    if dtype is tp.int4 and config.dtype is tp.float32:
        return Bfloat16Linear(inputs, outputs, dtype=tp.bfloat16, **options)
    return tp.Linear(inputs, outputs, dtype=config.dtype, **options)


def layer_norm(config: GPTConfig) -> tp.LayerNorm:
    return tp.LayerNorm(config.n_embd, dtype=config.dtype, eps=config.layer_norm_epsilon)


class Attention(tp.Module):
    """Causal self-attention; queries, keys and values come from one matrix product."""

    def __init__(self, config: GPTConfig):
        self.n_head, self.head_size = config.n_head, config.n_embd // config.n_head
        self.c_attn = linear(config, config.n_embd, 3 * config.n_embd)
        self.c_proj = linear(config, config.n_embd, config.n_embd)

    def forward(self, x, cache=None, position=None, lengths=None):
        """x [batch, tokens, width]; or, if there are lengths, one token a row: [batch, width]."""
        batch, heads, qkv = x.shape[0], self.n_head, self.c_attn(x)
        if lengths is None:
            qkv = tp.reshape(qkv, (batch, x.shape[1], 3 * heads, self.head_size))
            qkv = tp.permute(qkv, (0, 2, 1, 3))
        else:  # With one token there is nothing to permute.
            qkv = tp.reshape(qkv, (batch, 3 * heads, 1, self.head_size))
        query, pair = tp.split(qkv, [heads, 2 * heads], dim=1)
        if cache is not None:
            cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(pair if lengths is None else cache, 2, dim=1)
        attend = partial(tp.scaled_dot_product_attention, is_causal=lengths is None)
        y = attend(query, key, value, key_value_lengths=lengths)
        if lengths is None:
            y = tp.permute(y, (0, 2, 1, 3))
        return self.c_proj(tp.reshape(y, x.shape)), cache


class Block(tp.Module):
    """A layer: attention and MLP, each after a LayerNorm, each added to its input."""

    def __init__(self, config: GPTConfig):
        self.ln_1 = layer_norm(config)
        self.attn = Attention(config)
        self.ln_2 = layer_norm(config)
        # With static int8 scales, what goes from one layer to the next is int8 all the way.
        width, inner = config.n_embd, config.inner
        up, down = linear(config, width, inner), linear(config, inner, width)
        gelu = partial(tp.gelu, approximate="tanh")
        self.mlp = tp.Sequential({"c_fc": up, "gelu": gelu, "c_proj": down})

    def forward(self, x, cache=None, position=None, lengths=None):
        y, cache = self.attn(self.ln_1(x), cache, position, lengths)
        x = x + y
        return x + self.mlp(self.ln_2(x)), cache


class GPT(tp.Module):
    """GPT-2. Its functions can be called as they are, or compiled; tokens are int32."""

    def __init__(self, config: GPTConfig):
        self.config = config
        self.wte = tp.Embedding(config.vocab_size, config.n_embd, dtype=config.dtype)
        self.wpe = tp.Embedding(config.block_size, config.n_embd, dtype=config.dtype)
        self.h = [Block(config) for _ in range(config.n_layer)]
        self.ln_f = layer_norm(config)
        head = None if config.quant_mode == "none" else tp.int8
        kinds = {"dtype": config.dtype, "quant_dtype": head, "weight_quant_dim": 0}
        self.lm_head = tp.Linear(config.n_embd, config.vocab_size, bias=False, **kinds)
        if head is None:
            self.lm_head.weight = self.wte.weight  # One parameter under two names.

    def _run(self, x, caches=None, position=None, lengths=None):
        written = []
        for block, cache in zip(self.h, caches or [None] * len(self.h), strict=True):
            x, cache = block(x, cache, position, lengths)
            written.append(cache)
        return x, written

    def forward(self, tokens):
        """tokens [batch, length] -> logits [batch, length, vocabulary]."""
        x, _ = self._run(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]])
        return self.lm_head(self.ln_f(x))

    def prefill(self, tokens, lengths, caches):
        """tokens [batch, length], of each row lengths [batch] and padding -> logits of the last."""
        batch, length = tokens.shape
        x = self.wte(tokens) + self.wpe.weight[:length]
        x, caches = self._run(x, caches, tp.zeros((batch,), dtype=tp.int32))
        last = tp.arange(batch, dtype=tp.int32) * length + lengths - 1
        x = tp.gather(tp.reshape(x, (batch * length, self.config.n_embd)), 0, last)
        return self.lm_head(self.ln_f(x)), caches

    def decode(self, tokens, position, caches):
        """tokens [batch], each at its position [batch] -> logits [batch, vocabulary], caches."""
        x = self.wte(tokens) + self.wpe(position)
        x, caches = self._run(x, caches, position, position + 1)
        return self.lm_head(self.ln_f(x)), caches

    def new_caches(self, batch: int = 1) -> list[tp.Tensor]:
        """Empty caches."""
        shape = _cache_shape(self.config, batch)
        return [tp.zeros(shape, dtype=self.config.dtype).eval() for _ in self.h]

    def weight_bytes(self) -> int:
        """Bytes that the parameters take; one with two names counts once."""
        parameters = {id(p): p for p in self.state_dict().values()}
        return int(sum(math.prod(p.shape) * p.dtype.itemsize for p in parameters.values()))


def compile_steps(model: GPT, batch: int = 1) -> tuple[tp.Executable, tp.Executable]:
    """`prefill` and `decode`, each compiled for every length from 1 to the block size."""
    lengths = (1, (model.config.block_size + 1) // 2, model.config.block_size)
    cache = tp.InputInfo(_cache_shape(model.config, batch), model.config.dtype)
    caches = [cache] * len(model.h)
    row, rows = (tp.InputInfo(shape, tp.int32) for shape in ((batch,), (batch, lengths)))
    prefill = tp.compile(model.prefill, args=[rows, row, caches])
    return prefill, tp.compile(model.decode, args=[row, row, caches])


def _cache_shape(config: GPTConfig, batch: int) -> tuple[int, ...]:
    return batch, 2 * config.n_head, config.block_size, config.n_embd // config.n_head
