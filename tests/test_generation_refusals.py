"""What tp.generate refuses, before anything runs."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.generations import (
    PROMPTS,
    ROW,
    STATE,
    counting_on,
    new_counters,
    new_model,
    table,
)

from model import compile_steps  # isort: skip


@pytest.fixture(scope="module")
def model():
    return new_model()


@pytest.fixture(scope="module")
def steps(model):
    return {batch: compile_steps(model, batch) for batch in (1, 3)}


@pytest.fixture(scope="module")
def counters():
    return new_counters()


BAD = [
    ({"max_new_tokens": 0}, "max_new_tokens is no number.*int, 1 or more"),
    ({"max_new_tokens": 2.0}, "got: *2.0 of type float"),
    ({"max_new_tokens": True}, "True of type bool"),
    ({"temperature": -0.1}, "temperature is no number"),
    ({"temperature": float("nan")}, "temperature is no number"),
    ({"temperature": float("inf")}, "temperature is no number"),
    ({"temperature": "hot"}, "'hot' of type str"),
    ({"top_k": 0}, "top_k is no number"),
    ({"seed": -1}, "seed is no number.*from 0 to 9223372036854775807"),
    ({"seed": 2**63}, "seed is no number"),
    ({"lookahead": 0}, "lookahead is no number"),
    ({"stop_tokens": [4]}, "stop_tokens has tokens that are not in the vocabulary.*0 to 3"),
    ({"stop_tokens": 3}, "stop_tokens is no list"),
    ({"row_ids": [1]}, r"row_ids do not fit.*2 ints from 0"),
    ({"row_ids": [1, -1]}, "row_ids do not fit"),
    ({"row_ids": 3}, "row_ids do not fit"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: str(v)[:40])
def test_arguments_out_of_range(counters, options, message):
    prefill, decode = counters
    options = {"prefill": prefill, "max_new_tokens": 2, **options}
    with pytest.raises(tp.TripyException, match=f"(?is){message}"):
        tp.generate(decode, [[0], [1]], tp.zeros((2,)), **options)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "nothing to go on from.*no prompts"),
        ([[1], []], r"nothing to go on from.*prompts\[1\] without tokens"),
        ([1, 2], r"prompts is one row of tokens.*\[prompt\]"),
        ("ab", "prompts is no list of prompts"),
        (7, "prompts is no list of prompts.*7 of type int"),
        (["a", "b"], r"prompts\[0\] has tokens that are not in the vocabulary.*'a'"),
        ([[1], [4, -1, 2]], r"prompts\[1\] has tokens.*4, -1.*ints from 0 to 3"),
        ([[1], [1.5]], r"prompts\[1\] has tokens.*1\.5"),
        ([[1], None], r"prompts\[1\] is no list of tokens"),
        ([[1]], r"shape\[0\] is out of bounds"),
        ([[1]] * 3, r"shape\[0\] is out of bounds"),
    ],
)
def test_bad_prompts(counters, prompts, message):
    prefill, decode = counters
    with pytest.raises(tp.TripyException, match=f"(?s){message}"):
        tp.generate(decode, prompts, tp.zeros((2,)), prefill=prefill, max_new_tokens=2)


def compiled(function, *args):
    return tp.compile(function, args=args)


def test_functions_that_do_not_fit(counters):
    prefill, decode = counters
    long, wide = tp.InputInfo((2,), tp.int64), tp.InputInfo((2, 4), tp.float32)

    def refused(message, decode=decode, prefill=prefill):
        with pytest.raises(tp.TripyException, match=f"(?s){message}") as caught:
            tp.generate(decode, [[0], [0]], tp.zeros((2,)), prefill=prefill, max_new_tokens=2)
        assert str(caught.value).startswith("generate: ")

    refused("decode is not a compiled function.*tp.compile", decode=counting_on)
    refused("prefill is not a compiled function", prefill=None)
    refused(r"prefill: tokens is .*int32\[2\].*not an int32 tensor of rank 2", prefill=decode)
    refused("not an int32 tensor of rank 1.*decode\\(tokens", decode=prefill)
    refused("position is .*int64", decode=compiled(counting_on, ROW, long, STATE))
    refused("takes 2 arguments", decode=compiled(lambda a, b: (table()[a], b), ROW, STATE))
    for message, result in (
        ("no pair of logits and caches", lambda logits, state: logits),
        ("logits are .*not a float tensor of rank 2", lambda logits, state: (logits[0], state)),
        ("in another structure", lambda logits, state: (logits, [state])),
        ("in another structure", lambda logits, state: (logits, {"state": state})),
        ("comes back as", lambda logits, state: (logits, tp.cast(state, tp.int32))),
        ("comes back as", lambda logits, state: (logits, logits)),
        ("logits of 4 and of 3 tokens", lambda logits, state: (logits[:, :3], state)),
    ):
        function = compiled(
            lambda tokens, position, state, result=result: result(table()[tokens], state),
            ROW, ROW, STATE,
        )  # fmt: skip
        refused(message, decode=function)
    with pytest.raises(tp.TripyException, match="state: the argument has the wrong rank"):
        wrong = compiled(counting_on, ROW, ROW, wide)
        tp.generate(wrong, [[0], [0]], tp.zeros((2,)), prefill=prefill, max_new_tokens=2)


def test_caches_that_do_not_fit(model, steps, counters):
    prefill, decode = steps[3]
    options = {"prefill": prefill, "max_new_tokens": 2}
    one = model.new_caches(3)[0]
    with pytest.raises(tp.TripyException, match=r"(?s)two caches share memory"):
        tp.generate(decode, PROMPTS, [one, one], **options)
    with pytest.raises(tp.TripyException, match=r"(?s)caches: .*nested.*a list of 2"):
        tp.generate(decode, PROMPTS, [one], **options)
    with pytest.raises(tp.TripyException, match=r"(?s)caches\[0\].*wrong data type"):
        tp.generate(
            decode, PROMPTS, [tp.cast(c, tp.float16) for c in model.new_caches(3)], **options
        )
    with pytest.raises(tp.TripyException, match=r"caches\[0\].shape\[0\] is out of bounds"):
        tp.generate(decode, PROMPTS, model.new_caches(1), **options)
