"""The notebooks run, and the outputs that are stored in them are those that they give."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="the documentation's packages need Python 3.11")
nbformat = pytest.importorskip("nbformat")

from docs.tools import notebooks  # noqa: E402
from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact  # noqa: E402

PATHS = sorted(notebooks.FOLDER.glob("*.ipynb"))
BY_NOTEBOOK = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert [path.stem for path in PATHS] == ["quantize-a-gpt", "quantized-model"]


@BY_NOTEBOOK
def test_it_runs_and_its_outputs_are_up_to_date(path: Path):
    made, stored = notebooks.run(path), nbformat.read(path, as_version=4)
    if int8_products_are_exact():  # Otherwise other kernels stand in the reports.
        assert notebooks.form(made) == notebooks.form(stored), "run python docs/tools/notebooks.py"


@BY_NOTEBOOK
def test_nothing_of_the_machine_is_stored(path: Path):
    assert str(notebooks.FOLDER.parents[1]) not in path.read_text()
    notebook = nbformat.read(path, as_version=4)
    assert notebooks.tidy(nbformat.read(path, as_version=4)) == notebook
    assert any(
        "image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])
    )


def notebook(text: str) -> object:
    cell = nbformat.v4.new_code_cell("print(1)")
    cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    return nbformat.v4.new_notebook(cells=[cell])


def test_printed_text_is_joined():
    made = notebook("a")
    made.cells[0].outputs += [nbformat.v4.new_output("stream", text="b")]
    made.cells[0].outputs += [nbformat.v4.new_output("stream", name="stderr", text="c")]
    made.cells[0].outputs += [nbformat.v4.new_output("display_data", {"text/plain": "d"})]
    made.cells[0].outputs += [nbformat.v4.new_output("stream", text="e")]
    outputs = notebooks.tidy(made).cells[0].outputs
    assert [each.get("text") for each in outputs] == ["ab", "c", None, "e"]


def test_what_varies_may_differ():
    one, other = notebook("a"), notebook("b")
    assert notebooks.form(one) != notebooks.form(other)
    for each in (one, other):
        each.cells[0].metadata = {"tags": ["varies", "other"]}
        assert notebooks.tidy(each).cells[0].metadata == {"tags": ["varies"]}
    assert notebooks.form(one) == notebooks.form(other)


def test_numbers_may_differ_and_words_may_not():
    assert notebooks.form(notebook("loss 1.25e-3 dB")) == notebooks.form(notebook("loss   7 dB"))
    assert notebooks.form(notebook("loss 1 dB")) != notebooks.form(notebook("gain 1 dB"))
