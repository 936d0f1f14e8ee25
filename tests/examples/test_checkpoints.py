"""Random GPT-2 models of transformers, saved by it, loaded and computed by the example."""

import json
import warnings

import numpy as np
import pytest
import torch
from model import GPT, QUANT_MODES, GPTConfig, compile_steps
from safetensors.torch import load_file, save_file
from weight_loader import load_quant_weights_from_hf, load_weights_from_hf, read_config

import tripy as tp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel

SIZES = [
    {"vocab_size": 97, "n_positions": 24, "n_embd": 48, "n_layer": 2, "n_head": 3},
    {"vocab_size": 300, "n_positions": 16, "n_embd": 64, "n_layer": 3, "n_head": 4},
    {"vocab_size": 11, "n_positions": 12, "n_embd": 32, "n_layer": 1, "n_head": 1, "n_inner": 80},
]
NAMES = [f"vocabulary {size['vocab_size']}" for size in SIZES]
GPT2_124M = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}


def peer(size, seed=0, spread=0.1):
    """A GPT-2 of transformers with random values everywhere, also where its own are 0 and 1."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**size, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * spread)
            elif spread > 0.05 and "wpe" not in name:
                parameter.mul_(spread / 0.02)
    return model


@torch.no_grad()
def logits_of(model, tokens):
    return model(torch.as_tensor(tokens).long(), use_cache=False).logits.numpy()


def save(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def loaded(folder):
    model = GPT(read_config(folder))
    load_weights_from_hf(model, folder)
    return model


def tensor(values):
    return tp.Tensor(np.asarray(values), dtype=tp.int32)


def with_cache(model, tokens, prompt):
    """Logits of the positions from the prompt's last one on, one token at a time."""
    prefill, decode = compile_steps(model, batch=len(tokens))
    lengths = tensor([prompt] * len(tokens))
    logits, caches = prefill(tensor(tokens[:, :prompt]), lengths, model.new_caches(len(tokens)))
    found = [logits.numpy()]
    for position in range(prompt, tokens.shape[1]):
        where = tensor([position] * len(tokens))
        logits, caches = decode(tensor(tokens[:, position]), where, caches)
        found.append(logits.numpy())
    return np.stack(found, axis=1)


def greedy(next_logits, prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(next_logits(tokens).argmax()))
    return tokens


@pytest.mark.parametrize("size", SIZES, ids=NAMES)
def test_same_logits(size, tmp_path, rng):
    other = peer(size)
    model = loaded(save(other, tmp_path))
    tokens = rng.integers(0, size["vocab_size"], (2, size["n_positions"]))
    expected = logits_of(other, tokens)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model(tensor(tokens)).numpy(), expected, atol=1e-4)
    rows = tp.InputInfo((2, (1, 8, size["n_positions"])), tp.int32)
    compiled = tp.compile(model, args=[rows])
    np.testing.assert_allclose(compiled(tensor(tokens)).numpy(), expected, atol=1e-4)
    for prompt in (1, 5, size["n_positions"]):
        found = with_cache(model, tokens, prompt)
        np.testing.assert_allclose(found, expected[:, prompt - 1 :], atol=1e-4)


def greedy_with_cache(model, prompt, count):
    """The likeliest continuation of a prompt, a token at a time."""
    prefill, decode = compile_steps(model)
    caches = model.new_caches()

    def own(tokens):
        nonlocal caches
        if len(tokens) == len(prompt):
            logits, caches = prefill(tensor([tokens]), tensor([len(tokens)]), caches)
        else:
            place = tensor([len(tokens) - 1])
            logits, caches = decode(tensor(tokens[-1:]), place, caches)
        return logits.numpy()[0]

    return greedy(own, prompt, count)


@pytest.mark.parametrize("size", SIZES, ids=NAMES)
def test_same_greedy_tokens(size, tmp_path):
    other = peer(size, seed=1)
    model = loaded(save(other, tmp_path))
    count = size["n_positions"] - 3
    expected = greedy(lambda tokens: logits_of(other, [tokens])[0, -1], [1, 2, 3], count)
    assert greedy_with_cache(model, [1, 2, 3], count) == expected


def test_gpt2_124m(tmp_path, rng):
    other = peer(GPT2_124M, spread=0.02)
    model = loaded(save(other, tmp_path))
    tokens = rng.integers(0, 50257, (1, 40))
    expected = logits_of(other, tokens)
    prompt = tokens[0, :12].tolist()
    continued = greedy(lambda tokens: logits_of(other, [tokens])[0, -1], prompt, 8)
    assert greedy_with_cache(model, prompt, 8) == continued
    np.testing.assert_allclose(with_cache(model, tokens, 33), expected[:, 32:], atol=1e-4)
    np.testing.assert_allclose(model(tensor(tokens)).numpy(), expected, atol=1e-4)
    assert model.weight_bytes() == 4 * 124_439_808


def without_prefix(state):
    return {name.removeprefix("transformer."): value for name, value in state.items()}


def with_buffers(state):
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 24, 24) for i in range(2)}
    return state | masks | {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}


def with_head(state):
    return state | {"lm_head.weight": state["transformer.wte.weight"].clone()}


