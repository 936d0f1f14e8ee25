"""What ``generate`` is given, checked before anything runs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Optional

from tripy.backends.torch.generation import Step
from tripy.dtypes import floating, int32
from tripy.errors import TripyException
from tripy.executable import Executable
from tripy.graph import dims
from tripy.structure import Leaf, Structure
from tripy.tensor import Tensor

_MEANING = {
    "prefill": "prefill(tokens [batch, length], lengths [batch], caches) -> "
    "(logits [batch, vocabulary], caches), tokens and lengths int32",
    "decode": "decode(tokens [batch], position [batch], caches) -> "
    "(logits [batch, vocabulary], caches), tokens and position int32",
}
_WRITES = ("kv_cache_update", "append_and_attend")


class Roles(NamedTuple):
    """Where the parts of a function's results are."""

    logits: int
    caches: list[int]
    vocabulary: int


class Bound(NamedTuple):
    """A function with arguments that it accepts."""

    executable: Executable
    tensors: list[Any]
    sizes: dict[str, int]
    roles: Roles

    def step(self, *replaced: Any) -> Step:
        """It as a step; ``replaced`` is what it takes in place of its first arguments."""
        arguments = [*replaced, *self.tensors[len(replaced) :]]
        program, sizes = self.executable._program, self.sizes
        caches = list(zip(arguments[2:], self.roles.caches))
        return Step(lambda: program.run(arguments, sizes), self.roles.logits, caches)


def refused(summary: str, got: Any, expected: Any, hint: Optional[str] = None) -> TripyException:
    return TripyException(f"generate: {summary}", got=got, expected=expected, hint=hint)


def functions(prefill: Any, decode: Any) -> tuple[Roles, Roles]:
    """What the functions' results are, after checking that they are of their kind and fit."""
    found = _function("prefill", prefill, 2), _function("decode", decode, 1)
    if decode.device != prefill.device:
        raise refused(
            "prefill and decode run on different devices.",
            f"{prefill.device} and {decode.device}", "one device", "tp.compile(..., device=...)",
        )  # fmt: skip
    sizes = [roles.vocabulary for roles in found]
    if sizes[0] != sizes[1]:
        raise refused(
            "prefill and decode have different vocabularies.",
            f"logits of {sizes[0]} and of {sizes[1]} tokens", "one vocabulary",
        )  # fmt: skip
    return found


def _function(name: str, executable: Any, rank: int) -> Roles:
    if not isinstance(executable, Executable):
        raise refused(
            f"{name} is not a compiled function.",
            f"{executable!r:.80} of type {type(executable).__name__}",
            "what tp.compile returns", f"tp.compile({name}, args=[...])",
        )  # fmt: skip
    inputs, outputs = executable._inputs, executable.graph.outputs
    structures = list(executable._structures.values())

    def wrong(what: str) -> TripyException:
        return refused(f"{name}: {what}.", f"{executable.__signature__}", _MEANING[name])

    if len(structures) != 3:
        raise wrong(f"it takes {len(structures)} arguments at run time, not 3")
    for structure, wanted in zip(structures, (rank, 1)):
        value = inputs[structure.index] if isinstance(structure, Leaf) else None
        if value is None or value.dtype is not int32 or len(value.shape) != wanted:
            what = value.type_text if value is not None else f"a {structure.kind}"
            raise wrong(f"{structure.path} is {what}, not an int32 tensor of rank {wanted}")
    result = executable._result
    parts = list(result.children.values())
    if result.kind not in ("tuple", "list") or len(parts) != 2 or not isinstance(parts[0], Leaf):
        raise wrong("its result is no pair of logits and caches")
    logits = outputs[parts[0].index]
    if len(logits.shape) != 2 or not issubclass(logits.dtype, floating):
        raise wrong(f"its logits are {logits.type_text}, not a float tensor of rank 2")
    vocabulary = logits.shape[1]
    if not isinstance(vocabulary, int):
        raise wrong(f"its vocabulary has no fixed size, but {vocabulary}")
    pairs = _pairs(structures[2], parts[1], wrong)
    for leaf, other in pairs:
        before, after = inputs[leaf.index], outputs[other.index]
        if before.dtype is not after.dtype or len(before.shape) != len(after.shape):
            raise wrong(f"{leaf.path} is {before.type_text} and comes back as {after.type_text}")
    return Roles(parts[0].index, [other.index for _, other in pairs], vocabulary)


