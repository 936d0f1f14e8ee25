"""Computes a TensorRT network from TensorRT's documentation, with neither a GPU nor TensorRT's
kernels: proof that a network which our backend wrote means what the graph means.

It knows nothing of tripy. It reads a finished, strongly typed INetworkDefinition through the Python
API, and implements what the operator pages say
(https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/) and the docstrings of the
API, no more:

* `values.Refused` where TensorRT would refuse the network or its inputs;
* `values.Undocumented`, a NotImplementedError, or OverflowError where the result would hang on
  something that no page says: a wrapped integer, NaN in a maximum, a rounding of negatives;
* NotImplementedError, with the layer's name, for what is left out here.

Each layer computes in float32 and rounds once to its output's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.tensorrt.interpreter import (
    attention,
    elementwise,
    indexing,
    linear,
    movement,
    quantization,
    reduction,
    resizing,
    spatial,
)
from tests.tensorrt.interpreter.values import TORCH, Refused, Step, agrees, given

# By the layer's type: the class that holds its attributes, and the function that computes it.
LAYERS = {
    "ACTIVATION": ("IActivationLayer", elementwise.activation),
    "ASSERTION": ("IAssertionLayer", movement.assertion),
    "ATTENTION_INPUT": ("IAttentionInputLayer", attention.attention_input),
    "ATTENTION_OUTPUT": ("IAttentionOutputLayer", attention.attention_output),
    "CAST": ("ICastLayer", elementwise.cast),
    "CONCATENATION": ("IConcatenationLayer", movement.concatenation),
    "CONSTANT": ("IConstantLayer", movement.constant),
    "CONVOLUTION": ("IConvolutionLayer", spatial.convolution),
    "CUMULATIVE": ("ICumulativeLayer", reduction.cumulative),
    "DECONVOLUTION": ("IDeconvolutionLayer", spatial.deconvolution),
    "DEQUANTIZE": ("IDequantizeLayer", quantization.dequantize),
    "EINSUM": ("IEinsumLayer", linear.einsum),
    "ELEMENTWISE": ("IElementWiseLayer", elementwise.elementwise),
    "FILL": ("IFillLayer", movement.fill),
    "GATHER": ("IGatherLayer", indexing.gather),
    "IDENTITY": ("IIdentityLayer", elementwise.identity),
    "KV_CACHE_UPDATE": ("IKVCacheUpdateLayer", attention.kv_cache_update),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", linear.matrix_multiply),
    "NON_ZERO": ("INonZeroLayer", indexing.non_zero),
    "NORMALIZATION": ("INormalizationLayer", reduction.normalization),
    "ONE_HOT": ("IOneHotLayer", indexing.one_hot),
    "PADDING": ("IPaddingLayer", movement.padding),
    "PARAMETRIC_RELU": ("IParametricReLULayer", elementwise.parametric_relu),
    "POOLING": ("IPoolingLayer", spatial.pooling),
    "QUANTIZE": ("IQuantizeLayer", quantization.quantize),
    "REDUCE": ("IReduceLayer", reduction.reduce),
    "RESIZE": ("IResizeLayer", resizing.resize),
    "ROTARY_EMBEDDING": ("IRotaryEmbeddingLayer", attention.rotary_embedding),
    "SCATTER": ("IScatterLayer", indexing.scatter),
    "SELECT": ("ISelectLayer", elementwise.select),
    "SHAPE": ("IShapeLayer", movement.shape),
    "SHUFFLE": ("IShuffleLayer", movement.shuffle),
    "SLICE": ("ISliceLayer", movement.slice_),
    "SOFTMAX": ("ISoftMaxLayer", reduction.softmax),
    "SQUEEZE": ("ISqueezeLayer", movement.squeeze),
    "TOPK": ("ITopKLayer", reduction.top_k),
    "UNARY": ("IUnaryLayer", elementwise.unary),
    "UNSQUEEZE": ("IUnsqueezeLayer", movement.unsqueeze),
}


def run(
    trt: Any, network: Any, inputs: dict[str, np.ndarray | torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The outputs of a network by name, for inputs by name; `trt` is the module it was built with.

    Int4 values are held as int8 tensors. Afterwards `run.ties` names the TopK layers that met equal
    values, whose order TensorRT doesn't document.
    """
    if not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise Refused("the network isn't strongly typed")
    declared = {t.name: t for t in (network.get_input(i) for i in range(network.num_inputs))}
    if set(inputs) != set(declared):
        raise Refused(f"inputs {sorted(inputs)} for a network of {sorted(declared)}")
    values = {name: given(tensor, inputs[name]) for name, tensor in declared.items()}
    constants: set[str] = set()
    run.ties = ties = []
    waiting = [network.get_layer(i) for i in range(network.num_layers)]
    while waiting:
        # A layer may read one added after it, so what can't be computed yet waits for a round.
        ready = [layer for layer in waiting if all(name in values for name in read_by(layer))]
        if not ready:
            raise NotImplementedError(f"layers that wait for each other: {waiting[0].name!r}")
        for layer in ready:
            compute(Step(trt, layer, values, constants, ties))
        waiting = [layer for layer in waiting if layer not in ready]
    outputs = (network.get_output(i).name for i in range(network.num_outputs))
    return {name: values[name] for name in outputs}


run.ties = []


def read_by(layer: Any) -> list[str]:
    tensors = (layer.get_input(i) for i in range(layer.num_inputs))
    return [tensor.name for tensor in tensors if tensor is not None]


def compute(step: Step) -> None:
    """One layer, its results compared with the types and the shapes that TensorRT infers."""
    if step.kind not in LAYERS:
        raise step.missing(f"layers of the type {step.kind}")
    layer = step.layer
    class_name, function = LAYERS[step.kind]
    layer.__class__ = getattr(step.trt, class_name)
    results = function(step)
    names = read_by(layer)
    fixed = step.kind == "CONSTANT" or (names and all(n in step.constants for n in names))
    if len(results) != layer.num_outputs:
        raise step.missing(f"{layer.num_outputs} outputs")
    for index, result in enumerate(results):
        tensor = layer.get_output(index)
        if tensor.name in step.values:
            raise step.refuse(f"another tensor has the name {tensor.name!r}")
        if result.dtype != TORCH[tensor.dtype.name] or not agrees(tensor, result):
            computed = f"{tuple(result.shape)} of {result.dtype}"
            expected = f"{tuple(tensor.shape)} of {tensor.dtype.name}"
            raise AssertionError(f"{step}: TensorRT infers {expected}, the interpreter {computed}")
        step.values[tensor.name] = result
        if fixed:
            step.constants.add(tensor.name)
