"""What is refused by modules: parameters, quantized layers, states.

Rows as in test_tensors.py.
"""

from __future__ import annotations

from tests.rejections.support import check, check_message, message, rows

INT = "an int that is known before the function runs"
FINITE = "finite numbers above 0"
VALUES = "a value for each, assigned or loaded with load_state_dict"
OWN = "class Own(tp.Module):\n    pass\nown = Own()\n"
LINEAR = "linear = tp.Linear(3, 2)\n"
QUANTIZED = "linear = tp.Linear(6, 4, quant_dtype=tp.int8, weight_quant_dim={})\n"
LAYER = "linear = tp.Linear(3, 2)\nlinear.initialize_dummy_parameters()\n"


@rows([
    # calling a module with a parameter that is not assigned raises and lists them all
    (LINEAR + "linear(x)", "Linear: 2 parameters have no value.", "weight: float32[2, 3]", VALUES),
    (LINEAR + "linear(x)", "Linear: 2 parameters have no value.", "bias: float32[2]", VALUES),
    ("model = tp.Sequential(tp.Linear(3, 2), tp.Linear(2, 1, bias=False))\nmodel(x)",
     "Sequential: 3 parameters have no value.", "1.weight: float32[1, 2]", VALUES),
    ("linear = tp.Linear(3, 2)\nlinear.weight + 1.0", "add: a parameter has no value yet.",
     "weight: float32[2, 3], not assigned", "a value assigned to it"),
    (LINEAR + "print(linear.weight.tolist())", "eval: a parameter has no value yet.", "weight",
     "a value assigned to it"),
    # assigning a parameter checks shape and dtype
    (LINEAR + "linear.weight = tp.ones((3, 2))", "Linear.weight: the shape does not fit.",
     "float32[3, 2]", "float32, shape (2, 3)"),
    (LINEAR + "linear.bias = tp.ones((2,), dtype=tp.float16)",
     "Linear.bias: the data type does not fit.", "float16[2]", "float32, shape (2,)"),
    (LINEAR + "linear.weight = [[0.0] * 3] * 2",
     "Linear.weight: a parameter was assigned something that is not a tensor.", "list:",
     "float32, shape (2, 3)"),
    (LINEAR + "linear.weight = None", "Linear.weight: a parameter was assigned something that is",
     "NoneType: None", "float32, shape (2, 3)"),
    (OWN + "own.a = tp.Parameter([1.0])\nown.a = tp.ones((2,))",
     "Own.a: the shape does not fit.", "float32[2]", "float32, shape (1,)"),
    (OWN + "own(x)", "Own has no forward.", "a call of the module",
     "a method `forward`"),
    # load_state_dict: strict, and shapes and types in any case
    (LINEAR + 'linear.load_state_dict({"weight": x})',
     "load_state_dict: the state does not fit Lin", "bias: missing.", "for each parameter a value"),
    (LINEAR + 'linear.load_state_dict({"weight": x, "bias": tp.ones((2,)), "scale": 1.0})',
     "load_state_dict: the state does not fit Linear", "scale: unexpected.", "for each parameter"),
    (LINEAR + 'linear.load_state_dict({"weight": n}, strict=False)',
     "load_state_dict: the state does not fit Linear; nothing was loaded.",
     "weight: the data type does not fit. Got int32[2, 3]; expected float32", "for each parameter"),
    (LINEAR + 'linear.load_state_dict({"bias": tp.ones((3,))}, strict=False)',
     "load_state_dict: the state does not fit Linear; nothing was loaded.",
     "bias: the shape does not fit. Got float32[3]; expected float32, shape (2,)", "for each"),
    (LINEAR + "linear.load_state_dict([x, x[0]])", "load_state_dict: the state is not a dict.",
     "of type list", "a dict from dotted names to tensors"),
])  # fmt: skip
def test_parameters(row):
    check(row)


