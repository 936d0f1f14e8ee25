"""Kernels for NVIDIA GPUs. Files with kernels are imported when one is used: Triton is optional."""

from tripy.backends.torch.kernels.cuda.linear import prepare as prepare_linear
from tripy.backends.torch.kernels.cuda.others import (
    cache_writer,
    may_start_early,
    prepare_attention,
    prepare_norm,
    prepare_one_token,
    prepare_quantize,
    prepare_rows,
)

__all__ = [
    "cache_writer", "may_start_early", "prepare_attention", "prepare_linear", "prepare_norm",
    "prepare_one_token", "prepare_quantize", "prepare_rows",
]  # fmt: skip
