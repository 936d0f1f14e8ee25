"""Runs the notebooks and stores what they give in them.

    python docs/tools/notebooks.py            run all, and write their outputs into them
    python docs/tools/notebooks.py --check    run all; fail where a stored output is out of date

Outputs are out of date where a cell gives other kinds of results, or other text. Numbers may
differ: another processor rounds in another order. So may all that is printed by a cell with the tag
"varies", such as what a model writes after calibration on the library of the running Python.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TIMEOUT = 300  # Seconds a cell.


def run(path: Path) -> Any:
    """A notebook after running all its cells in its own folder; the file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    # The same on every machine.
    os.environ.setdefault("TRIPY_DEVICE", "cpu")
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3",
                            resources={"metadata": {"path": str(path.parent)}})  # fmt: skip
    client.execute()
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run and from machine to machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for position, cell in enumerate(notebook.cells):
        cell.id = f"cell-{position}"
        cell.metadata = {"tags": ["varies"]} if _varies(cell) else {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = _joined([_tidy_output(output) for output in cell.outputs])
    return notebook


def _varies(cell: Any) -> bool:
    return "varies" in cell.metadata.get("tags", [])


def _joined(outputs: list[Any]) -> list[Any]:
    """With neighbouring pieces of printed text as one: how it is cut is chance."""
    joined: list[Any] = []
    for output in outputs:
        last: Any = joined[-1] if joined else None
        streams = last is not None and output.output_type == "stream" == last.output_type
        if streams and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _tidy_output(output: Any) -> Any:
    output.pop("execution_count", None)
    output["metadata"] = {} if "metadata" in output else output.get("metadata")
    if output["metadata"] is None:
        del output["metadata"]
    if output.output_type == "execute_result":
        output["execution_count"] = None
    return output


def form(notebook: Any) -> list[Any]:
    """What has to be the same in a later run: each cell's code, kinds of outputs, and text."""
    found: list[Any] = []
    for cell in notebook.cells:
        found.append(cell.source)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text = "" if _varies(cell) else _without_numbers(output.text)
                found.append((output.name, text))
            else:
                kinds = sorted(output.get("data", {}))
                text = output.get("data", {}).get("text/plain", "")
                found.append((output.output_type, kinds, _without_numbers(text)))
    return found


def _without_numbers(text: str) -> str:
    # Padding goes with the width of numbers.
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,]*(e[+-]?\d+)?", "#", text)).strip()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args(arguments)
    stale = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        made = run(path)
        if not options.check:
            nbformat.write(made, path)
        elif form(made) != form(nbformat.read(path, as_version=4)):
            print(f"{path} is out of date: run python docs/tools/notebooks.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