@rows([
    ("tp.Linear(0, 2)", "Linear: in_features is not a size.", "in_features=0", "1 or more"),
    ("tp.Linear(3, 2.0)", "Linear: out_features is not an integer.", "out_features=2.0", INT),
    (LAYER + "linear(tp.ones((2, 4)))", "Linear: the input's shape does not fit.", "float32[2, 4]",
     "float32[..., 3]: the last dimension is 3"),
    (LAYER + "linear(n)", "Linear: the input's data type is not the layer's.", "int32[2, 3]",
     "float32[..., 3]"),
    (LAYER + "linear([[1.0] * 3])", "Linear: the input is not a tensor.", "of type list",
     "a tripy.Tensor"),
    ("tp.Embedding(0, 2)", "Embedding: num_embeddings is not a size.", "num_embeddings=0",
     "1 or more"),
    ("tp.LayerNorm(())", "LayerNorm: normalized_shape is empty.", "()", "one size or more"),
    ("tp.RMSNorm(3, eps=-1.0)", "RMSNorm: eps is not usable.", "eps=-1.0", "0 or more"),
    ("tp.GroupNorm(2, 3)", "GroupNorm: the channels do not make whole groups.", "num_channels=3",
     "a multiple of the number of groups"),
    # GroupNorm, InstanceNorm: rank ≥ 3
    *((f"norm = tp.{name}\nnorm.initialize_dummy_parameters()\nnorm(x)",
       f"{name.split('(')[0]}: the input's shape does not fit.", "float32[2, 3]",
       "float32[batch, 3, ...]: 3 channels, rank 3 or more")
      for name in ("GroupNorm(1, 3)", "InstanceNorm(3)")),
    ("norm = tp.BatchNorm(4)\nnorm.initialize_dummy_parameters()\nnorm(x)",
     "BatchNorm: the input's shape does not fit.", "float32[2, 3]", "4 channels"),
    # Conv, ConvTranspose: 1-, 2-, 3-D; padding a (low, high) a spatial dim
    *((f"tp.{name}(1, 1, (3, 3), {wrong})", f"{name}: {what} does not fit.", got, wanted)
      for name in ("Conv", "ConvTranspose") for wrong, what, got, wanted in (
        ("padding=(1, 1)", "padding", "padding=(1, 1)", "2 pairs (before, after)"),
        ("stride=(1,)", "stride", "stride=(1,)", "2 sizes of 1 or more"),
        ("dilation=(0, 1)", "dilation", "dilation=(0, 1)", "2 sizes of 1 or more"))),
    ("tp.Conv(1, 1, (1,) * 4)", "Conv: kernel_dims does not fit.", "(1, 1, 1, 1)", "1, 2 or 3"),
    ("tp.Conv(3, 2, (3,), groups=2)", "Conv: the channels do not make whole groups.",
     "in_channels=3", "multiples of the number of groups"),
    ("conv = tp.Conv(1, 1, (3,))\nconv.initialize_dummy_parameters()\nconv(x)",
     "Conv: the input's shape does not fit.", "float32[2, 3]", "rank 3"),
    # Sequential
    ("tp.Sequential(tp.relu, 3)", "Sequential: item '1' cannot be called.", "int: 3",
     "a tp.Module or a function"),
    ("tp.Sequential({'a.b': tp.relu})", "Sequential: a name is not usable.", "'a.b'",
     "text without dots"),
    ("tp.Sequential(tp.relu)[1]", "Sequential: there is no such item.", "[1]", "from -1 to 0"),
    ("tp.Sequential(tp.relu)['act']", "Sequential: there is no such item.", "['act']", "'0'"),
])  # fmt: skip
def test_layers(row):
    check(row)


def scaled(dim: str, shape: str, expected: str) -> tuple[str, str, str, str]:
    code = QUANTIZED.format(dim) + f"linear.weight_scale = tp.ones({shape})"
    return code, "Linear.weight_scale: the shape does not fit.", "float32[", expected


