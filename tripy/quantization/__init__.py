"""Post-training quantization: from a trained model and some data to scales, reports and files.

import tripy.quantization as tq

tq.quantize(model, tq.INT8_SMOOTHQUANT_CFG, forward_loop)    # in place
print(tq.report(model))
tq.export_model_config(model, "gpt2", torch.float16, "exported", inference_gpus=2)
"""

from tripy.quantization.calibrators import amax_from
from tripy.quantization.checkpoint.huggingface import Checkpoint
from tripy.quantization.checkpoint.public import (
    export_hf,
    export_model_config,
    load_hf,
    load_model_config,
)
from tripy.quantization.collecting import collect
from tripy.quantization.config import Algorithm, QuantizationConfig, Rule
from tripy.quantization.describe import describe
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.histogram import Histogram
from tripy.quantization.mixed_precision import Mixed, ParetoPoint, choose_formats
from tripy.quantization.modelopt import modelopt_config
from tripy.quantization.planning import plan
from tripy.quantization.presets import (
    FP8_DEFAULT_CFG,
    INT4_AWQ_CFG,
    INT4_BLOCKWISE_WEIGHT_ONLY_CFG,
    INT4_GPTQ_CFG,
    INT8_DEFAULT_CFG,
    INT8_SMOOTHQUANT_CFG,
    INT8_WEIGHT_ONLY_CFG,
    PRESETS,
    W4A8_AWQ_BETA_CFG,
    W4A8_INT8_CFG,
)
from tripy.quantization.quantize import quantize
from tripy.quantization.report import Report, report
from tripy.quantization.results import Sensitivity, SensitivityRow
from tripy.quantization.rows import ReportRow
from tripy.quantization.sensitivity import sensitivity
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.statistics import LayerStatistics, Statistics, mask_tokens
from tripy.quantization.transfer import to_tripy

__all__ = [
    "FP8_DEFAULT_CFG",
    "INT4_AWQ_CFG",
    "INT4_BLOCKWISE_WEIGHT_ONLY_CFG",
    "INT4_GPTQ_CFG",
    "INT8_DEFAULT_CFG",
    "INT8_SMOOTHQUANT_CFG",
    "INT8_WEIGHT_ONLY_CFG",
    "PRESETS",
    "W4A8_AWQ_BETA_CFG",
    "W4A8_INT8_CFG",
    "Algorithm",
    "Checkpoint",
    "Histogram",
    "LayerStatistics",
    "LinearState",
    "Mixed",
    "ParetoPoint",
    "QuantizationConfig",
    "QuantizerConfig",
    "QuantizerState",
    "Report",
    "ReportRow",
    "Rule",
    "Sensitivity",
    "SensitivityRow",
    "Statistics",
    "amax_from",
    "choose_formats",
    "collect",
    "describe",
    "export_hf",
    "export_model_config",
    "load_hf",
    "load_model_config",
    "mask_tokens",
    "modelopt_config",
    "plan",
    "quantize",
    "report",
    "sensitivity",
    "to_tripy",
]
