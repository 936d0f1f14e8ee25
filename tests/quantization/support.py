"""Models and data for tests of the toolkit."""

from __future__ import annotations

import numpy as np
import torch

import tripy as tp


def sqnr(wanted, got) -> float:
    """In dB."""
    wanted, got = (torch.as_tensor(np.asarray(x)).double() for x in (wanted, got))
    return float(10 * (wanted.square().sum() / (wanted - got).square().sum()).log10())


def mlp(width: int = 128, hidden: int = 256, seed: int = 0) -> torch.nn.Sequential:
    """Two linear layers in PyTorch."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(width, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, width)
    ).requires_grad_(False)


def as_tripy(model: torch.nn.Sequential) -> tp.Sequential:
    """The same in tripy."""
    first, last = model[0], model[2]
    made = tp.Sequential(
        tp.Linear(first.in_features, first.out_features),
        tp.gelu,
        tp.Linear(last.in_features, last.out_features),
    )
    made.load_state_dict({name: value.detach() for name, value in model.state_dict().items()})
    return made


def inputs(tokens: int = 256, width: int = 128, seed: int = 1) -> torch.Tensor:
    """Standard normals, [tokens, width]."""
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


def tiny_gpt2(seed: int = 0, layers: int = 2, width: int = 128):
    """A random GPT-2 of transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=width, n_layer=layers, n_head=4, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def tokens(batch: int = 4, length: int = 16, seed: int = 0) -> torch.Tensor:
    """Random tokens for it."""
    return torch.randint(0, 64, (batch, length), generator=torch.Generator().manual_seed(seed))
