"""Trains the demo checkpoint: a small GPT-2 on the source of Python's standard library.

Plain PyTorch, without tripy: it makes the weights that the rest of the example quantizes. What it
writes is an ordinary Hugging Face GPT-2 checkpoint, so one loader reads both this and `gpt2`.
The module tree below therefore carries GPT-2's own parameter names.

    python train.py                                            # the recipe of demo/README.md
    python train.py --steps 5 --batch-size 4 --out /tmp/tiny   # a look at it, on any CPU
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from data import STDLIB, evaluation_windows, held_out_text, training_text
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 256,
    "n_positions": 256,
    "n_ctx": 256,
    "n_embd": 384,
    "n_layer": 6,
    "n_head": 6,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.0,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "torch_dtype": "float16",
}


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is [in, out], the transpose of nn.Linear's."""

    def __init__(self, inputs: int, outputs: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    def __init__(self, config: dict, residual_std: float):
        super().__init__()
        width = config["n_embd"]
        self.heads = config["n_head"]
        self.c_attn = Conv1D(width, 3 * width, config["initializer_range"])
        self.c_proj = Conv1D(width, width, residual_std)
        self.dropout = nn.Dropout(config["resid_pdrop"])

    def forward(self, x):
        batch, length, width = x.shape
        # [batch, length, 3, heads, width of a head] -> 3 of [batch, heads, length, width of a head]
        qkv = self.c_attn(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True)
        return self.dropout(self.c_proj(y.transpose(1, 2).reshape(batch, length, width)))


class MLP(nn.Module):
    def __init__(self, config: dict, residual_std: float):
        super().__init__()
        width = config["n_embd"]
        self.c_fc = Conv1D(width, 4 * width, config["initializer_range"])
        self.c_proj = Conv1D(4 * width, width, residual_std)
        self.dropout = nn.Dropout(config["resid_pdrop"])

    def forward(self, x):
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        # Two sums a layer enter the residual stream; this keeps its variance near 1 (GPT-2, 2.3).
        residual_std = config["initializer_range"] / math.sqrt(2 * config["n_layer"])
        self.ln_1 = nn.LayerNorm(config["n_embd"], config["layer_norm_epsilon"])
        self.attn = Attention(config, residual_std)
        self.ln_2 = nn.LayerNorm(config["n_embd"], config["layer_norm_epsilon"])
        self.mlp = MLP(config, residual_std)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2; the head is the token embedding, and so is not a parameter of its own."""

    def __init__(self, config: dict):
        super().__init__()
        width = config["n_embd"]
        self.length = config["n_positions"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config["vocab_size"], width),
                "wpe": nn.Embedding(self.length, width),
                "h": nn.ModuleList(Block(config) for _ in range(config["n_layer"])),
                "ln_f": nn.LayerNorm(width, config["layer_norm_epsilon"]),
            }
        )
        self.dropout = nn.Dropout(config["embd_pdrop"])
        for name in ("wte", "wpe"):
            nn.init.normal_(self.transformer[name].weight, std=config["initializer_range"])

    def forward(self, tokens):
        """Maps tokens [batch, length] to logits [batch, length, vocab_size]."""
        parts = self.transformer
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(parts["wte"](tokens) + parts["wpe"](positions))
        for block in parts["h"]:
            x = block(x)
        return F.linear(parts["ln_f"](x), parts["wte"].weight)

    def loss(self, tokens, targets):
        """Returns the mean cross-entropy of the targets, in nats."""
        return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten())


@torch.no_grad()
def bits_a_byte(model: GPT, text: bytes, device: str, batch: int = 128) -> float:
    """Returns the mean bits that the model needs for a byte, over non-overlapping windows."""
    model.eval()
    inputs, targets = (torch.from_numpy(t) for t in evaluation_windows(text, model.length))
    total = sum(
        model.loss(x.to(device), y.to(device)).item() * len(x)
        for x, y in zip(inputs.split(batch), targets.split(batch), strict=True)
    )
    model.train()
    return total / len(inputs) / math.log(2)


@torch.no_grad()
def generate(model: GPT, prompt: str, count: int, device: str, top_k: int = 50, seed: int = 0):
    """Continues the prompt by `count` bytes, at temperature 0.8 over the `top_k` likeliest."""
    model.eval()
    generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.tensor([list(prompt.encode())], device=device)
    for _ in range(count):
        # Positions are learned from 0, so a full window starts afresh with its latest bytes.
        logits = model(tokens[:, -model.length :])[0, -1].float()
        values, indices = logits.topk(top_k)
        choice = torch.multinomial(torch.softmax(values / 0.8, -1), 1, generator=generator)
        tokens = torch.cat((tokens, indices[choice][None]), dim=1)
    return bytes(tokens[0].tolist()).decode("utf-8", errors="replace")


def save(model: GPT, config: dict, out: Path) -> None:
    """Writes config.json and float16 weights; a reader sees the old files or the new ones."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, out / "model.safetensors.tmp", metadata={"format": "pt"})
    (out / "config.json.tmp").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("config.json", "model.safetensors"):
        os.replace(out / f"{name}.tmp", out / name)


def make_optimizer(model: GPT, args: argparse.Namespace) -> torch.optim.AdamW:
    """Decays matrices only: pulling biases and LayerNorm gains to zero has no use."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": args.decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warmup, then half a cosine from `lr` down to `min_lr`."""
    warmup = min(args.warmup, args.steps // 10)
    if step < warmup:
        return args.lr * (step + 1) / warmup
    progress = (step - warmup) / max(args.steps - warmup, 1)
    return args.min_lr + (args.lr - args.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(args: argparse.Namespace) -> None:
    """Trains, keeping the weights that are best on the held-out text, and reports on them."""
    torch.manual_seed(args.seed)
    device = args.device
    config = CONFIG | {"embd_pdrop": args.dropout, "resid_pdrop": args.dropout}
    held_out = held_out_text(args.stdlib)
    text = training_text(args.stdlib, tests=not args.no_tests)
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    model = GPT(config).to(device)
    window = torch.arange(model.length + 1, device=device)
    optimizer = make_optimizer(model, args)
    loss_of = torch.compile(model.loss) if args.compile else model.loss
    # Few CPUs have bfloat16 arithmetic, and emulating it is slower than float32.
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda"))
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters; {len(text):,} bytes to "
        f"train on, {len(held_out):,} held out",
        flush=True,
    )

    best, started = math.inf, time.time()
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        starts = torch.randint(len(data) - model.length, (args.batch_size, 1), device=device)
        tokens = data[starts + window].long()
        with autocast:
            loss = loss_of(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.eval_every == 0 or step + 1 == args.steps:
            with autocast:
                score = bits_a_byte(model, held_out, device)
            print(
                f"step {step + 1}: train {loss.item() / math.log(2):.4f}, held out {score:.4f} "
                f"bits a byte, {time.time() - started:.0f} s",
                flush=True,
            )
            if score < best:
                best = score
                save(model, config, args.out)

    model.load_state_dict(load_file(args.out / "model.safetensors"))
    score = bits_a_byte(model, held_out, device)
    print(f"saved float16 weights, computed in float32: {score:.4f} bits a byte", flush=True)
    for top_k in (1, 50):
        print(f"--- top_k={top_k}\n{generate(model, args.prompt, args.sample, device, top_k)}")


def main() -> None:
    """Reads the arguments; their defaults are the recipe of demo/README.md."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path(__file__).parent / "demo", help="folder to write")
    add("--stdlib", type=Path, default=STDLIB, help="standard library to read")
    add("--no-tests", action="store_true", help="leave the library's own tests out")
    add("--steps", type=int, default=6500)
    add("--batch-size", type=int, default=128, help="windows of 256 bytes a step")
    add("--lr", type=float, default=2e-3, help="peak learning rate")
    add("--min-lr", type=float, default=5e-5)
    add("--warmup", type=int, default=500, help="steps")
    add("--decay", type=float, default=0.1, help="weight decay of the matrices")
    add("--dropout", type=float, default=0.1)
    add("--eval-every", type=int, default=500, help="steps")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    add("--prompt", default="def read_file(path):\n")
    add("--sample", type=int, default=600, help="bytes to write after the prompt at the end")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
