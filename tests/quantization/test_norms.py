"""Inputs of LayerNorm: left alone, but where a rule for that class asks for them."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import mlp, sqnr, tiny_gpt2, tokens

INT8 = tq.INT8_DEFAULT_CFG
ASKED = INT8.with_norm_inputs(8)


def norms(model) -> dict[str, torch.nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}


def test_patterns_for_inputs_are_not_for_norms():
    model, data = tiny_gpt2(), tokens()
    tq.quantize(model, INT8, lambda: model(data))
    assert not any(hasattr(norm, "input_quantizer") for norm in norms(model).values())


@pytest.mark.parametrize(("bits", "bound"), [(8, 127), ((4, 3), 448)])
def test_norms_that_are_asked_for(bits, bound):
    model, data, seen = tiny_gpt2(), tokens(), {}
    before = norms(model)
    for name, norm in before.items():
        norm.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    model(data)
    for norm in before.values():
        norm._forward_pre_hooks.clear()
    parameters = {name: norm.weight for name, norm in before.items()}
    wanted = model(data).logits
    alone = INT8.with_norm_inputs(bits).without("*c_*", "*ln_f*")
    tq.quantize(model, alone, lambda: model(data))
    after = norms(model)
    assert list(after) == list(before) and type(after["transformer.ln_f"]) is torch.nn.LayerNorm
    for name, norm in after.items():
        assert norm.weight is parameters[name]
        if name != "transformer.ln_f":
            scale = norm.input_quantizer.scale
            assert float(scale) == pytest.approx(float(seen[name].abs().max()) / bound, rel=1e-6)
            x = torch.randn(3, 128)
            rounded = tq.QuantizerState(norm.input_quantizer.config, norm.input_quantizer.amax)(x)
            assert torch.equal(norm(x), before[name](rounded))
    assert 15 < sqnr(wanted, model(data).logits) < 60
    assert "inputs of 4 norms are rounded" in " ".join(str(tq.report(model)).split())
    tq.quantize(model, alone, lambda: model(data))  # What is done is left.
    assert norms(model) == after


def test_it_is_the_list_form_too_and_costs_quality():
    model, other, data = tiny_gpt2(), tiny_gpt2(), tokens()
    wanted = model(data).logits
    entries = [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
               {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8}},
               {"quantizer_name": "*lm_head*", "enable": False}]  # fmt: skip
    more = {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8},
            "parent_class": "nn.LayerNorm"}  # fmt: skip
    tq.quantize(model, {"quant_cfg": entries}, lambda: model(data))
    tq.quantize(other, {"quant_cfg": [*entries, more]}, lambda: other(data))
    assert sqnr(wanted, model(data).logits) > sqnr(wanted, other(data).logits) + 0.5


def test_exports_would_lose_it_and_refuse(tmp_path):
    model, data = tiny_gpt2(), tokens()
    tq.quantize(model, ASKED, lambda: model(data))
    for export in (
        lambda: tq.export_hf(model, tmp_path / "out"),
        lambda: tq.export_model_config(model, "gpt2", "float16", tmp_path / "out"),
        lambda: tq.to_tripy(model, tp.Sequential(tp.Linear(128, 512))),
    ):
        with pytest.raises(tp.TripyException, match=r"transformer\.h\.0\.ln_1 rounds its input"):
            export()
    assert not list(tmp_path.iterdir())


def test_wrong_states_name_the_norm():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8)).requires_grad_(False)
    kinds = [type(m) for m in model]
    model[0].weight.zero_()
    model[0].bias.zero_()
    config = tq.QuantizationConfig(()).with_norm_inputs(8)
    for loop, match in (
        (lambda: model(torch.ones(2, 8)), r"1\.input_quantizer: amax is zero"),
        (lambda: model[0](torch.ones(2, 8)), "1: the layer saw no data"),
        (lambda: model[1](torch.full((2, 8), torch.nan)), "1: NaN or infinity"),
        (None, "no forward_loop"),
    ):
        with pytest.raises(tp.TripyException, match=match):
            tq.quantize(model, config, loop)
        assert [type(m) for m in model] == kinds
    blocks = tq.Rule("*", (tq.QuantizerConfig(8, block_size=4),), parent_class="LayerNorm")
    with pytest.raises(tp.TripyException, match=r"1\.input_quantizer: a norm's input has one"):
        tq.quantize(model, tq.QuantizationConfig((blocks,)), lambda: model(torch.ones(2, 8)))
    with pytest.raises(tp.TripyException, match="matches nothing"):
        tq.quantize(mlp(), ASKED, lambda: None)
    module = tp.Sequential(tp.Linear(8, 8), tp.LayerNorm(8))
    with pytest.raises(tp.TripyException, match="matches nothing"):
        tq.quantize(module, ASKED, lambda: None)


def test_a_later_failure_puts_norms_back(monkeypatch):
    model, data = tiny_gpt2(), tokens()
    before, wanted = norms(model), model(data).logits
    import sys  # noqa: PLC0415

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(sys.modules["tripy.quantization.quantize"], "remember", full)
    with pytest.raises(MemoryError):
        tq.quantize(model, ASKED, lambda: model(data))
    assert norms(model) == before and torch.equal(model(data).logits, wanted)


def test_nvidia_modelopts_form_says_the_same():
    entries = tq.modelopt_config(ASKED)["quant_cfg"]
    off = {"quantizer_name": "*", "parent_class": "nn.LayerNorm", "enable": False}
    assert entries.index(off) < entries.index(entries[-1])
    assert entries[-1]["parent_class"] == "nn.LayerNorm" and entries[-1]["enable"]
    assert tq.modelopt_config(INT8)["quant_cfg"][-2] == off
    again = tq.QuantizationConfig.of({"quant_cfg": entries})
    model, data = tiny_gpt2(), tokens()
    tq.quantize(model, again, lambda: model(data))
    assert all(hasattr(norm, "input_quantizer") for norm in norms(model).values())
