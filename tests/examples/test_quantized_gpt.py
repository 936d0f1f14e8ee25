"""The example's quantization modes: with a cache and without, compiled and eager, and quality."""

from collections import Counter

import data
import numpy as np
import pytest
from generate import bits
from model import GPT, QUANT_MODES, GPTConfig, compile_steps

import tripy as tp
from tests.demo import demo

QUANTIZED = [mode for mode in QUANT_MODES if mode != "none"]
PROMPT = b"def read_lines(path):\n    with open(path) as file:\n"
OTHER = b"class Stack(list):\n    def push(self, item):\n        self.append(item)"[: len(PROMPT)]
LIMITS = {
    "int8-weight-only": 0.005, "int8": 0.02, "smoothquant": 0.02, "float8": 0.02,
    "int4-weight-only": 0.06, "int4-awq": 0.05, "w4a8": 0.05,
}  # fmt: skip


def tensor(values):
    return tp.Tensor(np.asarray(values), dtype=tp.int32)


def likelihoods(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# Largest and mean difference of log likelihoods. Where inputs are rounded too, another order of
# summing can turn a rounding, and what follows then differs by a step: float8's are the largest.
# The int4 modes' layers compute in bfloat16, whose results are rounded to 8 bits; in w4a8 these are
# what is rounded to int8, and every other order of summing moves some of them by a step.
NEAR = dict.fromkeys(("int8", "smoothquant"), (0.25, 0.01)) | {"float8": (0.5, 0.03)}
NEAR |= dict.fromkeys(("int4-weight-only", "int4-awq"), (0.1, 0.01)) | {"w4a8": (1.0, 0.1)}


@pytest.mark.parametrize("mode", QUANT_MODES)
def test_a_cache_changes_nothing(mode):
    model, tokens = demo(mode), np.array([list(PROMPT), list(OTHER)])
    length = len(PROMPT)
    forward = tp.compile(model, args=[tp.InputInfo((2, length), tp.int32)])
    expected = likelihoods(forward(tensor(tokens)).numpy())
    eager = likelihoods(model(tensor(tokens)).numpy())
    prefill, decode = compile_steps(model, batch=2)
    logits, caches = prefill(tensor(tokens[:, :30]), tensor([30, 30]), model.new_caches(2))
    found = [logits.numpy()]
    for position in range(30, length):
        where = tensor([position] * 2)
        logits, caches = decode(tensor(tokens[:, position]), where, caches)
        found.append(logits.numpy())
    likely = expected > np.log(1e-3)
    largest, mean = NEAR.get(mode, (1e-3, 1e-4))
    difference = abs(likelihoods(np.stack(found, 1)) - expected[:, 29:])[likely[:, 29:]]
    assert difference.max() < largest and difference.mean() < mean
    difference = abs(eager - expected)[likely]
    assert difference.max() < 4 * largest and difference.mean() < 4 * mean


@pytest.mark.parametrize("mode", QUANTIZED)
def test_weights_are_small(mode):
    config, model = demo(mode).config, demo(mode)
    kind = QUANT_MODES[mode][0]
    matrices = 12 * config.n_embd**2 * config.n_layer
    scales = {tp.int4: matrices // 64, tp.float8: 4 * config.n_layer}
    scales = scales.get(kind, 9 * config.n_embd * config.n_layer)
    scales += 4 * config.n_layer if QUANT_MODES[mode][2] else 0
    rest = 2 * (config.vocab_size + config.block_size) * config.n_embd  # float32, with biases
    block = model.h[3]
    for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
        assert layer.weight.dtype is kind
        assert (layer.input_scale is not None) == QUANT_MODES[mode][2]
    assert model.lm_head.weight.dtype is tp.int8 and model.wte.weight.dtype is tp.float32
    total = matrices * kind.itemsize + 4 * scales
    assert total < model.weight_bytes() < total + 4 * rest


def test_programs_hold_one_copy_of_the_weights():
    """Two executables of one model report the same packed bytes, and those of int8 are small."""
    prefill, decode = compile_steps(demo("int8"))
    assert prefill.report().weight_bytes == decode.report().weight_bytes
    assert decode.report().weight_bytes < 0.26 * 4 * 12 * 384**2 * 6


def test_the_mlp_stays_int8():
    """Linear, GELU, Linear: one node with the activation and the rounding, then the next."""
    for executable in compile_steps(demo("int8")):
        kinds = Counter(node.op for node in executable.graph.nodes())
        assert kinds["gelu"] == 0 and kinds["quantized_linear"] == 25
        # Inputs of c_attn, attn.c_proj and c_fc are rounded by themselves, mlp.c_proj's is not.
        assert kinds["quantize"] == 18 and kinds["dequantize"] == 0
        chained = [row for row in executable.report().rows if "gelu_tanh" in row.kernel]
        assert len(chained) == 6 and all("int8" in row.kernel for row in chained)


@pytest.fixture(scope="module")
def windows():
    inputs, targets = data.evaluation_windows(data.held_out_text())
    return inputs[::60], targets[::60]


@pytest.fixture(scope="module")
def float_bits(windows):
    return bits(demo("none"), *windows)


def test_the_demo_has_learned(windows, float_bits):
    assert float_bits / windows[1].size < 1.6


@pytest.mark.parametrize("mode", QUANTIZED)
def test_what_quantization_costs(windows, float_bits, mode):
    assert bits(demo(mode), *windows) < float_bits * (1 + LIMITS[mode])


def test_bits(windows):
    """Against the definition, one token at a time, in float64."""
    model = GPT(GPTConfig(vocab_size=256, block_size=8, n_layer=1, n_head=2, n_embd=16))
    random = np.random.default_rng(0)
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            model.load_state_dict(
                {name: tp.Tensor(random.normal(size=value.shape).astype(np.float32))}, strict=False
            )
    inputs, targets = (array[:3, :8] for array in windows)
    expected = 0.0
    for row, goals in zip(inputs, targets):
        logits = model(tensor([row])).numpy()[0].astype(np.float64)
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected -= sum(np.log2(chances[i, goal]) for i, goal in enumerate(goals))
    assert bits(model, inputs, targets) == pytest.approx(expected, rel=1e-5)