@rows([
    # weight_scale: by weight_quant_dim, or in blocks
    scaled("None", "(4,)", "(), or (A, 6) where A divides 4, or (4, B) where B divides 6"),
    scaled("None", "(3, 6)", "(), or (A, 6) where A divides 4"),
    scaled("None", "(4, 4)", "(4, B) where B divides 6"),
    scaled("0", "(6,)", "float32, shape (4,)"),
    scaled("1", "(4,)", "float32, shape (6,)"),
    scaled("0", "()", "float32, shape (4,)"),
    (QUANTIZED.format(None) + "linear.weight_scale = tp.ones((), dtype=tp.float16)",
     "Linear.weight_scale: the data type does not fit.", "float16[]", "float32"),
    *((QUANTIZED.format(None) + f'linear.{name} = float("{value}")',
       f"Linear.{name}: a scale is not usable.", value, FINITE)
      for name in ("weight_scale", "input_scale") for value in ("0.0", "-1.0", "nan", "inf")),
    (QUANTIZED.format(0) + "linear.weight_scale = tp.Tensor([1.0, 1.0, 0.0, 1.0])",
     "Linear.weight_scale: a scale is not usable.", "values from 0.0 to 1.0", FINITE),
    # both, weight_quant_dim 1: rejected
    (QUANTIZED.format(1) + "linear.input_scale = 1.0",
     "Linear.input_scale: with weight_quant_dim=1 the input cannot be quantized", "1.0", "None"),
    # input_scale: per tensor
    (QUANTIZED.format(0) + "linear.input_scale = [1.0] * 6",
     "Linear.input_scale: the shape does not fit.", "float32[6]", "float32, shape ()"),
    # weight_scale missing: rejected
    (QUANTIZED.format(0) + "linear.weight = tp.ones((4, 6))\nlinear.bias = tp.ones((4,))\n"
     "linear(tp.ones((1, 6)))", "Linear: 1 parameter has no value.", "weight_scale: float32[4]",
     VALUES),
    (QUANTIZED.format(0) + "linear.weight_scale = None",
     "Linear.weight_scale: a parameter was assigned something that is not a tensor.", "None",
     "float32, shape (4,)"),
    # pre_quant_scale [in]
    (QUANTIZED.format(0) + "linear.pre_quant_scale = tp.ones((4,))",
     "Linear.pre_quant_scale: the shape does not fit.", "float32[4]", "float32, shape (6,)"),
    # weight of dtype quant_dtype: already quantized, and of no other
    (QUANTIZED.format(0) + "linear.weight = tp.cast(tp.ones((4, 6)), tp.int4)",
     "Linear.weight: the data type does not fit.", "int4[4, 6]", "float32 or int8, shape (4, 6)"),
    ("tp.Linear(6, 4, quant_dtype=tp.int8, weight_quant_dim=2)",
     "Linear: weight_quant_dim is not one of its values.", "weight_quant_dim=2", "None, 0, 1"),
    ("tp.Linear(6, 4, quant_dtype=tp.int8, weight_quant_dim=-1)",
     "Linear: weight_quant_dim is not one of its values.", "weight_quant_dim=-1", "None, 0, 1"),
    # the same of convolutions
    ("conv = tp.Conv(2, 4, (3,), quant_dtype=tp.int8, weight_quant_dim=1)\nconv.input_scale = 1.0",
     "Conv.input_scale: with weight_quant_dim=1 the input cannot be quantized", "1.0", "None"),
    ("conv = tp.Conv(2, 4, (3,), quant_dtype=tp.int8, weight_quant_dim=0)\n"
     "conv.weight_scale = tp.ones((2,))", "Conv.weight_scale: the shape does not fit.",
     "float32[2]", "float32, shape (4,)"),
])  # fmt: skip
def test_quantized_layers(row):
    check(row)


def test_all_unassigned_parameters_are_listed():
    code = """\
model = tp.Sequential({"up": tp.Linear(3, 4, quant_dtype=tp.int8), "down": tp.Linear(4, 3)})
model.up.weight = tp.ones((4, 3))
model(x)"""
    text = message(code)
    check_message(text, code, "Sequential: 4 parameters have no value.", "up.bias", VALUES)
    listed = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert listed[:4] == [
        "up.bias: float32[4]", "up.weight_scale: float32[]", "down.weight: float32[3, 4]",
        "down.bias: float32[3]",
    ]  # fmt: skip
