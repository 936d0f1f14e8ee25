"""Kernels for GPUs: on a GPU where there is one, else through Triton's interpreter on the CPU."""

import ctypes
import os

import pytest
import torch

import tripy as tp
from tripy.backends.torch.kernels.cuda import available

GPU = torch.cuda.is_available()
if not GPU:  # Read when a kernel is defined, that is, before its file is imported.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> torch.device:
    """Where kernels run in this test: CUDA, or the CPU under the interpreter."""
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture
def gpu() -> torch.device:
    """A GPU; the test is skipped where there is none."""
    if not GPU:
        pytest.skip("needs an NVIDIA GPU")
    return torch.device("cuda")


@pytest.fixture
def emulated(monkeypatch, device):
    """Programs as on a GPU: on one where there is one, else by the interpreter on the CPU.

    New tensors live there; arrays of numpy stay on the CPU unless ``device=`` is given.
    """
    where = tp.device("gpu" if device.type == "cuda" else "cpu")
    if device.type == "cpu":
        monkeypatch.setattr(available, "EMULATED", True)
    before = tp.config.default_device
    tp.config.default_device = where
    yield where
    tp.config.default_device = before


@pytest.fixture
def planning(emulated, monkeypatch, device):
    """Programs have decode steps for a GPU with the native library, or as for one."""
    from tripy.backends.torch import program  # noqa: PLC0415  (after the line about Triton above)
    from tripy.backends.torch.kernels.cuda import native_decode  # noqa: PLC0415

    if device.type == "cuda":
        reason = native_decode.available(emulated)
        if reason:
            pytest.skip(reason)
        return
    monkeypatch.setattr(program, "native_decode_missing", lambda where: None)
    monkeypatch.setattr(native_decode, "blocks", lambda where: 132)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory):
    """The decode step's kernel, for a CPU."""
    from tests import native as emulation  # noqa: PLC0415
    from tripy.backends.torch.kernels.cuda import native_decode  # noqa: PLC0415

    library = emulation.build("decode_step", tmp_path_factory)
    library.run_decode_step.restype = ctypes.c_char_p
    assert native_decode.agrees(library)
    return library


@pytest.fixture
def kernel(request, planning, device, monkeypatch):
    """Decode steps run: on a GPU where there is one, else in the emulator."""
    from tests.backends.cuda.decode_models import Kernel  # noqa: PLC0415
    from tripy.backends.torch.kernels.cuda import decode_step, native_decode  # noqa: PLC0415

    torch.manual_seed(0)
    if device.type == "cuda":
        return
    made = Kernel(request.getfixturevalue("emulated_library"))
    monkeypatch.setattr(native_decode, "run", made.run)
    monkeypatch.setattr(decode_step.Run, "_space", lambda run: made.space(run))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
