"""The same scales as nvidia-modelopt, and its reader takes our files; where it is installed."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import tiny_gpt2, tokens

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mtq = pytest.importorskip(
        "modelopt.torch.quantization",
        reason="needs nvidia-modelopt: pip install nvidia-modelopt requests",
    )

pytestmark = pytest.mark.filterwarnings("ignore")


def both(config):
    """The same model, quantized by tripy and by nvidia-modelopt."""
    ours, theirs, data = tiny_gpt2(), tiny_gpt2(), tokens()
    tq.quantize(ours, config, lambda: ours(data))
    return ours, mtq.quantize(theirs, tq.modelopt_config(config), lambda model: model(data))


@pytest.mark.parametrize(
    "config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG]
)
def test_amax_and_small_weights_are_equal(config):
    ours, theirs = map(tq.describe, both(config))
    assert list(ours) == list(theirs)
    for name, mine in ours.items():
        other = theirs[name]
        assert mine.scheme == other.scheme
        for a, b in zip(mine.weight_quantizers, other.weight_quantizers):
            assert torch.equal(a.amax, b.amax)
            q = a.round(mine.weight.float()), b.round(other.weight.float())
            assert torch.equal(q[0].float(), q[1].float())
        if mine.input_quantizer:
            assert torch.equal(mine.input_quantizer.amax, other.input_quantizer.amax)


@pytest.mark.parametrize("name", ["INT8_SMOOTHQUANT_CFG", "W4A8_AWQ_BETA_CFG", "INT4_AWQ_CFG"])
def test_models_of_modelopt_into_tripy(name):
    config = tq.PRESETS[name]
    config = config.with_algorithm(config.algorithm.method)
    _, theirs = both(config)
    layer = theirs.transformer.h[0].mlp.c_fc
    module = tp.Sequential(tp.Linear(128, 512))
    names = {f"transformer.h.0.mlp.c_fc{end}": f"0{end}" for end in ("", ".weight", ".bias")}
    if name == "W4A8_AWQ_BETA_CFG":
        with pytest.raises(tp.TripyException, match="cannot hold"):
            tq.to_tripy(theirs, module, names)
        return
    x = torch.randn(8, 128)
    got = torch.from_numpy(tq.to_tripy(theirs, module, names)(tp.Tensor(x)).numpy())
    torch.testing.assert_close(got, layer(x).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [tq.INT8_SMOOTHQUANT_CFG, tq.FP8_DEFAULT_CFG, tq.INT4_AWQ_CFG])
def test_its_reader_takes_our_files(config, tmp_path):
    utilities = pytest.importorskip("modelopt.torch.export.model_config_utils")
    ours, data = tiny_gpt2(), tokens()
    tq.quantize(ours, config, lambda: ours(data))
    tq.export_model_config(ours, "gpt2", torch.float16, tmp_path)
    described = json.loads((tmp_path / "gpt2_tp1.json").read_text())
    with np.load(tmp_path / "gpt2_tp1_rank0.npz") as arrays:
        utilities.restore_model_config(described, dict(arrays))
    read = utilities.model_config_from_dict(described)
    weight = tq.describe(ours)["transformer.h.1.mlp.c_fc"].weight.half()
    assert torch.equal(torch.as_tensor(read.layers[1].mlp.fc.weight), weight)
    assert len(read.layers) == 2
