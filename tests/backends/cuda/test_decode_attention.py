"""Attention of one token over its cache, against float64."""

import pytest
import torch

from tripy import dtypes
from tripy.backends.torch.lowering.quantization import rounded

module = pytest.importorskip("tripy.backends.torch.kernels.cuda.decode_attention")
append_and_attend, decode_attention = module.append_and_attend, module.decode_attention

# From numpy in the interpreter: lanes that are masked in the end are computed too.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def random(*shape, dtype=torch.float32, device):
    return torch.randn(shape).to(device, dtype)


def reference(query, key, value, lengths, scale):
    """``[batch, heads, 1, width]`` in float64."""
    shared = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    rows = []
    for q, k, v, length in zip(query, key, value, lengths.tolist()):
        k, v = (t[:, :length].repeat_interleave(shared, 0) for t in (k, v))
        rows.append(torch.softmax(q @ k.transpose(1, 2) * scale, -1) @ v)
    return torch.stack(rows)


def check(device, dtype, heads, groups, capacity, width, lengths, pdl=False):
    """Both functions against the reference and the cache against what belongs in it."""
    torch.manual_seed(0)
    batch, scale = len(lengths), width**-0.5
    qkv = random(batch, (heads + 2 * groups) * width, dtype=dtype, device=device)
    cache = random(batch, 2 * groups, capacity, width, dtype=dtype, device=device)
    lengths = torch.tensor(lengths, dtype=torch.int32, device=device)
    expected = cache.clone()
    query, new = qkv.view(batch, -1, width).split([heads, 2 * groups], 1)
    for row, length in enumerate(lengths.tolist()):
        # Beyond the length there may be anything.
        cache[row, :, length:] = expected[row, :, length:] = float("nan")
        expected[row, :, length - 1] = new[row]
    options = {"heads": heads, "groups": groups, "scale": scale, "pdl": pdl}
    position = lengths.long() - 1
    if pdl:  # What it reads before it waits is there.
        torch.cuda.synchronize()
    got = append_and_attend(qkv, cache, position, lengths, **options)
    torch.testing.assert_close(cache, expected, rtol=0, atol=0, equal_nan=True)
    key, value = cache.split(groups, 1)
    query = query.unsqueeze(2).contiguous()
    result = reference(query, key, value, lengths, scale)
    bound = TOLERANCE[dtype]
    assert got.dtype is dtype and got.shape == (batch, heads * width)
    torch.testing.assert_close(got.view_as(result).double(), result, rtol=bound, atol=bound)
    if pdl:
        torch.cuda.synchronize()
    again = decode_attention(query, key, value, lengths, scale=scale, pdl=pdl)
    torch.testing.assert_close(again.double(), result, rtol=bound, atol=bound)
    return qkv, cache, lengths, got, options


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("heads, groups", [(3, 3), (4, 2), (3, 1)])
@pytest.mark.parametrize("capacity, width, lengths", [(40, 3, [1, 40]), (600, 20, [600, 257])])
def test_result_is_that_of_float64(device, dtype, heads, groups, capacity, width, lengths):
    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies no bfloat16 matrices")
    check(device, dtype, heads, groups, capacity, width, lengths)


@pytest.mark.parametrize("heads, groups", [(2, 2), (4, 2)])
def test_other_rows_change_nothing(device, heads, groups):
    args = check(device, torch.float32, heads, groups, 300, 16, [299, 3, 260])
    qkv, cache, lengths, got, options = args
    for row in range(3):
        one = slice(row, row + 1)
        alone = append_and_attend(qkv[one], cache[one], lengths[one] - 1, lengths[one], **options)
        assert torch.equal(alone, got[one])


def test_workspace_is_left_as_found(device):
    qkv, cache, lengths, got, options = check(device, torch.float32, 2, 2, 600, 16, [600, 300])
    space = module.workspace(2, 2, 2, 16, 600, device)
    for _ in range(2):
        again = append_and_attend(qkv, cache, lengths - 1, lengths, space=space, **options)
        assert torch.equal(again, got) and not space.arrived.any()


