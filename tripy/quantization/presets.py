"""Configurations by the names that users of nvidia-modelopt know.

All leave heads and routers alone: those are few bytes, and the model's quality hangs on them.
"""

from __future__ import annotations

from tripy.quantization.config import Algorithm, QuantizationConfig, Rule
from tripy.quantization.formats import QuantizerConfig

INT8, INT8_ROWS = QuantizerConfig(8), QuantizerConfig(8, axis=0)
FP8 = QuantizerConfig((4, 3))
INT4_BLOCKS = QuantizerConfig(4, block_size=128)

_EXCLUDED = tuple(
    Rule(pattern, enable=False)
    for pattern in (
        "*lm_head*", "*output_layer*", "output.*", "*proj_out.*", "*router*", "*mlp.gate.*",
        "*block_sparse_moe.gate*",
    )
)  # fmt: skip


def _preset(
    name: str,
    weight: tuple[QuantizerConfig, ...],
    inputs: tuple[QuantizerConfig, ...] = (),
    algorithm: Algorithm = Algorithm(),  # noqa: B008  (frozen)
) -> QuantizationConfig:
    rules = [Rule("*weight_quantizer", weight)]
    rules += [Rule("*input_quantizer", inputs)] if inputs else []
    return QuantizationConfig((*rules, *_EXCLUDED), algorithm, name)


INT8_DEFAULT_CFG = _preset("INT8_DEFAULT_CFG", (INT8_ROWS,), (INT8,))
INT8_SMOOTHQUANT_CFG = _preset(
    "INT8_SMOOTHQUANT_CFG", (INT8_ROWS,), (INT8,), Algorithm("smoothquant")
)
INT8_WEIGHT_ONLY_CFG = _preset("INT8_WEIGHT_ONLY_CFG", (INT8_ROWS,))
FP8_DEFAULT_CFG = _preset("FP8_DEFAULT_CFG", (FP8,), (FP8,))
INT4_BLOCKWISE_WEIGHT_ONLY_CFG = _preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", (INT4_BLOCKS,))
# As in the paper: scaling, then clipping by error.
_AWQ = Algorithm("awq", weight_calibrator="mse")
INT4_AWQ_CFG = _preset("INT4_AWQ_CFG", (INT4_BLOCKS,), (), _AWQ)
# int4 weights whose values are rounded to float8, for a float8 product with float8 inputs.
W4A8_AWQ_BETA_CFG = _preset("W4A8_AWQ_BETA_CFG", (INT4_BLOCKS, FP8), (FP8,), _AWQ)
# int4 weights and int8 inputs: what tripy.Linear with quant_dtype=int4 and an input_scale computes.
W4A8_INT8_CFG = _preset("W4A8_INT8_CFG", (INT4_BLOCKS,), (INT8,), _AWQ)
_GPTQ = Algorithm("gptq", weight_calibrator="mse")
INT4_GPTQ_CFG = _preset("INT4_GPTQ_CFG", (INT4_BLOCKS,), (), _GPTQ)

PRESETS = {
    config.name: config
    for config in (
        INT8_DEFAULT_CFG, INT8_SMOOTHQUANT_CFG, INT8_WEIGHT_ONLY_CFG, FP8_DEFAULT_CFG,
        INT4_BLOCKWISE_WEIGHT_ONLY_CFG, INT4_AWQ_CFG, W4A8_AWQ_BETA_CFG, W4A8_INT8_CFG,
        INT4_GPTQ_CFG,
    )
}  # fmt: skip
