"""What is refused by initializers and functions.

Rows as in test_tensors.py; which data types a function refuses is in test_data_types.py.
"""

from __future__ import annotations

from tests.rejections.support import check, rows

INT = "an int that is known before the function runs"


@rows([
    # arange: step 0 and empty rejected
    ("tp.arange(0, 3, 0)", "arange: the step is not usable.", "arange(0, 3, 0)", "other than 0"),
    ("tp.arange(3, 3)", "arange: the range is empty.", "arange(3, 3, 1)", "one number or more"),
    ("tp.arange(0, 3, -1)", "arange: the range is empty.", "arange(0, 3, -1)", "one number"),
    ("tp.arange(0)", "arange: the range is empty.", "arange(0, 0, 1)", "one number or more"),
    ('tp.arange("3")', "arange: stop is not a number.", "stop='3'", "an int or float"),
    ("tp.arange(x)", "arange: stop is not a number.", "stop=tensor(", "an int or float"),
    ("tp.arange(np.ones(3))", "arange: stop is not a number.", "array(", "an int or float"),
    ('tp.arange(float("inf"))', "arange: stop is not finite.", "inf", "a finite number"),
    ("tp.arange(200, dtype=tp.int8)", "arange: a number of the range does not fit the data type.",
     "0 to 199 for int8", "-128 to 127"),
    # full and full_like
    ("tp.full((2, -1), 0)", "full: a size is negative.", "shape=(2, -1)", "sizes of 0 or more"),
    ("tp.full(3, 0)", "full: shape is not a sequence.", "shape=3", "a list or tuple of sizes"),
    ("tp.ones((2.0,))", "ones: shape holds something that is not a size.", "(2.0,)",
     "ints or tp.DimensionSizes"),
    ("tp.full((2,), 300, dtype=tp.int8)", "full: the value does not fit the data type.",
     "value=300 for int8", "an int from -128 to 127"),
    ("tp.full_like(n, 0.5)", "full_like: the value does not fit the data type.", "0.5 for int32",
     "an int from"),
    ('tp.full((2,), "0")', "full: value is not a number.", "value='0'", "an int or float"),
    ("tp.full((2,), float)", "full: value is not a number.", "<class 'float'>", "an int or float"),
    ("tp.full((2,), x)", "full: the value is a tensor.", "a tensor", "a Python number"),
    ("tp.ones_like(x, dtype=0)", "ones_like: the data type is not supported.", "dtype=0",
     "float32"),
    ("tp.zeros_like([1.0])", "zeros_like: input is not a tensor.", "of type list", "tripy.Tensor"),
    # iota, tril, triu
    ("tp.iota((2, 3), dim=2)", "iota: dim is out of range.", "dim=2 for 2 dimensions",
     "-2 <= dim < 2"),
    ("tp.iota((2, -3))", "iota: a size is negative.", "(2, -3)", "sizes of 0 or more"),
    ("tp.iota_like(x, dim=2)", "iota: dim is out of range.", "dim=2", "-2 <= dim < 2"),
    ("tp.iota((9,), dtype=tp.int4)", "iota: a number of the range does not fit the data type.",
     "0 to 8 for int4", "-8 to 7"),
    ("tp.tril(tp.ones((3,)))", "tril: the tensor is not a matrix.", "float32[3]", "rank 2 or more"),
    ("tp.triu(x, 0.5)", "triu: diagonal is not an integer.", "diagonal=0.5", INT),
])  # fmt: skip
def test_initializers(row):
    check(row)


