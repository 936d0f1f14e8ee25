"""Configurations: presets, the dict and list forms, JSON, patterns, predicates."""

from __future__ import annotations

import json

import pytest
import torch

import tripy as tp
import tripy.quantization as tq


def model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.ModuleDict(
        {
            "mlp": torch.nn.Sequential(torch.nn.Linear(128, 16), torch.nn.Linear(16, 8)),
            "lm_head": torch.nn.Linear(8, 4),
        }
    )


def schemes(config, **options) -> dict[str, str]:
    plans = tq.plan(model(), config, **options)
    return {
        name: each.reason or "; ".join(map(str, (*each.weight, each.input)))
        for name, each in plans.items()
    }


LEFT_OUT = "left out by the pattern '*lm_head*'"


def test_presets_leave_the_head_out():
    for name, config in tq.PRESETS.items():
        assert config.name == name
        assert schemes(config)["lm_head"] == LEFT_OUT


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (tq.INT8_DEFAULT_CFG, "int8 per channel; int8 per tensor"),
        (tq.INT8_SMOOTHQUANT_CFG, "int8 per channel; int8 per tensor"),
        (tq.INT8_WEIGHT_ONLY_CFG, "int8 per channel; None"),
        (tq.FP8_DEFAULT_CFG, "fp8 per tensor; fp8 per tensor"),
        (tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, "int4 blocks of 128; None"),
        (tq.INT4_AWQ_CFG, "int4 blocks of 128; None"),
        (tq.W4A8_AWQ_BETA_CFG, "int4 blocks of 128; fp8 per tensor; fp8 per tensor"),
        (tq.W4A8_INT8_CFG, "int4 blocks of 128; int8 per tensor"),
    ],
)
def test_what_presets_say(config, expected):
    assert schemes(config)["mlp.0"] == expected


def test_json_round_trip():
    for config in tq.PRESETS.values():
        changed = config.with_kv_cache((4, 3)).without("mlp.0").with_algorithm("awq", alpha=0.5)
        assert tq.QuantizationConfig.from_json(changed.to_json()) == changed
        assert json.loads(changed.to_json())["version"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "rules": [{}], "algorithm": {}, "name": ""}',
    ],
)
def test_json_that_is_none(text):
    with pytest.raises(tp.TripyException, match="to_json"):
        tq.QuantizationConfig.from_json(text)


def test_json_of_another_version():
    text = tq.INT8_DEFAULT_CFG.to_json().replace('"version": 1', '"version": 2')
    with pytest.raises(tp.TripyException, match="version"):
        tq.QuantizationConfig.from_json(text)


def test_dict_form_default_applies_first_wherever_it_stands():
    rules = {
        "*weight_quantizer": {"num_bits": 8, "axis": 0},
        "*input_quantizer": {"num_bits": 8, "axis": None},
        "*lm_head*": {"enable": False},
        "default": {"enable": False},
    }
    assert schemes({"quant_cfg": rules, "algorithm": "max"}) == schemes(tq.INT8_DEFAULT_CFG)


def test_dict_form_later_keys_win():
    rules = {
        "*weight_quantizer": {"num_bits": 8, "axis": 0},
        "mlp.0.weight_quantizer": {"num_bits": 4, "block_sizes": {-1: 128, "type": "static"}},
        "mlp.1.*": {"enable": False},
    }
    found = schemes({"quant_cfg": rules})
    assert found["mlp.0"] == "int4 blocks of 128; None"
    assert found["mlp.1"] == "left out by the pattern 'mlp.1.*'"
    assert found["lm_head"] == "int8 per channel; None"


def test_list_form_is_strictly_in_order():
    entries = [
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "mlp.1.weight_quantizer", "enable": True},
    ]
    found = schemes({"quant_cfg": entries})
    assert found["mlp.0"] == "left out by the pattern '*'"
    assert found["mlp.1"] == "int8 per channel; None"


def test_list_form_with_several_formats_and_a_class():
    blocks = {"num_bits": 4, "block_sizes": {-1: 64}}
    entries = [
        {"quantizer_name": "*weight_quantizer", "cfg": [blocks, {"num_bits": (4, 3)}]},
        {"quantizer_name": "*", "parent_class": "nn.BatchNorm1d", "enable": False},
        {"quantizer_name": "lm_head*", "parent_class": "nn.Linear", "enable": False},
    ]
    found = schemes({"quant_cfg": entries})
    assert found["mlp.0"] == "int4 blocks of 64; fp8 per tensor; None"
    assert found["lm_head"].startswith("left out")


def test_classes_in_the_dict_form():
    rules = {
        "*weight_quantizer": {"num_bits": 8, "axis": 0},
        "nn.Linear": {"*weight_quantizer": {"enable": False}},
    }
    assert set(schemes({"quant_cfg": rules}).values()) == {
        "left out by the pattern '*weight_quantizer'"
    }


def test_a_form_of_its_own_survives_modelopt_and_back():
    for config in tq.PRESETS.values():
        again = tq.QuantizationConfig.of(tq.modelopt_config(config))
        assert schemes(again) == schemes(config)
        assert again.algorithm.method == config.algorithm.method


