"""Modules: parameters, containers and layers, written only with operations."""

from tripy.nn.batch_normalization import BatchNorm
from tripy.nn.container import Sequential
from tripy.nn.convolution import Conv, ConvTranspose
from tripy.nn.embedding import Embedding
from tripy.nn.group_normalization import GroupNorm, InstanceNorm
from tripy.nn.linear import Linear
from tripy.nn.module import Module
from tripy.nn.normalization import LayerNorm, RMSNorm
from tripy.nn.parameter import Parameter

__all__ = [
    "BatchNorm", "Conv", "ConvTranspose", "Embedding", "GroupNorm", "InstanceNorm", "LayerNorm",
    "Linear", "Module", "Parameter", "RMSNorm", "Sequential",
]  # fmt: skip
