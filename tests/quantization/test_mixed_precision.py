"""Mixed precision: choices are the best there are, fit the budget, and are what is applied."""

from __future__ import annotations

import itertools
import json
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import as_tripy, inputs, mlp, tiny_gpt2, tokens
from tripy.quantization import knapsack
from tripy.quantization.knapsack import Option
from tripy.quantization.mixed_precision import KEPT, choose_formats
from tripy.quantization.report import report as report_of
from tripy.quantization.results import Sensitivity, SensitivityRow, Size
from tripy.quantization.sensitivity import sensitivity

FORMATS = {"int8": tq.INT8_WEIGHT_ONLY_CFG, "int4": tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG}
# Searches of three steps: they are tested elsewhere.
SMOOTH = tq.INT8_SMOOTHQUANT_CFG.with_algorithm("smoothquant", alpha_step=0.5)
AWQ = tq.INT4_AWQ_CFG.with_algorithm("awq", alpha_step=0.5)


def made_up(layers: dict[str, tuple[int, dict[str, tuple[int, float]]]]) -> Sensitivity:
    """From elements, and bytes and KL by format, of float32 layers."""
    rows = [
        SensitivityRow(name, fmt, fmt, size, 0.0, kl)
        for name, (_, options) in layers.items()
        for fmt, (size, kl) in options.items()
    ]
    sizes = {name: Size(elements, 4 * elements) for name, (elements, _) in layers.items()}
    return Sensitivity(tuple(rows), sizes, FORMATS)


def brute_force(groups, budget: int) -> float:
    return min(
        sum(option.cost for option in chosen)
        for chosen in itertools.product(*groups)
        if sum(option.size for option in chosen) <= budget
    )


@st.composite
def problems(draw):
    cost = st.one_of(
        st.integers(-3, 9).map(float), st.floats(0, 10, allow_nan=False, allow_subnormal=False)
    )
    option = st.builds(Option, st.integers(0, draw(st.sampled_from((6, 1000)))), cost)
    groups = draw(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=6))
    spread = sum(max(o.size for o in options) for options in groups) - knapsack.smallest(groups)
    return groups, knapsack.smallest(groups) + draw(st.integers(0, spread + 1))


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(problems())
def test_knapsack_equals_brute_force(problem):
    groups, budget = problem
    answer = knapsack.solve(groups, budget)
    assert answer.size <= budget and answer.gap == 0
    assert answer.size == sum(options[i].size for options, i in zip(groups, answer.chosen))
    assert answer.cost == pytest.approx(brute_force(groups, budget), rel=1e-12, abs=1e-11)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(problems())
def test_a_search_cut_off_says_how_far_it_may_be(problem):
    groups, budget = problem
    answer = knapsack.solve(groups, budget, limit=1)
    assert answer.size <= budget
    assert answer.cost - answer.gap <= brute_force(groups, budget) + 1e-11


