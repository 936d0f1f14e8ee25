"""Rewrites of graphs: folding, fusion of quantized layers, linear fusion."""

from tripy.passes.convolution import CONVOLUTION_RULES
from tripy.passes.folding import check_scales, fold_constants
from tripy.passes.gpu import GPU_RULES, fuse_decode_attention
from tripy.passes.linear import LINEAR_RULES
from tripy.passes.quantization import QUANTIZATION_RULES
from tripy.passes.rewrite import Rule, apply_rules

__all__ = [
    "CONVOLUTION_RULES", "GPU_RULES", "LINEAR_RULES", "QUANTIZATION_RULES", "Rule", "apply_rules",
    "check_scales", "fold_constants", "fuse_decode_attention",
]  # fmt: skip
