"""Programmatic dependent launch: nothing is read early that a launch in front may still write."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

import tests.demo  # noqa: F401  (makes the example's files known)
import tripy as tp
from tests.passes.support import info
from tripy.backends.torch.kernels.cuda import available, may_start_early, native_weight_only, others
from tripy.backends.torch.kernels.cuda.packing import pack_int8

from model import GPT, GPTConfig, compile_steps  # isort: skip

pytest.importorskip("triton")
from tripy.backends.torch.kernels.cuda import decode_attention

HALF = tp.float16
CACHE, QKV = info(2, 4, 20, 16, dtype=HALF), info(2, 6, 1, 16, dtype=HALF)
ROW = info(2, dtype=tp.int32)


@pytest.fixture
def emulated(monkeypatch, device):
    """GPU programs on the CPU, where kernels are told to launch early and do not run."""
    if device.type == "cuda":
        pytest.skip("for machines without a GPU")
    monkeypatch.setattr(available, "EMULATED", True)
    monkeypatch.setattr(others, "launches_early", lambda _: True)
    monkeypatch.setattr(decode_attention, "attend", Launches())


class Launches:
    """Stands for a kernel: keeps whether each launch of it was an early one."""

    def __init__(self):
        self.early = []

    def __getitem__(self, grid):
        def launch(*_, PDL, launch_pdl, **__):  # noqa: N803  (as kernels have it)
            assert launch_pdl == PDL
            self.early.append(PDL)

        return launch


def attend(cache, qkv, position, lengths):
    query, pair = tp.split(qkv, [2, 4], dim=1)
    cache = tp.kv_cache_update(cache, pair, position)
    key, value = tp.split(cache, 2, dim=1)
    return tp.scaled_dot_product_attention(query, key, value, key_value_lengths=lengths), cache


def early(function, *infos):
    """Of each attention of a function, in order, whether it is launched early."""
    fast = tp.compile(function, args=list(infos), backend="torch")
    decode_attention.attend.early.clear()
    fast(*(tp.zeros(tuple(b.min for b in i.shape_bounds), dtype=i.dtype) for i in infos))
    return decode_attention.attend.early


def test_the_first_attention_of_a_program_is_not_early(emulated):
    model = GPT(GPTConfig(vocab_size=48, block_size=16, n_layer=4, n_head=2, n_embd=32))
    model.initialize_dummy_parameters()
    _, decode = compile_steps(model, batch=2)
    nodes = decode.graph.nodes()
    attentions = [node for node in nodes if node.op == "append_and_attend"]
    assert len(attentions) == 4
    chosen = may_start_early(nodes, set(attentions))
    assert [node in chosen for node in attentions] == [False, True, True, True]
    row = tp.Tensor([1, 2], dtype=tp.int32)
    decode(row, row, model.new_caches(2))
    assert decode_attention.attend.early == [False, True, True, True]


def test_lengths_that_were_just_computed(emulated):
    """The second attention reads others than the first, which nobody has waited for."""

    def same(first, second, qkv, position, lengths):
        y, first = attend(first, qkv, position, lengths)
        z, second = attend(second, qkv + y[:, :1], position, lengths)
        return z, first, second

    def others(first, second, qkv, position, lengths):
        y, first = attend(first, qkv, position, lengths)
        z, second = attend(second, qkv + y[:, :1], position, lengths + 1)
        return z, first, second

    assert early(same, CACHE, CACHE, QKV, ROW, ROW) == [False, True]
    assert early(others, CACHE, CACHE, QKV, ROW, ROW) == [False, False]


def test_caches_that_were_just_written(emulated):
    """By a copy, or by another attention."""

    def copied(first, second, qkv, position, lengths):
        y, first = attend(first, qkv, position, lengths)
        return attend(second * 1.0, qkv + y[:, :1], position, lengths), first

    def twice(cache, qkv, position, lengths):
        y, cache = attend(cache, qkv, position, lengths)
        return attend(cache, qkv + y[:, :1], position, lengths)

    assert early(copied, CACHE, CACHE, QKV, ROW, ROW) == [False, False]
    assert early(twice, CACHE, QKV, ROW, ROW) == [False, False]


def test_attention_that_reads_a_cache_is_not_early(emulated):
    def function(query, key, value, lengths):
        return tp.scaled_dot_product_attention(query, key, value, key_value_lengths=lengths)

    keys = info(2, 2, 20, 16, dtype=HALF)
    assert early(function, info(2, 4, 1, 16, dtype=HALF), keys, keys, ROW) == [False]


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


def test_workspaces(monkeypatch):
    """One for each stream and size; none is kept whose zeros only a CUDA graph would write."""

    class Stream:
        cuda_stream = 7

    capturing = True
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    spaces, cache = others._Workspaces(), torch.zeros(1, 2, 2000, 16).as_subclass(OnGpu)
    of_graphs = [spaces.get(2, cache, 2) for _ in range(2)]
    assert of_graphs[0].arrived is not of_graphs[1].arrived and not spaces._spaces
    capturing = False
    kept = spaces.get(2, cache, 2)
    assert kept.arrived.tolist() == [0, 0]
    # As long as the chunks are as many, a longer cache needs no other.
    assert spaces.get(2, cache[:, :, :1900], 2) is kept and len(spaces._spaces) == 1
    assert spaces.get(2, cache[:, :, :900], 2) is not kept
    Stream.cuda_stream = 8
    assert spaces.get(2, cache, 2) is not kept and len(spaces._spaces) == 3


def test_weights_that_are_copied_for_a_launch(monkeypatch):
    """Copies are made by the launch in front, which an early one would not wait for."""
    early = []

    class Library:
        def tripy_weight_only(self, problem, stream):
            early.append(problem._obj.early_launch)
            return 0

    class Stream:
        cuda_stream = 0

    monkeypatch.setattr(native_weight_only, "_library", Library)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    packed = pack_int8(torch.ones(16, 64, dtype=torch.int8))
    scale, wide = torch.ones(16), torch.ones(20)
    # Four of these begin at a multiple of 16 bytes.
    apart = next(wide[i:][:16] for i in range(4) if wide[i:].data_ptr() % 16)
    x = torch.ones(1, 64).half()
    for options in ({}, {"bias": scale}, {"bias": apart}, {"pdl": False}):
        given = {"dtype": torch.float16, "pdl": True, **options}
        native_weight_only.weight_only(x, packed, scale, **given)
    assert early == [1, 1, 0, 0]
    x = torch.ones(65).half()[1:].view(1, 64)
    native_weight_only.weight_only(x, packed, scale, dtype=torch.float16, pdl=True)
    assert early[-1] == 1 and np.isfinite(x.numpy()).all()
