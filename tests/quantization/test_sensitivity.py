"""Sensitivity: what is measured, that the model stays as it was, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import as_tripy, inputs, mlp, sqnr, tiny_gpt2, tokens
from tripy.quantization.results import Sensitivity
from tripy.quantization.sensitivity import sensitivity

# Searches of three steps: they are tested elsewhere.
SMOOTH = tq.INT8_SMOOTHQUANT_CFG.with_algorithm("smoothquant", alpha_step=0.5)
AWQ = tq.INT4_AWQ_CFG.with_algorithm("awq", alpha_step=0.5)


def kl(wanted: torch.Tensor, got: torch.Tensor) -> float:
    p, q = (x.double().log_softmax(-1) for x in (wanted, got))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_each_row_is_what_quantizing_that_layer_does():
    model, x = mlp(), inputs()
    wanted = model(x)
    found = sensitivity(model, tq.INT8_DEFAULT_CFG, lambda: model(x), lambda: model(x))
    assert {row.layer for row in found.rows} == {"0", "2"}
    for row in found.rows:
        for left_out, quality, divergence in (
            ("2" if row.layer == "0" else "0", row.alone_sqnr, row.alone_kl),
            (row.layer, row.others_sqnr, row.others_kl),
        ):
            other = mlp()
            tq.quantize(other, tq.INT8_DEFAULT_CFG.without(left_out), lambda m: m(x))
            assert quality == pytest.approx(sqnr(wanted, other(x)), abs=1e-6)
            assert divergence == pytest.approx(kl(wanted, other(x)), rel=1e-6)
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(x))
    quality, divergence = found.all["INT8_DEFAULT_CFG"]
    assert quality == pytest.approx(sqnr(wanted, model(x)), abs=1e-6)
    assert divergence == pytest.approx(kl(wanted, model(x)), rel=1e-6)
    assert found.repeat_sqnr == math.inf


@pytest.mark.parametrize("framework", ["torch", "tripy"])
def test_the_layer_made_bad_comes_first_and_the_model_stays(framework):
    source, x = mlp(), inputs()
    source[2].weight[:, 5] *= 300  # An input channel that takes the whole range of each row.
    if framework == "torch":
        model, run = source, lambda: source(x)
        before = {name: value.clone() for name, value in model.state_dict().items()}
    else:
        model = as_tripy(source)
        run = lambda: model(tp.Tensor(x))  # noqa: E731
        before = {name: value.torch().clone() for name, value in model.state_dict().items()}
    first = model[0]
    wanted = run()
    found = sensitivity(
        model, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, lambda: run().numpy(), lambda: [run()]
    )
    assert [row.layer for row in found.rows] == ["2", "0"]
    assert found.rows[0].alone_kl > found.rows[1].alone_kl
    assert found.rows[0].others_kl < found.rows[1].others_kl
    assert model[0] is first
    for name, value in model.state_dict().items():
        value = value if isinstance(value, torch.Tensor) else value.torch()
        assert torch.equal(value, before[name])
    assert np.array_equal(run().numpy(), wanted.numpy())


def test_what_rounding_does_not_change_is_zero():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False)).requires_grad_(False)
    model[0].weight[:] = 127 * torch.eye(4)
    found = sensitivity(model, tq.INT8_WEIGHT_ONLY_CFG, None, lambda: model(torch.eye(4)))
    assert found.rows[0].alone_kl == 0 and found.rows[0].alone_sqnr == math.inf
    assert "does evaluate() run this very model" in str(found)


def test_an_error_leaves_the_model_as_it_was():
    model, x = mlp(), inputs()
    first, calls = model[0], []

    def evaluate():
        calls.append(type(model[0]).__name__)
        if len(calls) == 4:
            raise KeyError("mine")
        return model(x)

    with pytest.raises(KeyError, match="mine"):
        sensitivity(model, tq.INT8_DEFAULT_CFG, lambda: model(x), evaluate)
    assert calls == ["Linear", "Linear", "QuantizedLinear", "Linear"]
    assert model[0] is first and type(model[2]) is torch.nn.Linear
    assert "_tripy_quantization" not in model.__dict__


def test_several_formats_look_at_the_data_once():
    model, data = tiny_gpt2(layers=1), tokens()
    calls = []

    def loop():
        calls.append(model(data))

    formats = {"a": SMOOTH, "b": AWQ, "c": tq.INT4_GPTQ_CFG}
    found = sensitivity(model, formats, loop, lambda: model(data).logits)
    assert len(calls) == 1
    assert len(found.rows) == 12 and {row.format for row in found.rows} == set(formats)
    assert all(row.others_kl is None for row in found.rows) and not found.all
    kls = [row.alone_kl for row in found.rows]
    assert kls == sorted(kls, reverse=True)
    assert "lm_head" not in found.sizes and next(iter(found.sizes)).endswith("attn.c_attn")
    row = next(r for r in found.rows if r.format == "b" and r.layer.endswith("c_fc"))
    # Half a byte a value, a scale a block of 128, and the scale of each of 128 inputs.
    blocks, scaled = 512, 128
    assert row.bytes in (512 * 128 // 2 + 4 * blocks, 512 * 128 // 2 + 4 * (blocks + scaled))
    lines = str(found).splitlines()
    assert "a: KL" in lines[1] and len(lines) == 6
    # The same from statistics that were collected before.
    again = sensitivity(
        model, formats, None, lambda: model(data).logits, statistics=found.statistics
    )
    assert again.rows == found.rows


def test_json_round_trip():
    model, x = mlp(), inputs()
    found = sensitivity(model, tq.FP8_DEFAULT_CFG, lambda: model(x), lambda: model(x).numpy())
    again = Sensitivity.from_json(found.to_json())
    assert again == found and str(again) == str(found)
    json.loads(found.to_json(), parse_constant=pytest.fail)
    for text in ("{", "{}", "[]", found.to_json().replace('"version": 1', '"version": 2')):
        with pytest.raises(tp.TripyException, match="version 1"):
            Sensitivity.from_json(text)


def test_an_infinite_result_is_infinitely_bad():
    model, x = mlp(), inputs()

    def evaluate():
        logits = model(x)
        return logits if type(model[0]) is torch.nn.Linear else logits / 0

    found = sensitivity(model, tq.INT8_DEFAULT_CFG, lambda: model(x), evaluate, others=False)
    assert (found.rows[0].layer, found.rows[0].alone_kl) == ("0", math.inf)
    assert found.rows[0].alone_sqnr == -math.inf
    assert Sensitivity.from_json(found.to_json()) == found


def test_refusals():
    model, x = mlp(), inputs()
    run = lambda: model(x)  # noqa: E731

    def refused(match, config=tq.INT8_DEFAULT_CFG, loop=run, evaluate=run):
        with pytest.raises(tp.TripyException, match=match):
            sensitivity(model, config, loop, evaluate)

    refused("gives no logits", evaluate=lambda: 3)
    refused("gives no logits", evaluate=lambda: torch.ones(2, dtype=torch.int64))
    refused("empty list", evaluate=list)
    refused("not finite", evaluate=lambda: run() * torch.inf)
    refused("other logits for the same model", evaluate=lambda: torch.randn(8, 4))
    refused("other shapes", evaluate=lambda: run()[: 8 + (type(model[2]) is torch.nn.Linear)])
    refused("no configuration", config={})
    refused("quantizes no layer", config=tq.INT8_DEFAULT_CFG.without("*"))
    refused("no forward_loop", loop=None)
    with pytest.raises(tp.TripyException, match="do not have this layer"):
        sensitivity(model, tq.INT8_DEFAULT_CFG, None, run, statistics=tq.Statistics())
    tq.quantize(model, tq.INT8_DEFAULT_CFG.without("0"), run)
    refused("quantized already")
