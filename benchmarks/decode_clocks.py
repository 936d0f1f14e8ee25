"""Where the time of a decode step's kernel goes, of libraries with clocks."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import common
import torch
from gpu_kernels import module

T = torch.Tensor
# Until what: `enum StepMoment` of csrc/decode_step.h, but for the begin. An attention has four.
PHASES = ("prepared", "weights", "input", "rounded", "together", "first product", "end")
OF_ATTENTION = (0, 3, 5, 7)


def noted(launch: Any, library: ctypes.CDLL, stream: ctypes.c_void_p) -> T:
    """``[blocks, steps, moments]``: the clock at each moment of one of several launches."""
    moments = library.tripy_decode_clocks()
    clocks = torch.zeros(launch.blocks, launch.count, moments, dtype=torch.int32, device="cuda")
    launch.clocks = clocks.data_ptr()
    for _ in range(8):
        library.tripy_decode_step(ctypes.byref(launch), stream)
    torch.cuda.synchronize()
    launch.clocks = None
    return clocks.cpu().long() & 0xFFFFFFFF


def kinds(steps: T) -> list[str]:
    """What each step of a table is: its sizes, or that it is an attention."""
    native_decode = module("native_decode")
    raw, size = bytes(steps.cpu().numpy()), ctypes.sizeof(native_decode.DecodeStep)
    table = [native_decode.DecodeStep.from_buffer_copy(raw, at) for at in range(0, len(raw), size)]
    return ["attention" if s.kind == native_decode.ATTENTION else f"{s.k} to {s.n}" for s in table]


def phases(clocks: T, names: list[str]) -> str:
    """A table: cycles of each phase, of the average block and of each step's slowest one.

    They are those of a block's first warp; in the last column, that of waiting for the others.
    """
    rows = []
    # Of a block's other warps: until all of them are at the next step. The last one has none.
    nexts = torch.cat((clocks[:, 1:, 0], torch.zeros_like(clocks[:, :1, 0])), 1)
    for name in dict.fromkeys(names):
        steps = [i for i, n in enumerate(names) if n == name]
        own = clocks[:, steps]
        moments = OF_ATTENTION if name == "attention" else tuple(range(own.shape[2]))
        cells = dict.fromkeys(PHASES, "")
        for before, after in itertools.pairwise(moments):
            there = (own[..., before] != 0) & (own[..., after] != 0)
            cycles = torch.where(there, (own[..., after] - own[..., before]) % 2**32, 0)
            mean = cycles.sum() / there.sum().clamp(min=1)
            slowest = cycles.amax(0).double().mean()
            cells[PHASES[after - 1]] = f"{mean:,.0f}, {slowest:,.0f}"
        ended, begun = own[..., -1], nexts[:, steps]
        waited = ((begun - ended) % 2**32)[(ended != 0) & (begun != 0)].double()
        last = f"{waited.mean():,.0f}" if len(waited) else ""
        rows.append([name, own.shape[1], *cells.values(), last])
    header = ["columns to rows", "steps", *PHASES, "others"]
    return common.table(header, rows)