def test_modelopt_has_no_word_for_our_calibrators():
    with pytest.raises(tp.TripyException, match="entropy"):
        tq.modelopt_config(tq.INT8_DEFAULT_CFG.with_algorithm("max", calibrator="entropy"))


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name():
    with pytest.raises(tp.TripyException) as error:
        tq.plan(model(), tq.INT8_DEFAULT_CFG.without("*lm_haed*"))
    assert "'*lm_haed*'; the nearest name is 'lm_head'" in str(error.value)


def test_what_matched_is_told(capsys):
    tq.plan(model(), tq.INT8_WEIGHT_ONLY_CFG)
    assert "'*weight_quantizer' matches 3 quantizers" in capsys.readouterr().err


def test_predicate_chooses_layers_and_configurations():
    def predicate(path, module):
        assert isinstance(module, torch.nn.Linear)
        return {"mlp.0": True, "mlp.1": False}.get(path, tq.QuantizationConfig(
            (tq.Rule("lm_head.weight_quantizer", (tq.QuantizerConfig(8),)),)
        ))  # fmt: skip

    assert schemes(tq.FP8_DEFAULT_CFG, predicate=predicate) == {
        "mlp.0": "fp8 per tensor; fp8 per tensor",
        "mlp.1": "the predicate left it out",
        "lm_head": "int8 per tensor; None",
    }


def test_a_pattern_that_matches_nothing_is_an_error_beside_a_predicate_too():
    with pytest.raises(tp.TripyException, match="matches nothing"):
        tq.plan(model(), tq.FP8_DEFAULT_CFG.without("mpl*"), lambda path, module: False)
    rule = tq.Rule("*weight_quantizer", (tq.QuantizerConfig(8),), parent_class="nn.Lniear")
    with pytest.raises(tp.TripyException, match="matches nothing"):
        tq.plan(model(), tq.INT8_DEFAULT_CFG.with_rules(rule))


@pytest.mark.parametrize(
    "given",
    [
        None, "int8", {}, {"quant_cfg": 3}, {"quant_cfg": "*"}, {"quant_cfg": [3]},
        {"quant_cfg": {}, "other": 1}, {"quant_cfg": [{"cfg": {}}]},
        {"quant_cfg": [{"quantizer_name": "*", "extra": 1}]},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 6}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": True}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8, "axis": 2}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8, "axis": -1}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "block_sizes": {0: 128}}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "block_sizes": {-1: 0}}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "block_sizes": 128}}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 4, "block_sizes": {-1: 8}, "axis": 0}}},
        {"quant_cfg": {"*weight_quantizer": {"bits": 8}}},
        {"quant_cfg": {"*weight_quantizer": 8}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8}}, "algorithm": "best"},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8}}, "algorithm": 3},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8}}, "algorithm": {"alhpa": 1}},
        {"quant_cfg": {"*weight_quantizer": {"num_bits": 8}}, "algorithm": {"alpha": 0.5}},
        {"quant_cfg": {"*weight_quantizer": {"enable": True}}},
        {"quant_cfg": {"*input_quantizer": {"num_bits": 8, "axis": 0}}},
    ],
)  # fmt: skip
def test_configurations_that_are_none(given):
    with pytest.raises(tp.TripyException) as error:
        tq.plan(model(), given)
    assert "expected:" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "best"}, {"calibrator": "min"}, {"weight_calibrator": "entropy"},
        {"percentile": 0}, {"percentile": 101}, {"percentile": "all"}, {"alpha_step": 0},
        {"method": "awq", "alpha": 1.5}, {"method": "awq", "alpha": -0.1}, {"sample_tokens": 0},
        {"damping": 0},
    ],
)  # fmt: skip
def test_algorithms_that_are_none(options):
    with pytest.raises(tp.TripyException, match="algorithm"):
        tq.Algorithm(**options)


def test_algorithm_names_that_users_know():
    assert tq.Algorithm.of("awq_lite") == tq.Algorithm("awq")
    assert tq.Algorithm.of("awq_full") == tq.Algorithm("awq", weight_calibrator="mse")
    assert tq.Algorithm.of({"method": "entropy"}).calibrator == "entropy"
    assert tq.Algorithm.of({"method": "smoothquant", "alpha": 0.5}).alpha == 0.5
    assert tq.Algorithm.of(None) == tq.Algorithm()


@pytest.mark.parametrize(
    "thing", [None, 3, torch.nn.ReLU(), tp.Linear(2, 2), torch.nn.Linear(2, 2)]
)
def test_what_has_no_linear_layers(thing):
    with pytest.raises(tp.TripyException, match=r"no model|no linear layer"):
        tq.plan(thing, tq.INT8_DEFAULT_CFG)


def test_layers_that_compute_in_their_own_way_are_left_alone():
    class Own(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    both = torch.nn.Sequential(Own(8, 8), torch.nn.Linear(8, 8))
    plans = tq.plan(both, tq.INT8_DEFAULT_CFG)
    assert "own way to compute" in plans["0"].reason
    assert plans["1"].reason == ""