def _pairs(
    before: Structure, after: Structure, wrong: Callable[[str], TripyException]
) -> list[tuple[Leaf, Leaf]]:
    """Each tensor in a structure, in order, with the one in its place in another structure."""
    if isinstance(before, Leaf) and isinstance(after, Leaf):
        return [(before, after)]
    inner = {key: child for key, child in before.children.items() if child.kind != "baked"}
    same_kind = (before.kind == "dict") == (after.kind == "dict")
    if before.kind in ("tensor", "size") or not same_kind or set(inner) != set(after.children):
        raise wrong(f"{before.path}, the caches, comes back in another structure")
    nested = (_pairs(child, after.children[key], wrong) for key, child in inner.items())
    return [pair for pairs in nested for pair in pairs]


def bind(executable: Executable, roles: Roles, arguments: tuple) -> Bound:
    """The function with its arguments, which are checked as when it is called."""
    executable._program.require_usable()
    tensors, shapes, _ = executable._bind(arguments, {})
    return Bound(executable, tensors, executable._check_sizes(shapes), roles)


def least_length(prefill: Executable) -> int:
    """The shortest prompt that was compiled for: shorter ones are padded."""
    structure = next(iter(prefill._structures.values()))
    info: Any = prefill.input_infos[structure.path]
    return info.shape_bounds[1].min


def room(bound: Bound, needed: int, asked: str, hint: str) -> None:
    """Whether the caches have room for as many positions as are written."""
    for node in bound.executable.graph.nodes():
        cache = node.inputs[0] if node.op in _WRITES else None
        capacity = needed if cache is None else dims.evaluate(cache.shape[2], bound.sizes)
        if needed > capacity:
            raise refused(
                "the cache has no room for so many tokens.", f"{asked}: {needed} positions",
                f"at most {capacity}, the capacity of the cache", hint,
            )  # fmt: skip


def apart(bound: Bound) -> None:
    """Whether every cache has memory of its own."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in bound.tensors[2:] if t.nbytes)
    if any(after[0] < before[1] for before, after in pairwise(spans)):
        raise refused(
            "two caches share memory, and would overwrite each other.",
            "one tensor twice, or views of one", "caches that each have memory of their own",
            "tp.zeros(shape) for each of them",
        )  # fmt: skip


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # numpy's too


def _described(value: Any) -> str:
    return f"{value!r:.80} of type {type(value).__name__}"


def integer(name: str, value: Any, least: int, most: Optional[int] = None) -> int:
    """An int within limits."""
    number = int(value) if _is_integer(value) else least - 1
    if number < least or (most is not None and number > most):
        limits = f"{least} or more" if most is None else f"from {least} to {most}"
        raise refused(
            f"{name} is no number that can be used.", _described(value), f"an int, {limits}"
        )
    return number


def temperature(value: Any) -> float:
    """A finite number, 0 or more."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise refused(
            "temperature is no number that can be used.", _described(value), "a number, 0 or more"
        )
    return float(number)


def tokens(name: str, values: Any, vocabulary: int) -> list[int]:
    """Tokens of the vocabulary, as Python's ints."""
    if isinstance(values, Tensor) or not hasattr(values, "__iter__"):
        raise refused(f"{name} is no list of tokens.", _described(values), "a sequence of ints")
    items = list(values)
    wrong = [v for v in items if not _is_integer(v) or not 0 <= int(v) < vocabulary]
    if wrong:
        got = ", ".join(f"{v!r:.20}" for v in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        raise refused(
            f"{name} has tokens that are not in the vocabulary.", got,
            f"ints from 0 to {vocabulary - 1}",
        )  # fmt: skip
    return [int(v) for v in items]


def prompts(given: Any, vocabulary: int) -> list[list[int]]:
    """The tokens of each row."""
    if isinstance(given, (str, bytes, dict, Tensor)) or not hasattr(given, "__len__"):
        raise refused(
            "prompts is no list of prompts.", _described(given), "the tokens of each row",
            "[tokens]",
        )  # fmt: skip
    rows = list(given)
    if rows and _is_integer(rows[0]):
        raise refused(
            "prompts is one row of tokens.", f"{given!r:.80}", "the tokens of each row", "[prompt]"
        )
    found = [tokens(f"prompts[{i}]", row, vocabulary) for i, row in enumerate(rows)]
    if not all(found) or not found:
        empty = [i for i, row in enumerate(found) if not row]
        got = f"prompts[{empty[0]}] without tokens" if empty else "no prompts"
        raise refused("there is nothing to go on from.", got, "at least one token for each row")
    return found


def row_ids(given: Optional[Sequence[int]], rows: int) -> list[int]:
    """An int32 for each row."""
    if given is None:
        return list(range(rows))
    found: list[Any] = list(given) if hasattr(given, "__iter__") else [None]
    if len(found) != rows or not all(_is_integer(i) and 0 <= i < 2**31 for i in found):
        expected = f"{rows} ints from 0 to {2**31 - 1}, one for each prompt"
        raise refused("row_ids do not fit the prompts.", f"{given!r:.80}", expected)
    return [int(i) for i in found]
