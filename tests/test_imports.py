"""The house's import rule: rooms import rooms that come before them, never the other way round.

Only what runs is looked at: imports under ``if TYPE_CHECKING`` cannot make a cycle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tripy"

# Room → the rooms it may import. A module belongs to the room with the longest name that it starts
# with. Each row names rows above it only, so nothing can go round in a circle.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "dtypes": {"errors"},
    "device": {"errors"},
    "config": {"errors", "device"},
}
WORDS = set(ROOMS)  # What all others speak.
ROOMS |= {
    "files": set(),
    "logger": WORDS,
    "graph": WORDS - {"config"},
    "passes": WORDS | {"logger", "graph"},
    "backends": set(),
    "backends.base": WORDS | {"graph"},
    "backends.torch": WORDS | {"logger", "graph", "passes", "backends.base"},
    # It folds constants with torch, whose tensors are what its engines read and write.
    "backends.tensorrt": WORDS
    | {"files", "logger", "graph", "passes", "backends.base", "backends.torch"},
    "backends.registry": {"backends.base", "backends.torch", "backends.tensorrt"},
    # A tensor computes its values with the torch backend, whose storage they are.
    "tensor": WORDS | {"graph", "backends.torch"},
    "types": {"tensor"},
    "ops": WORDS | {"graph", "backends.torch", "tensor", "types"},
    "nn": WORDS | {"graph", "backends.torch", "tensor", "types", "ops"},
    "stream": WORDS | {"backends.torch"},
    "structure": WORDS,
    "input_info": WORDS | {"tensor"},
    "report": {"backends.base"},
    "saving": WORDS
    | {"files", "graph", "backends.registry", "backends.torch", "structure", "input_info"},
    "executable": WORDS
    | {"graph", "backends.base", "tensor", "stream", "structure", "input_info", "report", "saving"},
    "recording": WORDS | {"graph", "tensor", "structure", "input_info"},
    "compiler": WORDS
    | {"logger", "graph", "backends.base", "backends.registry", "tensor", "structure", "recording"}
    | {"executable"},
    "generation": WORDS
    | {"logger", "graph", "backends.torch", "tensor", "structure", "executable"},
}
ROOMS["quantization"] = WORDS | {"files", "logger", "tensor", "ops", "nn"}
ROOMS["quantization.__main__"] = {"errors", "quantization"}
ROOMS[""] = set(ROOMS) - {
    "quantization",
    "quantization.__main__",
}  # tripy/__init__.py, which is the public API.
ROOMS["__main__"] = set(ROOMS)

# Other packages that a room may import; the standard library is open to all.
LIBRARIES: dict[str, set[str]] = {
    "config": {"torch"},  # To ask whether there is a GPU.
    "backends.torch": {"torch", "numpy"},
    "backends.tensorrt": {"torch", "safetensors"},
    "stream": {"torch"},
    "saving": {"torch", "safetensors"},
    "nn": {"numpy"},
    "quantization": {"torch", "numpy", "safetensors"},
    "quantization.__main__": {"torch"},
    "__main__": {"torch", "numpy", "safetensors"},
}
# What may be missing where tripy runs, and is therefore imported where it is used.
OPTIONAL = {"tensorrt", "tensorrt_rtx", "triton", "fcntl", "tqdm", "transformers"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    fitting = [room for room in ROOMS if room and (module + ".").startswith(room + ".")]
    return max(fitting, key=len, default="")


def is_optional(name: str) -> bool:
    """Whether an import may fail: of an optional package, or of a module that begins with one."""
    top, _, rest = name.partition(".")
    if top != "tripy":
        return top in OPTIONAL
    path = PACKAGE.joinpath(*rest.split(".")).with_suffix(".py")
    if not path.is_file():
        return False
    inner = ast.parse(path.read_text()).body
    needed = [n for node in inner for n, _ in imports(ast.Module([node], []), files=True)
              if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]  # fmt: skip
    return any(is_optional(n) for n in needed)


def imports(tree: ast.AST, files: bool = False) -> Iterator[tuple[str, int]]:
    """``(dotted name, line)`` of each import that runs; relative ones start with a dot.

    With ``files``, ``from tripy.a import b`` is ``tripy.a.b`` where that is a module.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(other, files)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            # `from tripy import dtypes` imports a module, `from tripy.dtypes import int8` a name.
            names = (f"{start}.{alias.name}" for alias in node.names)
            for name in names:
                path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
                whole = start == "tripy" or (files and start[:6] == "tripy." and path.is_file())
                yield name if whole else start, node.lineno
        else:
            yield from imports(node, files)


def problems(path: Path) -> Iterator[str]:
    module = name_of(path)
    room = room_of(module)
    if not room and module:
        yield f"{path.name} belongs to no room of the table"
        return
    for name, line in imports(ast.parse(path.read_text())):
        place = f"{path.relative_to(ROOT)}:{line}"
        if name.startswith("."):
            yield f"{place} imports by a relative name"
            continue
        top, _, rest = name.partition(".")
        if top == "tripy":
            other = room_of(rest)
            if other not in ROOMS[room] | {room}:
                yield f"{place} imports {name}: the room '{room}' may not import '{other}'"
        elif top in {"torch", "numpy", "safetensors"} and top not in LIBRARIES.get(room, ()):
            yield f"{place} imports {top}, which the room '{room}' may not"


@pytest.mark.parametrize("path", MODULES, ids=[name_of(p) or "tripy" for p in MODULES])
def test_module_imports_only_what_its_room_may(path):
    assert not list(problems(path))


def test_no_row_names_a_later_row():
    order = list(ROOMS)
    for room, others in ROOMS.items():
        if room not in ("", "__main__"):
            assert all(order.index(other) < order.index(room) for other in others), room


@pytest.mark.parametrize("path", MODULES, ids=[name_of(p) or "tripy" for p in MODULES])
def test_functions_import_only_optional_dependencies(path):
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            wrong = {name for name, _ in imports(function, files=True) if not is_optional(name)}
            assert not wrong, f"{function.name} imports {wrong}"


def test_what_needs_an_optional_dependency_is_known():
    assert is_optional("triton.language") and not is_optional("torch")
    assert is_optional("tripy.backends.torch.kernels.cuda.gemm")
    assert not is_optional("tripy.backends.torch.kernels.cuda.packing")


def test_examples_and_benchmarks_use_the_public_api_only():
    for folder in ("examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, line in imports(ast.parse(path.read_text())):
                inner = name.startswith("tripy.") and name != "tripy.quantization"
                assert not inner, f"{path.relative_to(ROOT)}:{line} imports {name}"