@rows([
    ("tp.allclose(x, tp.ones((4,)))", "sub: the shapes cannot be broadcast together.",
     "float32[4]", "sizes that are equal or 1"),
    ("tp.allclose(x, 1.0)", "allclose: other is not a tensor.", "other=1.0", "a tripy.Tensor"),
    ("tp.equal(x, n)", "equal: the tensors differ in data type or device.", "int32[2, 3]",
     "one data type and one device"),
    ("tp.concatenate([], 0)", "concatenate: there is nothing to join.", "[]",
     "one or more tensors"),
    ("tp.concatenate([x, 1.0], 0)", "concatenate: tensors[1] is not a tensor.", "tensors[1]=1.0",
     "a tripy.Tensor"),
    ("tp.concatenate([x, n], 0)",
     "concatenate: tensors[0] and tensors[1] have different data types",
     "tensors[1]: int32[2, 3]", "one data type for both"),
    ("tp.concatenate([x, tp.ones((3,))], 0)", "concatenate: the tensors have different ranks.",
     "float32[3]", "one rank for all"),
    ("tp.concatenate([x, tp.ones((3, 2))], 0)", "concatenate: the shapes differ.", "float32[3, 2]",
     "equal sizes in all but dimension 0"),
    ("tp.stack([x, x], 3)", "stack: dim is out of range.", "dim=3 for 3 dimensions",
     "-3 <= dim < 3"),
    ("tp.cumsum(x, 2)", "cumsum: dim is out of range.", "dim=2 with input: float32[2, 3]",
     "-2 <= dim < 2"),
    # expand: −1 keeps, not −1 for new dims; a size that cannot broadcast is rejected
    ("tp.expand(x, (-1, 2, 3))", "expand: a size is not valid.", "(-1, 2, 3)",
     "-1 only for dimensions that the input has"),
    ("tp.expand(x, (2, 4))", "expand: a size cannot be broadcast.", "float32[2, 3]",
     "3 or -1 in place of 4"),
    ("tp.expand(x, (3,))", "expand: there are fewer sizes than dimensions.", "(3,)",
     "2 sizes or more"),
    ("tp.expand(x, (2, -2))", "expand: a size is not valid.", "(2, -2)", "sizes of 0 or more"),
    ("tp.flatten(x, 1, 0)", "flatten: start_dim comes after end_dim.", "start_dim=1, end_dim=0",
     "start_dim <= end_dim"),
    ("tp.flatten(x, 2)", "flatten: start_dim is out of range.", "start_dim=2", "start_dim < 2"),
    ("tp.flip(x, (0, 0))", "flip: a dimension is named twice.", "dim=(0, 0)", "each once"),
    ("tp.flip(x, 2)", "flip: dim is out of range.", "dim=2 for 2 dimensions", "-2 <= dim < 2"),
    # gather: numpy.take
    ("tp.gather(x, 2, tp.Tensor([0]))", "gather: dim is out of range.", "dim=2", "-2 <= dim < 2"),
    ("tp.gather(x, 0, [0])", "gather: index is not a tensor.", "index=[0]", "a tripy.Tensor"),
    ("y = tp.gather(x, 1, tp.Tensor([-4]))  # here\ny.eval()", "gather: an index is out of range.",
     "index -4", "an index from -3 to 2"),
    # masked_fill, where: mask b
    ("tp.masked_fill(n, m, 0.5)", "masked_fill: the number does not fit the tensor's data type.",
     "0.5 with a tensor of int32", "an int for integers"),
    ("tp.masked_fill(x, m, x)", "masked_fill: the value is a tensor.", "a tensor", "Python number"),
    ('tp.masked_fill(x, m, "0")', "masked_fill: value is not a number.", "value='0'", "an int"),
    ("tp.where(m, x, None)", "where: other is neither a tensor nor a number.",
     "other=None of type NoneType", "a tripy.Tensor, or an int"),
    ("tp.where(m, x, n)", "where: input and other have different data types.", "other: int32[2, 3]",
     "one data type for both"),
    ("tp.where(True, x, x)", "where: condition is not a tensor.", "condition=True", "tripy.Tensor"),
    ("tp.where(m, x, tp.ones((4,)))", "where: the shapes cannot be broadcast together.",
     "float32[4]", "sizes that are equal or 1"),
    ("tp.maximum(1.0, 2.0)", "maximum: neither lhs nor rhs is a tensor.", "1.0 and 2.0",
     "a tensor for at least one"),
    ("tp.minimum(x, n)", "minimum: lhs and rhs have different data types.", "rhs: int32[2, 3]",
     "one data type for both"),
    ("tp.maximum(n, 0.5)", "maximum: the number does not fit the tensor's data type.", "0.5",
     "an int for integers"),
    # outer: 1-D
    ("tp.outer(x, x[0])", "outer: vec1 is not a vector.", "vec1: float32[2, 3]", "rank 1"),
    ("tp.outer(x[0], tp.Tensor(1.0))", "outer: vec2 is not a vector.", "vec2: float32[]", "rank 1"),
    # pad: one (low, high) a dim
    ("tp.pad(x, [(1, 1)])", "pad: there is not one pair of sizes for each dimension.", "1 pairs",
     "2 pairs (low, high)"),
    ("tp.pad(x, (1, 1))", "pad: pad is not a sequence of pairs.", "pad=(1, 1)",
     "one pair (low, high)"),
    ("tp.pad(x, [(0, 0), (0, -1)])", "pad: a padding is negative.", "float32[2, 3]",
     "0 or more, not -1"),
    ('tp.pad(x, [(0, 0), (3, 0)], mode="reflect")', "pad: there is too little to reflect.",
     "float32[2, 3]", "less than 3"),
    ('tp.pad(x, [(0, 0), (1, 0)], mode="wrap")', "pad: mode is not one of its values.", "'wrap'",
     "'constant', 'reflect'"),
    ("tp.pad(n, [(0, 0), (1, 0)], value=0.5)", "pad: the value does not fit the data type.",
     "0.5 for int32", "an int from"),
    ("tp.permute(x, (0, 0))", "permute: perm is not a permutation", "perm=(0, 0)",
     "each of (0, 1) once"),
    ("tp.transpose(x, 0, 2)", "transpose: dim1 is out of range.", "dim1=2", "-2 <= dim1 < 2"),
    ("tp.repeat(x, -1, 0)", "repeat: a size is negative.", "repeats=[-1]", "sizes of 0 or more"),
    # reshape: at most one −1
    ("tp.reshape(x, (-1, -1))", "reshape: the shape is not valid.", "(-1, -1)",
     "one of which may be -1"),
    ("tp.reshape(x, (-1, 4))", "reshape: the number of elements changes.", "to shape (-1, 4)",
     "sizes that divide 6 elements"),
    ("tp.reshape(x, (4,))", "reshape: the number of elements changes.", "float32[2, 3]",
     "6 elements; shape (4,) has 4"),
    ("tp.reshape(x, 6)", "reshape: shape is not a sequence.", "shape=6",
     "a list or tuple of sizes"),
    # resize: cubic, linear, nearest; align_corners not with nearest
    ('tp.resize(x, (4, 6), mode="nearest", align_corners=True)',
     "resize: the nearest element has no corners", 'mode="nearest"', '"linear" and "cubic"'),
    ('tp.resize(x, (4, 6), mode="area")', "resize: mode is not one of its values.", "'area'",
     "'cubic', 'linear', 'nearest'"),
    ("tp.resize(x)", "resize: it takes either output_shape or scales.", "scales=None", "one of"),
    ("tp.resize(x, (4,))", "resize: there is not one size or scale for each dimension.", "1 with",
     "2, those of dimensions"),
    ("tp.resize(x, scales=(2.0, 0.0))", "resize: the scales do not fit.", "(2.0, 0.0)",
     "2 finite numbers above 0"),
    ("tp.resize(x, (0, 6))", "resize: a dimension cannot be resized from nothing or to nothing.",
     "float32[2, 3]", "sizes of 1 or more"),
    ("tp.softmax(x, 2)", "softmax: dim is out of range.", "dim=2", "-2 <= dim < 2"),
    # split
    ("tp.split(x, 0)", "split: the dimension cannot be cut into so many chunks.", "0 chunks",
     "a number of chunks"),
    ("tp.split(x, 4, 1)", "split: the dimension cannot be cut into so many chunks.", "4 chunks",
     "a number of chunks"),
    ("tp.split(x, [1, 1], 1)", "split: the sizes do not add up.", "float32[2, 3]", "a sum of 3"),
    ("tp.split(x, [1.5], 1)", "split: num_split_or_sizes holds something that is not a size.",
     "[1.5]", "ints or tp.DimensionSizes"),
    ("tp.squeeze(x, (0, 1))", "squeeze: a dimension to remove does not have size 1.", "(0, 1)",
     "dimensions of size 1"),
    ("tp.unsqueeze(x, 4)", "unsqueeze: dim is out of range.", "dim=4 for 3 dimensions",
     "-3 <= dim < 3"),
])  # fmt: skip
def test_functions(row):
    check(row)


