"""The next token: the largest logit, or drawn with the probabilities of softmax."""

import pytest
import torch

module = pytest.importorskip("tripy.backends.torch.kernels.cuda.sampling")
sample = module.sample


def seed_state(device, seed=7, step=0):
    return torch.tensor([seed, step], device=device)


def logits(*shape, device):
    return torch.randn(shape).to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [1, 65, 3000])
def test_without_temperature_the_largest(device, dtype, vocabulary):
    torch.manual_seed(0)
    x = logits(3, vocabulary, device=device).to(dtype)
    assert sample(x, temperature=0).tolist() == x.argmax(1).tolist()
    assert sample(x, temperature=0).dtype is torch.int32


def test_of_equal_logits_the_first(device):
    x = torch.zeros(1, 3000, device=device)
    x[0, [1500, 2900, 77]] = 1.0
    assert sample(x, temperature=0).tolist() == [77]
    assert sample(-torch.zeros(1, 3000, device=device), temperature=0).tolist() == [0]


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 3}])
def test_nan_is_the_largest(device, options):
    x = logits(2, 3000, device=device)
    x[1, [1234, 2345]] = float("nan")
    assert sample(x, seed_state=seed_state(device), **options)[1].item() == 1234


@pytest.mark.parametrize("top_k", [None, 5])
def test_result_depends_on_seed_step_and_row_alone(device, top_k):
    torch.manual_seed(0)
    x = logits(3, 1500, device=device) * 0.1
    state, space = seed_state(device), module.workspace(3, 1500, device)
    options = {"top_k": top_k, "space": space}
    first, second = (sample(x, seed_state=state, **options).tolist() for _ in range(2))
    assert state.tolist() == [7, 2] and first != second
    again = [sample(x, seed_state=seed_state(device, step=i), **options).tolist() for i in (0, 1)]
    assert again == [first, second]
    assert sample(x[:2], seed_state=seed_state(device), top_k=top_k).tolist() == first[:2]
    other = sample(x, seed_state=seed_state(device, seed=8), top_k=top_k)
    assert other.tolist() != first
    assert not space.arrived.any()


@pytest.mark.parametrize("top_k", [1, 2, 40, 3000])
def test_largest_are_drawn_from(device, top_k):
    torch.manual_seed(0)
    x = logits(1, 2100, device=device)
    least = x.topk(min(top_k, 2100)).values[0, -1]
    state = seed_state(device)
    for _ in range(8):
        token = sample(x, top_k=top_k, temperature=100.0, seed_state=state)
        assert x[0, token.item()] >= least


def test_logits_equal_to_the_last_of_the_largest_are_kept(device):
    x = torch.zeros(1, 3000, device=device)
    state = seed_state(device)
    tokens = {sample(x, top_k=2, seed_state=state).item() for _ in range(5)}
    assert len(tokens) == 5


def test_impossible_tokens_are_not_drawn(device):
    x = torch.full((1, 100), float("-inf"), device=device)
    x[0, [3, 50]] = 0.0
    state = seed_state(device)
    for top_k in (None, 40):
        tokens = {sample(x, top_k=top_k, seed_state=state).item() for _ in range(12)}
        assert tokens == {3, 50}


def assert_plausible(counts, probabilities):
    """Pearson's chi-square test at 4.5 standard deviations; rare tokens count as one."""
    expected = probabilities * counts.sum()
    common = expected > 5
    counts, expected = (torch.cat([t[common], t[~common].sum()[None]]) for t in (counts, expected))
    assert not counts[expected == 0].any()
    there = expected > 0
    freedom = int(there.sum()) - 1
    statistic = ((counts - expected).square() / expected)[there].sum().item()
    assert statistic < freedom + 4.5 * (2 * freedom) ** 0.5 + 9


@pytest.mark.parametrize("top_k", [None, 4])
def test_frequencies_are_those_of_softmax(device, top_k, monkeypatch):
    # Small programs, because the interpreter takes its time.
    monkeypatch.setattr(module, "_block", lambda vocabulary: 32)
    torch.manual_seed(0)
    x = logits(9, device=device)
    rows = 120 if device.type == "cpu" else 20000
    tokens = sample(x.expand(rows, 9), temperature=0.7, top_k=top_k, seed_state=seed_state(device))
    kept = x if top_k is None else x.masked_fill(x < x.topk(top_k).values[-1], float("-inf"))
    counts = tokens.long().bincount(minlength=9).double()
    assert_plausible(counts, torch.softmax(kept.double() / 0.7, 0))


@pytest.mark.gpu
@pytest.mark.parametrize("vocabulary, top_k", [(50257, None), (50257, 200), (128256, 3000)])
def test_large_vocabularies(gpu, vocabulary, top_k):
    x = torch.randn(vocabulary, device=gpu) * 2
    kept = x if top_k is None else x.masked_fill(x < x.topk(top_k).values[-1], float("-inf"))
    tokens = sample(x.expand(4096, -1), top_k=top_k, seed_state=seed_state(gpu), pdl=True)
    counts = tokens.long().bincount(minlength=vocabulary).double()
    assert_plausible(counts, torch.softmax(kept.double(), 0))
