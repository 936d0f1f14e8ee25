"""The site is built, strictly; and what must not be built is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the documentation's packages need Python 3.11")

from sphinx.util.inventory import InventoryFile

import tripy as tp
import tripy.quantization as tq
from docs.tools import api_pages, public, reference

ROOT = reference.ROOT


def build(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", *options]
    command += ["-d", str(out / "doctrees"), str(source), str(out / "html")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "TRIPY_DEVICE": "cpu"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_the_site(tmp_path):
    """One test, because one build takes as long as all other tests of the documentation."""
    done = build(ROOT / "docs", tmp_path, "--keep-going")
    assert (done.returncode, done.stderr) == (0, "")
    site = tmp_path / "html"
    check_names(site)
    check_pages(site)
    for path in site.rglob("*.html"):
        assert str(ROOT) not in path.read_text(), f"{path} shows a path of this machine"


def check_names(site: Path) -> None:
    """Every public name is described."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda *parts: "".join(parts))
    described = {name for kind, names in inventory.items() if kind[:3] == "py:" for name in names}
    wanted = {f"tripy.{name}" for name in tp.__all__}
    wanted |= {f"tripy.quantization.{name}" for name in tq.__all__}
    wanted |= {f"tripy.config.{name}" for name in tp.config._TYPES}
    wanted |= {f"tripy.types.{name}" for name in ("TensorLike", "IntLike", "ShapeLike")}
    wanted |= {
        f"tripy.{entry.name}" for entry in public.entries() if entry.kind in ("method", "property")
    }
    assert wanted - described == set()


def check_pages(site: Path) -> None:
    """Results, links and data types are on the pages."""
    text = (site / "guides" / "introduction.html").read_text()
    assert "relative error:" in text and re.search(r'class="output[^>]*>', text)
    assert re.search(r'<a[^>]*href="[^"]*#tripy\.compile"[^>]*><code[^>]*>.*?tp\.compile', text)
    assert "doc:" not in text
    text = (site / "reference" / "api" / "movement.html").read_text()
    gather = text[text.index('id="tripy.gather"') : text.index('id="tripy.permute"')]
    for part in ("int32", "Parameters", "Returns", "Example", "&gt;&gt;&gt;"):
        assert part in gather
    text = (site / "reference" / "api" / "modules.html").read_text()
    linear = re.sub(r"<[^>]+>", "", text[text.index('id="tripy.Linear"') :])[:600]
    assert "tripy.Linear(in_features, out_features, bias=True, dtype=float32" in linear
    text = (site / "reference" / "api" / "compiling.html").read_text()
    executable = re.sub(r"<[^>]+>", "", text[text.index('id="tripy.Executable"') :])[:200]
    assert "structures" not in executable  # The arguments of its constructor are not public.
    text = (site / "notebooks" / "quantize-a-gpt.html").read_text()
    assert text.count("<img") >= 4 and "bits a byte" in text


BAD = {
    "`tp.no_such_name` is nothing.": "target not found: tripy.no_such_name",
    "`tq.Report.nothing(1)` neither.": "target not found: tripy.quantization.Report.nothing",
    "{py:func}`tripy.nothing`": "target not found: tripy.nothing",
    "[](no-such-page.md)": "no-such-page.md",
}
CONF = """\
extensions = ["myst_nb", "docs.tools.sphinx_extension"]
nitpicky = True
"""


def test_names_that_are_not_there_fail_the_build(tmp_path):
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "index.md").write_text("# Title\n\n" + "\n\n".join(BAD) + "\n")
    done = build(tmp_path, tmp_path / "out", "--keep-going")
    assert done.returncode != 0
    for message in BAD.values():
        assert message in done.stderr


def test_a_new_public_name_gets_a_place(monkeypatch):
    made = api_pages.pages()
    assert "more.md" not in made
    monkeypatch.setattr(tp, "__all__", [*tp.__all__, "build"])
    monkeypatch.setattr(tp, "build", build, raising=False)
    assert ".. autofunction:: tripy.build" in api_pages.pages()["more.md"]


def test_pages_that_are_no_longer_made_are_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(api_pages, "pages", lambda: {"new.md": "text"})
    (tmp_path / "old.md").write_text("text")
    api_pages.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.md"]


def test_data_types():
    assert api_pages.data_types("gather") == [
        ("``input``, result", ", ".join(f"``{kind.name}``" for kind in tp.dtypes.ALL)),
        ("``index``", "``int32``, ``int64``"),
    ]
    assert api_pages.data_types("topk")[1] == ("result 2", "``int32``")
    assert api_pages.data_types("compile") == [] == api_pages.data_types("Sequential")
    assert api_pages.data_types("Embedding")[0] == ("``x``", "``int32``, ``int64``")