POOL = "i = tp.ones((1, 2, 4, 4))\n"


@rows([
    # avgpool, maxpool: 2-D and 3-D
    (POOL + "tp.maxpool(i, (2,))", "maxpool: the window does not fit together.", "kernel_dims=(2,)",
     "2 or 3 sizes"),
    ("tp.avgpool(x, (2, 2))", "avgpool: the kernel's rank does not fit.", "float32[2, 3]",
     "[batch, channels, ...]"),
    (POOL + "tp.avgpool(i, (2, 2), stride=(0, 1))", "avgpool: the window does not fit together.",
     "stride=(0, 1)", "sizes of 1 or more"),
    (POOL + "tp.maxpool(i, (5, 5))", "maxpool: the kernel is larger than the padded input.",
     "float32[1, 2, 4, 4]", "5 <= 4"),
    (POOL + "tp.maxpool(i, (2, 2), padding=[(2, 0), (0, 0)])", "maxpool: a padding does not fit",
     "padding=[(2, 0), (0, 0)]", "less than the window"),
    # reductions
    *((f"tp.{name}({tensor}, 2)", f"{name}: dim is out of range.", "dim=2 with input:",
       "-2 <= dim < 2") for name, tensor in (
        ("sum", "x"), ("prod", "x"), ("max", "x"), ("min", "x"), ("mean", "x"), ("var", "x"),
        ("all", "m"), ("any", "m"), ("argmax", "x"), ("argmin", "x"))),
    ("tp.sum(x, (0, 0))", "sum: a dimension is named twice.", "dim=(0, 0)", "each once"),
    ("tp.sum(x, ())", "sum: no dimension is named.", "dim=()", "one or more, or None"),
    ("tp.argmax(x, (0, 1))", "argmax: dim is not an integer.", "dim=(0, 1)", INT),
    ("tp.sum(x, 0, keepdim=1)", "sum: keepdim is not one of its values.", "keepdim=1",
     "True, False"),
    ("tp.var(x, correction=0.5)", "var: correction is not an integer.", "correction=0.5", INT),
    ("tp.max(tp.ones((0,)))", "max: there is nothing to reduce.", "float32[0]",
     "one element or more"),
    ("y = tp.mean(tp.ones((0,), dtype=tp.int32))  # here\ny.eval()",
     "mean: there is nothing to red", "no elements", "one element or more"),
    ("y = n // 0  # here\ny.eval()", "floordiv: an integer was divided by zero.", "a divisor of 0",
     "divisors other than 0"),
    # topk
    ("tp.topk(x, 4, 1)", "topk: k is larger than the dimension.", "float32[2, 3]", "k <= 3, not 4"),
    ("tp.topk(x, -1, 1)", "topk: k is negative.", "k=-1", "0 <= k <= 3"),
    ("tp.topk(tp.Tensor(1.0), 1, 0)", "topk: dim is out of range.", "float32[]", "rank 1 or more"),
    ('tp.gelu(x, approximate="erf")', "gelu: approximate is not one of its values.", "'erf'",
     "'none', 'tanh'"),
    ("tp.exp(1.0)", "exp: input is not a tensor.", "input=1.0 of type float", "a tripy.Tensor"),
])  # fmt: skip
def test_pools_and_reductions(row):
    check(row)


