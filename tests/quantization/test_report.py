"""The report: every field, the answers in words, JSON, and the page."""

from __future__ import annotations

import html.parser
import json
import re

import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import as_tripy, inputs, mlp, tiny_gpt2, tokens
from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact
from tripy.quantization import runs, svg
from tripy.quantization.mixed_precision import choose_formats
from tripy.quantization.report import report
from tripy.quantization.sensitivity import sensitivity

EMPTY = {"meta", "br", "path", "circle"}
INT4_INT8 = tq.QuantizationConfig(
    (
        tq.Rule("*weight_quantizer", (tq.QuantizerConfig(4, axis=0),)),
        tq.Rule("*input_quantizer", (tq.QuantizerConfig(8),)),
    )
)
# Searches of three steps: they are tested elsewhere.
SMOOTH = tq.INT8_SMOOTHQUANT_CFG.with_algorithm("smoothquant", alpha_step=0.5)
AWQ = tq.INT4_AWQ_CFG.with_algorithm("awq", alpha_step=0.5)


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and keeps text and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.tags, self.attributes = "", [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check_page(text: str) -> Page:
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|//|url\(|@import|\bnan\b", text)
    assert not any(
        "nan" in value or "inf" in value for name, value in page.attributes if name == "d"
    )
    assert "viewport" in text and "prefers-color-scheme: dark" in text
    return page


@pytest.fixture(scope="module")
def gpt2():
    """A model in mixed precision, and its report."""
    model, data = tiny_gpt2(layers=1), tokens()
    run = lambda: model(data).logits  # noqa: E731
    formats = {"int8": SMOOTH, "<int4>": AWQ}
    found = sensitivity(model, formats, run, run)
    mixed = choose_formats(found, budget_bits=12, exclude="*attn.c_proj")
    tq.quantize(model, mixed.config, statistics=found.statistics, predicate=mixed.predicate)
    return model, report(model, sensitivity=found, mixed=mixed)


def test_each_field_of_a_row():
    model, x = mlp(), inputs()
    config = tq.INT8_SMOOTHQUANT_CFG.without("2")
    tq.quantize(model, config, lambda: model(x))
    state = tq.describe(model)["0"]
    found = report(model)
    assert found.model == "Sequential"
    first, second = found.rows
    assert (first.name, first.kind, first.shape) == ("0", "Linear", (256, 128))
    assert first.scheme == "int8 per channel, input int8 per tensor"
    assert (first.weight, first.input, first.granularity) == (
        "int8 per channel", "int8", "per channel",
    )  # fmt: skip
    scale = state.weight_quantizers[0].scale
    assert first.weight_scale == (float(scale.min()), float(scale.max()))
    assert first.input_scale == float(state.input_quantizer.scale)
    pre = state.pre_quant_scale
    assert first.pre_quant_scale == (float(pre.min()), float(pre.max()))
    assert first.bytes_before == 256 * 128 * 4
    # A byte a value; a scale a channel, one of the input, one each input channel.
    assert first.bytes_after == 256 * 128 + 4 * (256 + 1 + 128)
    for name in ("weight_sqnr", "output_sqnr", "output_cosine"):
        assert getattr(first, name) == state.measures[name]
    assert first.searched and first.alpha == state.search["alpha"]
    assert first.reason == "" and first.quantized and first.runs == runs.INT8
    assert second.scheme == "not quantized" and not second.quantized
    assert second.reason == "left out by the pattern '2'"
    assert second.bytes_after == second.bytes_before == 128 * 256 * 4
    assert (second.weight, second.input, second.weight_scale, second.alpha) == (
        "-",
        "-",
        None,
        None,
    )
    assert found.summary == {
        "layers": 2, "quantized_layers": 1, "quantized_share": 0.5,
        "bytes_before": 262144, "bytes_after": 131072 + 256 * 128 + 4 * 385,
    }  # fmt: skip
    assert found.headline().startswith(
        "1 of 2 linear layers are quantized, with 50.0% of the bytes"
    )


def test_both_frameworks_have_the_same_rows():
    source, x = mlp(), inputs()
    module = as_tripy(source)
    tq.quantize(source, tq.INT4_AWQ_CFG, lambda: source(x))
    tq.quantize(module, tq.INT4_AWQ_CFG, lambda: module(tp.Tensor(x)).eval())
    theirs, ours = report(source), report(module)
    for a, b in zip(theirs.rows, ours.rows):
        assert (a.name, a.scheme, a.bytes_before, a.bytes_after, a.alpha) == (
            b.name, b.scheme, b.bytes_before, b.bytes_after, b.alpha,
        )  # fmt: skip
        assert a.output_sqnr == pytest.approx(b.output_sqnr, abs=0.1)
    assert "slower than before, by design" in theirs.notes[0] and "to_tripy" in theirs.notes[0]
    assert "tp.compile" in ours.notes[0] and not any("by design" in note for note in ours.notes)


def test_sixteen_bit_layers_are_counted_as_such():
    made = tp.Sequential(tp.Linear(128, 64, dtype=tp.bfloat16))
    made.load_state_dict({
        "0.weight": tp.cast(tp.ones((64, 128)), tp.bfloat16).eval(),
        "0.bias": tp.cast(tp.ones((64,)), tp.bfloat16).eval(),
    })  # fmt: skip
    tq.quantize(made, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG)
    row = report(made).rows[0]
    assert (row.bytes_before, row.bytes_after) == (64 * 128 * 2, 64 * 128 // 2 + 64 * 2)


def test_models_that_are_not_quantized():
    found = report(mlp())
    assert found.headline().startswith("0 of 2 linear layers are quantized, with 0.0%")
    assert [row.reason for row in found.rows] == ["it was never quantized"] * 2
    assert found.notes == ("No linear layer is quantized: the model runs as it always did.",)
    assert "it was never quantized" in str(found)
    check_page(found.to_html())
    with pytest.raises(tp.TripyException, match="is no model"):
        report(3)
    with pytest.raises(tp.TripyException, match="sensitivity is none"):
        report(mlp(), sensitivity=3)


def test_reasons(gpt2):
    model, found = gpt2
    reasons = {row.name.rpartition(".")[2]: row.reason for row in found.rows if row.reason}
    assert reasons["lm_head"] == "the predicate left it out"
    excluded = next(row for row in found.rows if row.name.endswith("attn.c_proj"))
    assert excluded.reason == "excluded from mixed precision"
    assert all(bool(row.reason) != row.quantized for row in found.rows)
    kept = report(model).rows
    assert kept[1:] and "the predicate left it out" in {row.reason for row in kept}


def test_keys_and_values_alone():
    model, data = tiny_gpt2(layers=1), tokens()
    rules = (tq.Rule("*[kv]_bmm_quantizer", (tq.QuantizerConfig((4, 3)),)),)
    tq.quantize(model, tq.QuantizationConfig(rules), lambda: model(data))
    row = next(row for row in report(model).rows if row.name.endswith("c_attn"))
    assert row.key_scale > 0 and row.value_scale > 0 and row.input_scale is None
    assert row.reason == "only the keys and values that it makes are rounded"
    assert "scale of keys" in check_page(report(model).to_html()).text


@pytest.mark.parametrize(
    ("config", "wanted", "kernel"),
    [
        (tq.INT8_DEFAULT_CFG, runs.INT8, "oneDNN int8 GEMM (int8 x int8"),
        (tq.INT8_WEIGHT_ONLY_CFG, runs.INT8_WEIGHT, "int8 weight, float32 input"),
        (tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, runs.INT4_WEIGHT, "int4 weight expanded, float GEMM"),
        (INT4_INT8, runs.INT4_INT8, "float32 GEMM of the integers"),
        (tq.W4A8_INT8_CFG, runs.INT4_INT8, "int4 weight expanded, float GEMM"),
        (tq.FP8_DEFAULT_CFG, runs.FLOAT8, "float8, emulated in float32"),
    ],
)
def test_what_is_said_to_run_is_what_runs(config, wanted, kernel):
    model, x = mlp(), inputs()
    tq.quantize(model, config, lambda: model(x))
    found = report(model)
    assert found.rows[0].runs == wanted
    assert any(f"2 layers: {wanted}. {runs.SPEED[wanted]}" == note for note in found.notes)
    if config in (tq.INT8_DEFAULT_CFG, tq.INT8_WEIGHT_ONLY_CFG) and not int8_products_are_exact():
        return
    module = tq.to_tripy(model, tp.Sequential(tp.Linear(128, 256), tp.gelu, tp.Linear(256, 128)))
    compiled = tp.compile(module, args=[tp.InputInfo((8, 128), tp.float32)])
    assert any(row.kernel.startswith(kernel) for row in compiled.report().rows)
    assert [row.runs for row in report(module).rows] == [wanted] * 2


def test_two_formats_of_one_weight_are_for_export():
    model, x = mlp(), inputs()
    tq.quantize(model, tq.W4A8_AWQ_BETA_CFG, lambda: model(x))
    row = report(model).rows[0]
    assert row.runs == runs.EXPORT_ONLY and row.granularity == "blocks of 128 then per tensor"
    assert row.bytes_after <= 256 * 128 // 2 + 4 * (256 + 1 + 1 + 128)


def test_the_table_is_aligned(gpt2):
    _, found = gpt2
    lines = str(found).splitlines()
    table = lines[1 : 2 + len(found.rows)]
    end = table[0].index("bytes before") + len("bytes before")
    assert all(line[:end].rstrip()[-1:].isdigit() for line in table[1:])
    assert "alpha" in table[0] and "left alone because" in table[0]
    assert all(len(line) <= 100 for line in lines if line.startswith("- "))
    assert "each layer quantized alone" in str(found) and "bits a weight" in str(found)


def test_json_round_trip(gpt2, tmp_path):
    _, found = gpt2
    path = tmp_path / "report.json"
    found.save(path)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read["version"] == 1 and read["model"] == "GPT2LMHeadModel"
    assert read["summary"] == found.summary
    assert [layer["name"] for layer in read["layers"]] == [row.name for row in found.rows]
    assert read["layers"][1]["weight_sqnr"] == found.rows[1].weight_sqnr
    assert read["notes"] == list(found.notes)
    assert read["sensitivity"]["version"] == read["mixed"]["version"] == 1
    assert all(set(search) >= {"alpha", "curve"} for search in read["search"].values())
    with pytest.raises(tp.TripyException, match=r"\.json or \.html"):
        found.save(tmp_path / "report.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_the_page(gpt2, tmp_path):
    _, found = gpt2
    found.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = check_page(text)
    assert found.headline() in page.text
    for row in found.rows:
        assert row.name in page.text
    assert page.tags.count("details") == len(found.rows)
    for words in (
        "What runs, and how fast", "Sensitivity", "Mixed precision", "<int4>: KL, nats",
        "excluded from mixed precision", "Scales of the weight", "is best", "left it out",
        "Counted before the input is multiplied",
    ):  # fmt: skip
        assert words in page.text
    assert "<int4>" not in text and "&lt;int4&gt;" in text


@pytest.mark.parametrize("calibrator", ["max", "percentile", "entropy", "mse"])
def test_thresholds_are_marked(calibrator):
    model, x = mlp(), inputs()
    x[0, 0] = 30
    config = tq.INT8_DEFAULT_CFG.with_algorithm("max", calibrator=calibrator)
    tq.quantize(model, config, lambda: model(x))
    found = report(model)
    page = check_page(found.to_html())
    used = svg.number(found.rows[0].input_scale * 127)
    assert f"in use, {calibrator}: {used}" in page.text
    for name in ("max", "percentile 99.99", "entropy", "mse"):
        assert f"{name}: " in page.text


def test_names_are_escaped():
    model = torch.nn.Module()
    model.add_module('<script>alert("1")&', torch.nn.Linear(8, 8))
    model.forward = lambda x: x
    model.requires_grad_(False)
    run = lambda: next(model.children())(inputs(8, 8))  # noqa: E731
    found = sensitivity(model, tq.INT8_WEIGHT_ONLY_CFG, None, run)
    tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG)
    mixed = choose_formats(found, budget_bits=32)
    page = check_page(report(model, sensitivity=found, mixed=mixed).to_html())
    assert '<script>alert("1")&' in page.text


def test_numbers_and_ticks():
    assert [svg.number(x) for x in (0, 1, 0.00012345, 123456, 1.5, 1e-30)] == [
        "0", "1", "1.23e-4", "1.23e5", "1.5", "1e-30",
    ]  # fmt: skip
    assert svg.ticks_between(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for low, high in ((0, 1e-9), (-3, 1e6), (5, 5.001)):
        ticks = svg.ticks_between(low, high)
        assert 2 <= len(ticks) <= 7 and ticks[0] >= low - 1e-12 and ticks[-1] <= high * (1 + 1e-12)
    assert svg.whole_ticks(-7.2, 3.1) == [-7, -5, -3, -1, 1, 3]