def test_more_heads_than_a_program_takes(device, monkeypatch):
    monkeypatch.setattr(module, "_MOST_HEADS", 16)
    check(device, torch.float32, 40, 2, 300, 16, [270])


@pytest.mark.parametrize("position", [-1, 8, 2**40])
def test_positions_outside_of_the_cache_are_not_written(device, position):
    memory = random(3, 4, 8, 16, device=device)
    before = memory.clone()
    qkv = random(1, 6 * 16, device=device)
    lengths = torch.tensor([8], dtype=torch.int32, device=device)
    at = torch.tensor([position], device=device)
    append_and_attend(qkv, memory[1:2], at, lengths, heads=2, groups=2, scale=1.0)
    assert torch.equal(memory, before)


@pytest.mark.parametrize("heads", [2, 4])
def test_lengths_outside_of_the_cache(device, heads):
    query = random(2, heads, 1, 16, device=device)
    key, value = (random(2, 2, 8, 16, device=device) for _ in range(2))
    lengths = torch.tensor([0, 9], dtype=torch.int32, device=device)
    got = decode_attention(query, key, value, lengths, scale=1.0)
    assert not got[0].any()
    full = torch.tensor([8, 8], dtype=torch.int32, device=device)
    assert torch.equal(got[1], decode_attention(query, key, value, full, scale=1.0)[1])


@pytest.mark.parametrize("which", ["query", "key", "value"])
def test_nan_stays_in_its_head(device, which):
    tensors = {"query": random(1, 2, 1, 16, device=device)}
    tensors |= {name: random(1, 2, 300, 16, device=device) for name in ("key", "value")}
    tensors[which][0, 1, 0, :] = float("nan")
    lengths = torch.tensor([300], dtype=torch.int32, device=device)
    got = decode_attention(**tensors, lengths=lengths, scale=1.0)
    assert got[0, 1].isnan().all() and not got[0, 0].isnan().any()


@pytest.mark.parametrize("cache_type", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("heads", [2, 4])
def test_quantized_cache(device, cache_type, heads):
    if device.type == "cpu" and cache_type is not torch.int8:
        pytest.skip("Triton's interpreter does not round to float8")
    scales = {"key_scale": 0.02, "value_scale": 0.03}
    qkv = random(2, (heads + 4) * 16, dtype=torch.float16, device=device)
    cache = (random(2, 4, 300, 16, device=device) * 40).clamp(-127, 127).to(cache_type)
    lengths = torch.tensor([300, 20], dtype=torch.int32, device=device)
    got = append_and_attend(
        qkv, cache, lengths - 1, lengths, heads=heads, groups=2, scale=0.25, **scales
    )
    query, key, value = qkv.view(2, -1, 16).split([heads, 2, 2], 1)
    kind = dtypes.int8 if cache_type is torch.int8 else dtypes.float8
    for new, old, scale in ((key, cache[:, :2], 0.02), (value, cache[:, 2:], 0.03)):
        quotient = new.float() / torch.tensor(scale, device=device)
        for row, length in enumerate(lengths.tolist()):
            stored = old[row, :, length - 1].view(torch.int8)
            assert torch.equal(stored, rounded(quotient[row].clone(), kind).view(torch.int8))
    result = reference(
        query.unsqueeze(2), cache[:, :2].float() * 0.02, cache[:, 2:].float() * 0.03, lengths, 0.25
    )
    torch.testing.assert_close(got.view_as(result).double(), result, rtol=2e-3, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("heads, groups, width", [(12, 12, 64), (32, 8, 128), (8, 1, 256)])
def test_large_caches(gpu, dtype, heads, groups, width):
    lengths = [1, 256, 257, 3000, 4096]
    args = check(gpu, dtype, heads, groups, 4096, width, lengths, pdl=True)
    qkv, cache, lengths, got, options = args
    position = lengths - 1
    torch.cuda.synchronize()
    for _ in range(20):
        again = append_and_attend(qkv, cache, position, lengths, **options)
        assert torch.equal(again, got)