@pytest.mark.parametrize("change", [without_prefix, with_buffers, with_head])
def test_names_that_checkpoints_have(change, tmp_path, rng):
    other = peer(SIZES[0])
    path = save(other, tmp_path) / "model.safetensors"
    save_file(change(load_file(path)), path)
    tokens = rng.integers(0, 97, (1, 9))
    found = loaded(tmp_path)(tensor(tokens)).numpy()
    np.testing.assert_allclose(found, logits_of(other, tokens), atol=1e-4)


def test_a_head_of_its_own(tmp_path, rng):
    other = peer(SIZES[0])
    path = save(other, tmp_path) / "model.safetensors"
    state = load_file(path)
    head = torch.randn(97, 48)
    save_file(state | {"lm_head.weight": head}, path)
    other.lm_head.weight = torch.nn.Parameter(head)
    tokens = rng.integers(0, 97, (1, 9))
    expected = logits_of(other, tokens)
    np.testing.assert_allclose(loaded(tmp_path)(tensor(tokens)).numpy(), expected, atol=1e-4)
    model = GPT(read_config(tmp_path, "int8-weight-only"))
    load_quant_weights_from_hf(model, tmp_path, "int8-weight-only")
    assert abs(model(tensor(tokens)).numpy() - expected).max() < 0.05 * expected.std()


def test_parts(tmp_path, rng):
    other = peer(SIZES[1])
    save(other, tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    tokens = rng.integers(0, 300, (1, 9))
    found = loaded(tmp_path)(tensor(tokens)).numpy()
    np.testing.assert_allclose(found, logits_of(other, tokens), atol=1e-4)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"weights in .* that cannot be read"):
        loaded(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return save(peer(SIZES[0]), tmp_path)


def changed(folder, change):
    """Rewrite the checkpoint's tensors."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def refused(folder, mode="none", encode=None):
    """The message of a load that has to fail, and to leave the model as it was."""
    model = GPT(GPTConfig(97, 24, 2, 3, 48, quant_mode=mode))
    model.initialize_dummy_parameters()
    before = dict(model.state_dict())
    with pytest.raises((ValueError, tp.TripyException)) as error:
        load_quant_weights_from_hf(model, folder, mode, encode)
    assert all(value is before[name] for name, value in model.state_dict().items())
    return str(error.value)


@pytest.mark.parametrize("mode", QUANT_MODES)
def test_all_names_that_do_not_fit_are_listed(folder, mode):
    def change(state):
        del state["transformer.h.0.mlp.c_fc.weight"], state["transformer.ln_f.bias"]
        state |= {"transformer.h.2.ln_1.weight": torch.ones(48), "score.weight": torch.ones(2, 48)}

    changed(folder, change)
    message = refused(folder, mode, encode=lambda text: [0] * 100)
    for name in ("h.0.mlp.c_fc.weight", "ln_f.bias", "h.2.ln_1.weight", "score.weight"):
        assert name in message


@pytest.mark.parametrize("mode", ["none", "int8-weight-only"])
def test_transposed_matrices_are_refused(folder, mode):
    """As some tools write GPT-2: then the square attn.c_proj is wrong and nothing shows it."""

    def change(state):
        for name, value in state.items():
            if ".c_" in name and value.dim() == 2:
                state[name] = value.t().contiguous()

    changed(folder, change)
    message = refused(folder, mode)
    assert "h.0.attn.c_attn.weight" in message and "h.0.mlp.c_proj.weight" in message


def test_the_square_matrix_is_transposed(folder):
    stored = load_file(folder / "model.safetensors")["transformer.h.1.attn.c_proj.weight"]
    assert not torch.equal(stored, stored.t())
    weight = loaded(folder).h[1].attn.c_proj.weight.numpy()
    np.testing.assert_array_equal(weight, stored.t().numpy())


def test_another_size_is_refused(folder):
    changed(folder, lambda state: state.update({"transformer.wpe.weight": torch.ones(23, 48)}))
    message = refused(folder)
    assert "wpe.weight" in message and "23" in message


def test_damaged_files_are_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04" + whole, whole[:4]):
        path.write_bytes(content)
        assert "that cannot be read" in refused(folder)
    path.unlink()
    assert "that cannot be read" in refused(folder)


def test_unusable_configurations_are_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for change, reason in (
        ({"activation_function": "relu"}, "activation_function='relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=reason):
            read_config(folder)
    for content in ("{", '{"model_type": "llama"}', "[]"):
        path.write_text(content)
        with pytest.raises(ValueError, match="cannot be used"):
            read_config(folder)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be used"):
        read_config(folder)


def test_a_source_that_is_nowhere(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="no folder and cannot be downloaded"):
        read_config("no-such-user/no-such-model")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        read_config("gpt2")


def test_modes(folder):
    with pytest.raises(ValueError, match=r"got quant_mode='int3'; expected one of none, int8-wei"):
        GPTConfig(quant_mode="int3")
    with pytest.raises(
        ValueError, match=r"got quant_mode='int8'; expected the model's own, 'none'"
    ):
        load_quant_weights_from_hf(GPT(read_config(folder)), folder, "int8")
    with pytest.raises(ValueError, match="no tokenizer for calibration"):
        load_quant_weights_from_hf(GPT(read_config(folder, "int8")), folder, "int8")