def test_a_hundred_layers_to_the_byte_take_no_time():
    make, groups = random.Random(0), []
    for _ in range(100):
        elements = make.randrange(10**5, 10**6)
        sizes = [4 * elements, *(elements * b // 8 + make.randrange(999) for b in (8, 4, 2))]
        groups.append([Option(n, i * make.expovariate(1)) for i, n in enumerate(sizes)])
    least = knapsack.smallest(groups)
    start = time.perf_counter()
    answers = [knapsack.solve(groups, least * times // 4 + 1) for times in range(4, 16)]
    assert time.perf_counter() - start < 10  # About 0.1 s on an idle core.
    assert all(answer.gap == 0 for answer in answers)
    costs = [answer.cost for answer in answers]
    assert costs == sorted(costs, reverse=True)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_choices_are_the_best_within_the_budget(data):
    layers = {}
    for i in range(data.draw(st.integers(1, 4))):
        elements = data.draw(st.integers(8, 64))
        kls = data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
        layers[f"h.{i}"] = (elements, {"int8": (elements, kls[0]), "int4": (elements // 2, kls[1])})
    found = made_up(layers)
    excluded = data.draw(st.sampled_from(((), ("h.0",))))
    groups = [
        [Option(4 * n, 0.0)] + ([] if name in excluded else [Option(*o) for o in options.values()])
        for name, (n, options) in layers.items()
    ]
    budget = data.draw(st.integers(knapsack.smallest(groups), 4 * 64 * 4))
    mixed = choose_formats(found, budget_bytes=budget, exclude=excluded)
    assert mixed.bytes == sum(row.bytes for row in mixed.rows) <= budget
    assert mixed.kl == pytest.approx(brute_force(groups, budget), abs=1e-11)
    assert all(mixed.choices[name] == KEPT for name in excluded)
    for point in mixed.pareto:
        assert point.kl == pytest.approx(brute_force(groups, point.bytes), abs=1e-11)
    for a, b in itertools.pairwise(mixed.pareto):
        assert a.bytes < b.bytes and a.kl > b.kl


def test_budgets_in_bits_and_what_is_refused():
    found = made_up({
        "a": (1000, {"int8": (1000, 0.1), "int4": (500, 0.5)}),
        "b": (1000, {"int8": (1000, 0.2), "int4": (500, math.inf)}),
    })  # fmt: skip
    mixed = choose_formats(found, budget_bits=6)
    assert mixed.choices == {"a": "int4", "b": "int8"}
    assert (mixed.bytes, mixed.bits, mixed.budget_bytes) == (1500, 6.0, 1500)
    assert choose_formats(found, budget_bits=32).choices == {"a": KEPT, "b": KEPT}
    # The format whose logits were infinite is not chosen: 6 bits are the least.
    with pytest.raises(tp.TripyException, match=r"1,500 bytes or more, 6\.0000 bits"):
        choose_formats(found, budget_bits=5.99)
    with pytest.raises(tp.TripyException, match="4,500 bytes or more"):
        choose_formats(found, budget_bytes=4499, exclude="b")
    for options in (
        {}, {"budget_bits": 4, "budget_bytes": 9}, {"budget_bits": True}, {"budget_bits": "4"},
        {"budget_bytes": -1}, {"budget_bits": math.nan},
    ):  # fmt: skip
        with pytest.raises(tp.TripyException, match="budget is none"):
            choose_formats(found, **options)
    with pytest.raises(tp.TripyException, match="nearest name is 'a'"):
        choose_formats(found, budget_bits=32, exclude=["a*", "aa"])
    # 4.1 bits are written in decimal: not a byte less.
    assert choose_formats(found, budget_bits=8.1).budget_bytes == 2025


def test_what_is_printed_and_written():
    found = made_up({
        "first": (1000, {"int8": (1000, 0.1), "int4": (500, 0.5)}),
        "second": (1000, {"int8": (1000, 0.2), "int4": (500, 0.9)}),
    })  # fmt: skip
    mixed = choose_formats(found, budget_bits=21, exclude="second")
    lines = str(mixed).splitlines()
    assert lines[0].startswith("20.000 bits a weight, scales included: 5,000 bytes of 5,250")
    assert "not quantized (excluded)" in lines[3]
    assert sum(line.endswith("*") for line in lines) == 1
    written = json.loads(mixed.to_json())
    assert written["version"] == 1 and written["rows"][0]["format"] == "int8"
    assert written["pareto"][0]["layers"] == {"int4": 1, KEPT: 1}
    assert tq.QuantizationConfig.from_json(written["formats"]["int4"]) == FORMATS["int4"]


@pytest.mark.parametrize("framework", ["torch", "tripy"])
def test_the_choice_is_what_is_applied(framework):
    if framework == "torch":
        model, data = tiny_gpt2(layers=1), tokens()
        run = lambda: model(data).logits  # noqa: E731
    else:
        model, data = as_tripy(mlp()), tp.Tensor(inputs())
        run = lambda: model(data).eval()  # noqa: E731
    formats = {"w8a8": SMOOTH, "int4": AWQ}
    found = sensitivity(model, formats, run, run)
    layer = next(iter(found.sizes))
    bits = 13 if framework == "torch" else 25
    mixed = choose_formats(found, budget_bits=bits, exclude=layer)
    tq.quantize(model, mixed.config, statistics=found.statistics, predicate=mixed.predicate)
    states = tq.describe(model)
    schemes = {(row.layer, row.format): row.scheme for row in found.rows}
    assert len(set(mixed.choices.values())) > 1
    for name, chosen in mixed.choices.items():
        wanted = "not quantized" if chosen == KEPT else schemes[name, chosen]
        assert states[name].scheme == wanted
    assert mixed.choices[layer] == KEPT
    assert mixed.predicate("lm_head") is False
    report = {row.name: row for row in report_of(model).rows}
    assert sum(report[name].bytes_after for name in mixed.choices) == mixed.bytes


def test_the_sum_of_divergences_is_near_the_whole():
    """What the choice is made by: errors of layers are nearly independent."""
    model, data = tiny_gpt2(), tokens(8)
    run = lambda: model(data).logits  # noqa: E731
    found = sensitivity(model, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, run, run)
    total = sum(row.alone_kl for row in found.rows)
    assert found.all["INT4_BLOCKWISE_WEIGHT_ONLY_CFG"][1] == pytest.approx(total, rel=0.35)
