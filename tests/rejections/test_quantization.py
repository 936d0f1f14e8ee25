"""What is refused in quantization: scales and dimensions.

Rows as in test_tensors.py; layers are in test_modules.py.
"""

from __future__ import annotations

from tests.rejections.support import check, rows

FINITE = "finite numbers above 0"


@rows([
    # scale.dtype == input.dtype, and == dtype where one is dequantized
    ("tp.quantize(x, tp.cast(x[0, 0], tp.float16), tp.int8)",
     "quantize: the scale has another data type.", "a scale of float16", "float32"),
    ("tp.dequantize(q, tp.Tensor(1.0), tp.float16)", "dequantize: the scale has another data type.",
     "a scale of float32", "float16"),
    ("tp.quantize(x, tp.Tensor(1), tp.int8)", "quantize: the scale has another data type.",
     "a scale of int32", "float32"),
    # dim=k: 1-D of size input.shape[k]
    ("tp.quantize(x, [1.0, 2.0], tp.int8, dim=1)",
     "quantize: there is not one scale for each chann",
     "scale: float32[2]", "a scale of shape (3,) for dim=1"),
    ("tp.quantize(x, 1.0, tp.int8, dim=0)", "quantize: a scale along a dimension has one dimension",
     "scale: float32[]", "a scale of shape (2,) for dim=0"),
    ("tp.dequantize(q, [1.0, 2.0], tp.float32, dim=2)", "dequantize: dim is out of range.", "dim=2",
     "-2 <= dim < 2"),
    # dim=None: 0-D, or 2-D for blocks
    ("tp.quantize(x, [1.0, 2.0], tp.int8)", "quantize: the scale's shape does not fit.",
     "scale: float32[2]", "rank 1 with dim"),
    ("tp.quantize(tp.ones((4, 6)), tp.ones((3, 6)), tp.int4)",
     "quantize: the scale does not cut the input into blocks.", "scale: float32[3, 6]",
     "[A, 6] with A dividing 4, or [4, B] with B dividing 6"),
    ("tp.dequantize(q, tp.ones((2, 2)), tp.float32)",
     "dequantize: the scale does not cut the input into blocks.", "scale: float32[2, 2]",
     "[A, 3] with A dividing 2, or [2, B] with B dividing 3"),
    ("tp.quantize(tp.ones((2, 2, 2)), tp.ones((1, 2)), tp.int4)",
     "quantize: the scale's shape does not fit.", "scale: float32[1, 2]", "rank 2 for an input of"),
    # a scale of zero, negative, NaN or infinity known at compile time is rejected
    *((f'{op}, float("{value}"), {kind})', f"{op[3:].split('(')[0]}: a scale is not usable.",
       value, FINITE) for op, kind in (("tp.quantize(x", "tp.int8"),
                                       ("tp.dequantize(q", "tp.float32"))
      for value in ("0.0", "-1.0", "nan", "inf")),
    ("tp.quantize(x, [1.0, 0.0], tp.int8, dim=0)", "quantize: a scale is not usable.",
     "values from 0.0 to 1.0", FINITE),
    ("def f(x):\n    return tp.quantize(x, tp.zeros(()) * 2, tp.int8)  # here\n"
     "tp.compile(f, args=[info])", "quantize: a scale is not usable.", "zero, a negative", FINITE),
    # dynamic_quantize: dim None or -1
    ("tp.dynamic_quantize(x, tp.int8, dim=0)", "dynamic_quantize: dim is not the last dimension.",
     "dim=0", "None (one scale) or -1 (one scale a row)"),
])  # fmt: skip
def test_quantization(row):
    check(row)
