"""What tests/tools/mutations.py changes, and the tests that should notice.

A row is a name, the text to change, which has to be in its file exactly once, and the new text.
Rows that differ only in speed, or that no input can tell from the original, do not belong here.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One change; ``tests`` are paths that pytest takes."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: list[Mutation] = []


def _rows(file: str, tests: str, *changes: tuple[str, str, str]) -> None:
    MUTATIONS.extend(
        Mutation(name, f"tripy/{file}", old, new, tuple(f"tests/{test}" for test in tests.split()))
        for name, old, new in changes
    )


# fmt: off
_rows(
    "dtypes.py", "ops/test_quantization.py",
    ("int8: low bound", "int8: (-128, 127),\n    int4: (-8, 7),\n    float8",
     "int8: (-127, 127),\n    int4: (-8, 7),\n    float8"),
    ("int4: high bound", "int4: (-8, 7),\n    float8", "int4: (-8, 8),\n    float8"),
)
_rows(
    "backends/torch/lowering/quantization.py", "ops/test_quantization.py",
    ("quantize: halves up", "x.round_().clamp_(low, high)", "(x + 0.5).floor_().clamp_(low, high)"),
    ("quantize: truncation", "x.round_()", "x.trunc_()"),
    ("quantize: quotient in 16 bits", "rounded(x.float() / scale, ",
     "rounded((x / scale.to(x.dtype)).float(), "),
    ("quantize: per-channel dim", "view[dim] = -1", "view[0] = -1"),
    ("quantize: blocks interleaved", "scale.repeat_interleave(shape[axis] // count, axis)",
     "torch.cat([scale] * (shape[axis] // count), axis)"),
    ("dynamic_quantize: divisor", "amax.float() / high", "amax.float() / (high + 1)"),
    ("dynamic_quantize: sign", "rows.abs().amax(", "rows.amax("),
    ("dynamic_quantize: scale of zeros", ".clamp(min=torch.finfo(x.dtype).tiny)", ""),
)
_rows(
    "backends/torch/storage.py",
    "ops/test_quantization.py test_tensor.py saving/test_round_trip.py ops/test_elementwise.py",
    ("float8: saturation", ".clamp(-448.0, 448.0)", ".clamp(-448.0, 416.0)"),
    ("float8: ties away from even", "array.float().clamp(", "array.float().mul(1.0001).clamp("),
    ("int4: order of packed halves", "(low & 15) | (high << 4)", "(high & 15) | (low << 4)"),
    ("int4: sign of the low half", "(packed << 4).view(torch.int8) >> 4",
     "(packed & 15).view(torch.int8)"),
    ("Tensor: largest int32", "int(array.max()) <= high", "int(array.max()) <= high + 1"),
    ("Tensor: number out of range", "least <= most <= high:", "least <= most <= high + 1:"),
    ("Tensor: int4 from halves", "array.round() if kind is dtypes.int4 else array.trunc()",
     "array.trunc()"),
)
_rows(
    "backends/torch/lowering/elementwise.py", "ops/test_elementwise.py ops/test_matrix.py",
    ("div: integers rounded down", 'rounding_mode="trunc"', 'rounding_mode="floor"'),
    ("div: smallest integer over -1", "torch.remainder else -lhs", "torch.remainder else lhs"),
    ("cast: int4 clamp", "x.clamp(-8, 7)", "x.clamp(-8, 8)"),
    ("cast: int4 rounding", "x.float().round()", "x.float().trunc()"),
    ("less: <=", '"less": torch.lt', '"less": torch.le'),
    ("greater_equal: >", '"greater_equal": torch.ge', '"greater_equal": torch.gt'),
    ("int8 activations rounded", "x.float()).to(torch.int8)", "x.float()).round().to(torch.int8)"),
)
_rows(
    "backends/torch/lowering/reduction.py", "ops/test_reduction.py ops/test_matrix.py",
    ("mean: integers rounded down", 'rounding_mode="trunc"', 'rounding_mode="floor"'),
    ("var: correction ignored", "correction=correction", "correction=1"),
    ("var: too few elements", "for axis in axes) <= correction",
     "for axis in axes) < correction - 1"),
    ("softmax: axis", 'torch.softmax(x, attrs["dim"])', "torch.softmax(x, -1)"),
    ("cumsum: axis", 'torch.cumsum(x, attrs["dim"])', "torch.cumsum(x, 0)"),
    ("argmax: last on ties", "_arg(torch.argmax)",
     "_arg(lambda x, d, k: torch.argmax(x, d, k) if d is None"
     " else x.shape[d] - 1 - torch.argmax(x.flip(d), d, k))"),
    ("topk: last on ties", 'torch.sort(x, dim=attrs["dim"], descending=True, stable=True)',
     'torch.sort(x.flip(attrs["dim"]), dim=attrs["dim"], descending=True, stable=True)\n'
     '    indices = x.shape[attrs["dim"]] - 1 - indices'),
    ("topk: smallest", "descending=True", "descending=False"),
    ("prod: in 16 bits", "wide = torch.float32 if", "wide = x.dtype if"),
)
_rows(
    "backends/torch/lowering/movement.py",
    "ops/test_indexing.py ops/test_movement.py ops/test_matrix.py",
    ("slice: first of a negative step", "slice(last, start + 1, -step)",
     "slice(last, start, -step)"),
    ("slice: end", "start + (size - 1) * step + 1, step)", "start + (size - 1) * step, step)"),
    ("gather: index beyond the end", "low < -size or high >= size", "low < -size or high > size"),
    ("gather: index before the start", "if low < -size or", "if low < -size - 1 or"),
    ("gather: index 0 wrapped", "torch.where(index < 0,", "torch.where(index <= 0,"),
    ("concatenate: order", 'torch.cat(tensors, attrs["dim"])',
     'torch.cat(tensors[::-1], attrs["dim"])'),
    ("split: axis", 'x.split(list(attrs["sizes"]), attrs["dim"])',
     'x.split(list(attrs["sizes"]), 0)'),
)
_rows(
    "backends/torch/lowering/spatial.py",
    "ops/test_spatial.py ops/test_tiling.py ops/test_matrix.py",
    ("resize: half pixels", "(steps + 0.5) / float(scale) - 0.5", "steps / float(scale)"),
    ("resize: align_corners", "((own - 1) / (size - 1))", "(own / size)"),
    ("resize: nearest rounded", "steps * scale.denominator //",
     "(steps * scale.denominator + scale.numerator // 2) //"),
    ("resize: cubic parameter", "_CUBIC = -0.75", "_CUBIC = -0.5"),
    ("resize: int8 overshoot", "result.clamp(-128, 127)", "result"),
    ("pad: order of dimensions", "reversed(list(zip(low, high)))", "zip(low, high)"),
    ("pad: edge repeated", "(last - index).abs()", "(last - index + 0.5).abs().long()"),
    ("pool: order of padding", 'reversed(attrs["padding"])', 'attrs["padding"]'),
    ("maxpool: padded with zeros", "_padded(attrs, x, -math.inf)", "_padded(attrs, x, 0)"),
    ("avgpool: count_include_pad", 'if attrs["count_include_pad"]',
     'if not attrs["count_include_pad"]'),
    ("avgpool: stride", 'kernel, stride = attrs["kernel"], attrs["stride"]',
     'kernel, stride = attrs["kernel"], attrs["kernel"]'),
)
_rows(
    "backends/torch/lowering/convolution.py", "nn/test_convolution.py",
    ("conv: order of padding", 'reversed(attrs["padding"])', 'attrs["padding"]'),
    ("conv: padded twice", "padding = [0] * len(padding)", "padding = list(padding)"),
    ("conv: stride for dilation", 'padding, attrs["dilation"], attrs["groups"]',
     'padding, attrs["stride"], attrs["groups"]'),
    ("conv: groups", 'attrs["dilation"], attrs["groups"]\n', 'attrs["dilation"], 1\n'),
    ("conv_transpose: the side cut off", "narrow(axis, before - both", "narrow(axis, after - both"),
)
_rows(
    "backends/torch/lowering/linear_algebra.py",
    "ops/test_linear_algebra.py ops/test_matrix.py nn/test_normalization.py"
    " compiler/test_in_place.py",
    ("layer_norm: eps", 'weight, bias, attrs["eps"]', "weight, bias, 1e-5"),
    ("rms_norm: eps", 'weight.shape, weight, attrs["eps"]', "weight.shape, weight, 1e-5"),
    ("attention: scale", 'scale=attrs["scale"]', "scale=None"),
    ("attention: causal", 'is_causal=attrs["is_causal"]', "is_causal=False"),
    ("cache: position past the end", "0 <= position <= room", "0 <= position <= room + 1"),
    ("cache: position before the start", "0 <= position <= room", "-1 <= position <= room"),
    ("cache: position", "position : position + update",
     "position and position - 1 : position + update"),
    ("cache: batch row", "] = update[batch]", "] = update[0]"),
    ("cache: functional", "write_cache(cache.clone(), update", "write_cache(cache, update"),
    ("rotary: direction", "first * cos - second * sin, second * cos + first * sin",
     "first * cos + second * sin, second * cos - first * sin"),
    ("rotary: interleaved result", "torch.stack(parts, -1).flatten(-2)", "torch.cat(parts, -1)"),
)
_rows(
    "backends/torch/lowering/create.py", "ops/test_create.py ops/test_matrix.py",
    ("tril: diagonal", 'torch.tril(x, attrs["diagonal"])', 'torch.tril(x, attrs["diagonal"] - 1)'),
    ("iota: start", 'line * attrs["step"] + attrs["start"]',
     '(line + attrs["start"]) * attrs["step"]'),
)
_rows(
    "backends/torch/kernels/quantized_linear.py",
    "backends/test_quantized_linear.py passes/test_random_layers.py",
    ("linear epilogue: bias last",
     "            result = result + bias\n        result = activate(result, layer.activation)",
     "            result = activate(result, layer.activation) + bias"),
    ("linear epilogue: requantize", "rounded(result / out_scale", "rounded(result * out_scale"),
    ("weight-only: scale of the inputs", "scale_input=layer.dim == 1",
     "scale_input=layer.dim == 0"),
)
_rows(
    "backends/torch/kernels/cpu_int8.py",
    "backends/test_quantized_linear.py passes/test_random_layers.py",
    ("int8: zero point", "_ZERO_POINT = 128", "_ZERO_POINT = 127"),
    ("int8: silu as relu", '"silu": ("swish", "")', '"silu": ("relu", "")'),
    ("int8: gelu form", '("gelu", "tanh")', '("gelu", "none")'),
    ("int8: digits", "alpha=65536.0", "alpha=65535.0"),
    ("int8: fixed-point range", "MAXIMUM = 8_300_000.0", "MAXIMUM = 8_500_000.0"),
    ("int8: sums without VNNI", "else total + part", "else part"),
)
_rows(
    "backends/torch/kernels/expanded.py",
    "backends/test_quantized_linear.py passes/test_random_layers.py",
    ("int4 weight: mask", "self.data & -16", "self.data & -8"),
    ("int4 weight: halves", "(low & 15) | (high << 4)", "(high & 15) | (low << 4)"),
    ("int4 weight: scale", "self.shape[1]], 1 / 16", "self.shape[1]], 1 / 15"),
    ("expanded: float16 sums", "one and w_scale.dtype is not torch.float16", "one"),
    ("expanded: dim of the blocks", "tuple(scale.shape)) == 0", "tuple(scale.shape)) == 1"),
)
_rows(
    "backends/torch/kernels/cpu_bfloat16.py",
    "backends/test_quantized_linear.py passes/test_random_layers.py",
    ("bfloat16: int4 zeros", "torch.zeros_like(scale)], -1)", "torch.ones_like(scale)], -1)"),
    ("bfloat16: scale of many rows", "self._weight.to(x.dtype)).mul_(self._scale)",
     "self._weight.to(x.dtype))"),
)
_rows(
    "backends/torch/kernels/attention.py", "backends/test_attention.py",
    ("causal blocks: mask", ".triu_(1)", ".triu_(2)"),
    ("causal blocks: scale", "width**-0.5 if", "width**-1 if"),
    ("causal blocks: lengths", "query.shape[2] == key.shape[2]", "query.shape[2] >= key.shape[2]"),
    ("causal blocks: heads", "query.shape[1] == key.shape[1]", "query.shape[1] >= key.shape[1]"),
)
_rows(
    "backends/torch/kernels/cpu_int8_convolution.py", "backends/test_quantized_convolution.py",
    ("int8 conv_transpose: channels",
     "flat.view(-1, 1, each).expand(self.groups, repeated, each).reshape(-1)",
     "flat.repeat_interleave(self.outputs // flat.numel())"),
    ("int8 conv_transpose: first result", "stride, before % stride)", "stride, 0)"),
)
_rows(
    "backends/torch/kernels/layer.py",
    "backends/test_quantized_linear.py backends/test_quantized_convolution.py"
    " backends/test_quantized_convolution_types.py passes/test_random_layers.py",
    ("fused: gelu form", '"tanh" if activation == "gelu_tanh" else "none"', '"none"'),
    ("unfused: requantize", "rounded(result / out_scale", "rounded(result * out_scale"),
    ("unfused: input scale", "x.to(x_scale.dtype) * x_scale", "x.to(x_scale.dtype)"),
)
_rows(
    "backends/torch/aliasing.py", "compiler/test_in_place.py backends/test_aliasing.py"
    " compiler/test_results.py",
    ("in place: neighbours in memory", "if start < end:", "if start <= end:"),
    ("in place: read later", "order[user] > order[writer]", "order[user] < order[writer]"),
    ("in place: what the cache holds written", "if current is not value or", "if"),
    ("in place: constants", "if inside % 2 or", "if not inside % 2 or"),
    ("results: constants shown", "return value.data is not None", "return False"),
)
_rows(
    "passes/quantization.py", "passes/test_quantization.py passes/test_random_layers.py",
    ("fusion: dim of a turned weight", "dim = None if dim is None else 1 - dim", "pass"),
    ("fusion: blocks of a turned weight", "if scale.rank == 2:", "if scale.rank == 3:"),
    ("fusion: scale along the sum", "or dim == 1:", "or dim == 2:"),
    ("fusion: bias behind an activation", 'if linear.attrs["activation"] or bias.shape',
     "if bias.shape"),
    ("fusion: gelu form", '"approximate") == "tanh"', '"approximate") == "none"'),
    ("fusion: requantize to another type", 'dtype is not match.value["x"].dtype',
     'dtype is match.value["w"].dtype and False'),
    ("fusion: requantize by rows", 'if scale.rank or match.value["x_scale"] is None',
     'if match.value["x_scale"] is None'),
)
_rows(
    "passes/convolution.py", "passes/test_convolution.py",
    ("fusion: output channels", "outputs = 1 if match", "outputs = 0 if match"),
    ("fusion: rank of a channel's addend", "bias.rank < len(shape) - 1", "bias.rank < 1"),
)
_rows(
    "passes/linear.py", "passes/test_linear.py",
    ("fusion: second bias", 'if match.value["bias"] is not None or', "if"),
    ("fusion: weight not turned", "perm=(1, 0)).output", "perm=(0, 1)).output"),
)
_rows(
    "passes/folding.py", "passes/test_folding.py compiler/test_rejected.py",
    ("folding: weights made large", 'NEVER_FOLDED = {"dequantize", ', "NEVER_FOLDED = {"),
    ("folding: growth", "<= before + MAXIMUM_GROWTH_BYTES", ">= 0 * before"),
    ("scale check: dequantize", 'not in ("quantize", "dequantize")', 'not in ("quantize",)'),
)
_rows(
    "passes/rewrite.py", "passes/test_rewrite.py passes/test_quantization.py",
    ("rewrite: shared results", "uses.get(value, 0) != 1", "uses.get(value, 0) < 1"),
    ("rewrite: outputs", "counts.get(value, 0) + 2", "counts.get(value, 0)"),
    ("rewrite: other order", "orders.append(node.inputs[::-1])", "orders.append(node.inputs)"),
)
_rows(
    "graph/schema.py",
    "graph/test_schema.py compiler/test_dynamic_shapes.py ops/test_elementwise.py"
    " ops/test_reduction.py",
    ("sizes: equal at run time", 'Constraint("==", left, right', 'Constraint("<=", left, right'),
    ("sizes: at most at run time", 'Constraint("<=", left, right', 'Constraint("==", left, right'),
    ("dim: end of the range", "-rank <= dim < rank:", "-rank <= dim <= rank:"),
    ("dtypes: two kinds", "if validate and first[1] is not value.dtype", "if not first"),
    ("broadcast: a size that may be 1", "if not low <= 1 <= high:", "if not low < 1 <= high:"),
)
_rows(
    "graph/ir.py", "compiler/test_dynamic_shapes.py",
    ("constraint: <=", "return left <= right", "return left < right"),
    ("constraint: broadcast", "left == 1 or right == 1", "left == 1"),
)
_rows(
    "graph/dims.py", "graph/test_dims.py compiler/test_dynamic_shapes.py",
    ("dims: size of a broadcast", "right if left == 1 else left", "left if left == 1 else right"),
    ("dims: known size of a broadcast", "bounds(known)[0] > 1:", "bounds(known)[0] >= 1:"),
    ("dims: largest remainder", "return 0, highs[1] - 1", "return 0, highs[1] - 2"),
    ("dims: exact division", "if c % coefficient:", "if not c:"),
)
_rows(
    "graph/operations/convolution.py", "nn/test_convolution.py",
    ("conv: size of the result", "floordiv(padded - reach, stride)",
     "floordiv(padded - extent, stride)"),
    ("conv_transpose: all cut off", "before + after + 1, whole", "before + after, whole"),
)
_rows(
    "graph/operations/reduction.py", "ops/test_reduction.py",
    ("topk: k too large", "ctx.at_most(k, shape[axis]", "ctx.at_most(k - 1, shape[axis]"),
    ("reductions: dim twice", "len(set(axes)) != len(axes)", "len(set(axes)) > len(axes)"),
)
_rows(
    "graph/operations/movement.py", "ops/test_movement.py ops/test_indexing.py",
    ("index: dynamic end", "ctx.at_most(start + 1, size", "ctx.at_most(start, size"),
    ("expand: -1 in front", "size == -1 and position < extra", "size == -1 and position < 0"),
)
_rows(
    "graph/operations/spatial.py", "ops/test_tiling.py ops/test_spatial.py",
    ("pad: too little to reflect", "ctx.at_most(width + 1, size", "ctx.at_most(width, size"),
)
_rows(
    "graph/operations/elementwise.py", "ops/test_matrix.py ops/test_elementwise.py",
    ("dtypes: powers of int32", "POWER = (*FLOATS, int8, int64)", "POWER = (*FLOATS, int8, *INTS)"),
    ("dtypes: int4 to int8", "(int4, int8), (int4, int64)", "(int4, int64)"),
)
_rows(
    "graph/operations/quantization.py", "ops/test_quantization.py",
    ("blocks: sizes that do not divide", "size % blocks == 0", "size >= blocks"),
)
_rows(
    "graph/operations/linear_algebra.py", "ops/test_linear_algebra.py",
    ("attention: heads", "not groups or heads % groups", "not groups"),
    ("attention: mask beside is_causal", 'if ctx.attrs["is_causal"]:', 'if not ctx.attrs:'),
    ("cache: update too long", "update[2], cache[2], ", "update[2], cache[2] + 1, "),
)
_rows(
    "ops/indexing.py", "ops/test_indexing.py",
    ("slice: rounding of its length", "dims.maximum(-dims.floordiv(-length, abs(step)), 0)",
     "dims.maximum(dims.floordiv(length, abs(step)), 0)"),
    ("slice: stop of a negative step", "if default == 0 else -1", "if default == 0 else 0"),
    ("slice: start of a negative step", "else (-1, size - 1)", "else (-1, size)"),
)
_rows(
    "ops/joining.py", "ops/test_movement.py",
    ("split: size of a chunk", "floordiv(size + count - 1, count)", "floordiv(size, count)"),
)
_rows(
    "ops/quantization.py", "ops/test_quantization.py",
    ("scale: zero", "(data > 0)", "(data >= 0)"),
    ("scale: infinity", '(data != float("inf"))', '(data == data)'),
)
_rows(
    "ops/create.py", "ops/test_create.py ops/test_matrix.py",
    ("arange: rounding of its length", "-dims.floordiv(-difference, abs(stride))",
     "dims.floordiv(difference, abs(stride))"),
    ("arange: last number", "and low <= last <= high", "and low <= last"),
)
_rows(
    "ops/comparison.py", "ops/test_comparison.py",
    ("allclose: whose tolerance", "abs(right) * rtol + atol", "abs(left) * rtol + atol"),
    ("allclose: <", "abs(left - right) <= ", "abs(left - right) < "),
)
_rows(
    "ops/spatial.py", "ops/test_spatial.py",
    ("pool: padding as large as the window", "0 <= width < size", "0 <= width <= size"),
)
_rows(
    "tensor/operators.py", "ops/test_elementwise.py ops/test_matrix.py",
    ("operators: reflected", 'return self._binary("sub", other, self)',
     'return self._binary("sub", self, other)'),
)
_rows(
    "nn/group_normalization.py", "nn/test_normalization.py",
    ("GroupNorm: eps", "ops.rsqrt(variance + eps)", "ops.rsqrt(variance + 1e-5)"),
    ("GroupNorm: axes", "range(2, grouped.rank)", "range(3, grouped.rank)"),
)
_rows(
    "nn/batch_normalization.py", "nn/test_normalization.py",
    ("BatchNorm: eps", "ops.rsqrt(variance + self.eps)", "ops.rsqrt(variance + 1e-5)"),
)
_rows(
    "nn/quantized.py", "nn/test_quantized_linear.py",
    ("pre_quant_scale: division", "x = x * scale\n", "x = x / scale\n"),
    ("Linear: int4 input", "dtypes.int8 if self.quant_dtype is dtypes.int4 else", ""),
    ("Linear: blocks", "weight[axis] % scale[axis] == 0", "weight[axis] >= scale[axis]"),
)
_rows(
    "input_info.py", "compiler/test_rejected.py compiler/test_dynamic_shapes.py",
    ("InputInfo: negative", "0 <= low <= opt <= high", "low <= opt <= high"),
    ("InputInfo: zero", "0 <= low <= opt <= high", "0 < low <= opt <= high"),
    ("InputInfo: opt", "0 <= low <= opt <= high", "0 <= low <= high"),
)
_rows(
    "executable.py", "compiler/test_dynamic_shapes.py compiler/test_rejected.py",
    ("bounds: smallest", "bounds.min <= size <= bounds.max", "bounds.min < size <= bounds.max"),
    ("bounds: largest", "bounds.min <= size <= bounds.max", "bounds.min <= size <= bounds.max + 1"),
    ("bounds: equal names", "sizes.setdefault(each.name, size) != size",
     "sizes.setdefault(each.name, size) > size"),
    ("constraints at run time", "if not constraint.holds(left, right):", "if left < 0:"),
)
_rows(
    "recording.py", "compiler/test_dynamic_shapes.py",
    ("NamedDimension: two bounds", "if known != bounds:", "if known > bounds:"),
)
_rows(
    "compiler.py", "compiler/test_rejected.py",
    ("compile: optimization level", "not 0 <= optimization_level <= 5",
     "not 0 <= optimization_level <= 6"),
)
_rows(
    "graph/serialize.py", "saving/test_round_trip.py",
    ("saving: sides of a constraint", "size(c.left), size(c.right)", "size(c.right), size(c.left)"),
)
_rows(
    "saving.py", "saving/test_damage.py",
    ("loading: version", 'if metadata["tripy_format"] != FORMAT', "if not FORMAT"),
    ("loading: checksum of the program", '!= metadata["program_digest"]', '== ""'),
    ("loading: checksum of a tensor", "!= digests[name]:", '== "":'),
    ("loading: type of a tensor", "list(tensor.shape) != shape or tensor.dtype",
     "list(tensor.shape) != shape and tensor.dtype"),
)