ATTEND = "i = tp.ones((1, 2, 4, 6))\nattend = tp.scaled_dot_product_attention\n"
CACHE = "c = tp.zeros((2, 1, 4, 3))\nu = tp.ones((2, 1, 2, 3))\nat = tp.Tensor\n"


@rows([
    (ATTEND + "attend(x, x, x)", "scaled_dot_product_attention: a rank is not 4.", "float32[2, 3]",
     "[batch, heads, length, dim]"),
    (ATTEND + "attend(i, i[..., :4], i)", "scaled_dot_product_attention: query and key have differ",
     "key: float32[1, 2, 4, 4]", "6 == 4"),
    (ATTEND + "attend(i[:, :1], i, i)", "scaled_dot_product_attention: the query heads cannot be",
     "query: float32[1, 1, 4, 6]", "a multiple of the key/value heads"),
    (ATTEND + "attend(i, i, i[:, :, :2])",
     "scaled_dot_product_attention: key and value have differ",
     "value: float32[1, 2, 2, 6]", "4 == 2"),
    (ATTEND + "attend(i, i, i, mask=m)",
     "scaled_dot_product_attention: the mask cannot be broadcas",
     "mask: bool[2, 3]", "broadcastable to (1, 2, 4, 4)"),
    (ATTEND + "attend(i, i, i, mask=n)", "scaled_dot_product_attention: mask has an unsupported",
     "mask: int32[2, 3]", "float32, float16, bfloat16, bool"),
    (ATTEND + "attend(i, i, i, mask=tp.ones((4, 4)), is_causal=True)",
     "scaled_dot_product_attention: mask and is_causal are both given.", "mask: float32[4, 4]",
     "one of them"),
    # kv_cache_update: past the capacity is an error wherever the position is known on the host
    (CACHE + "y = tp.kv_cache_update(c, u, at([0, 3]))  # here\ny.eval()",
     "kv_cache_update: the update does not fit the cache.",
     "2 positions written from 3 on in batch " "row 1", "write_indices from 0 to 2"),
    (CACHE + "y = tp.kv_cache_update(c, u, at([-1, 0]))  # here\ny.eval()",
     "kv_cache_update: the update does not fit the cache.", "from -1 on in batch row 0",
     "write_indices from 0 to 2"),
    (CACHE + "tp.kv_cache_update(u, tp.ones((2, 1, 3, 3)), at([0, 0]))",
     "kv_cache_update: the update is longer than the cache.", "update: float32[2, 1, 3, 3]",
     "at most 2 positions"),
    (CACHE + "tp.kv_cache_update(c, u, at([0]))", "kv_cache_update: there is not one write index",
     "write_indices: int32[1]", "1 == 2"),
    (CACHE + "tp.kv_cache_update(c, u, at(0))", "kv_cache_update: write_indices is not a vector.",
     "write_indices: int32[]", "shape (2,)"),
    (CACHE + "tp.kv_cache_update(c, u[..., :2], at([0, 0]))",
     "kv_cache_update: cache and update have different head sizes.", "update: float32[2, 1, 2, 2]",
     "3 == 2"),
    (CACHE + "tp.kv_cache_update(c, tp.cast(u, tp.float16), at([0, 0]))",
     "kv_cache_update: cache and update have different data types.", "update: float16",
     "one data type for both"),
    ("tp.rotary_embedding(x, x, x)", "rotary_embedding: the last dimension is not even.",
     "float32[2, 3]", "pairs of elements"),
    ("tp.rotary_embedding(x[:, :2], x[:, :2], x[:, :1])", "rotary_embedding: the shape of cos does",
     "cos: float32[2, 2]", "broadcastable to (2, 1)"),
])  # fmt: skip
def test_attention(row):
    check(row)
