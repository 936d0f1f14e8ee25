"""Errors that lead a user back to the user's own line.

Where a tensor was made is recorded as a code object and an instruction offset, which costs about a
microsecond; file, line and columns are worked out only when a message is shown.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import CodeType
from typing import Any, NamedTuple, Optional

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

# Their functions written in Python call a tensor's protocols, such as __dlpack__, for the user.
_CALLERS = {"torch", "numpy", "jax", "cupy"}

# What tp.config.extra_error_information asks for.
extra_information: list[str] = []


class Location(NamedTuple):
    """An instruction of the user's program: where a tensor was made."""

    code: CodeType
    offset: int

    def span(self) -> tuple[int, int, Optional[int], Optional[int]]:
        """First line, last line, first column and end column (None where Python has none)."""
        if hasattr(self.code, "co_positions"):  # Python 3.11 and later know the columns.
            for index, position in enumerate(self.code.co_positions()):
                if index == self.offset // 2:
                    line, end_line, start, end = position
                    if line is not None:
                        return line, end_line or line, start, end
                    break
        for start_offset, end_offset, line in self.code.co_lines():
            if start_offset <= self.offset < end_offset and line is not None:
                return line, line, None, None
        return self.code.co_firstlineno, self.code.co_firstlineno, None, None

    def place(self) -> str:
        """``file:line``, as compilers write it."""
        return f"{self.code.co_filename}:{self.span()[0]}"

    def describe(self) -> str:
        """File, line, the source text and a caret under the expression."""
        line, end_line, start, end = self.span()
        header = f"  --> {self.code.co_filename}:{line} in {self.code.co_name}()"
        text = linecache.getline(self.code.co_filename, line).rstrip("\n")
        if not text.strip():
            return header
        indent = len(text) - len(text.lstrip())
        if start is None:
            begin, stop = indent, len(text)
        else:
            # Columns count bytes of UTF-8; a caret is placed by characters.
            raw = text.encode()
            begin = len(raw[:start].decode(errors="replace"))
            stop = len(raw[:end].decode(errors="replace")) if end_line == line else len(text)
        carets = " " * (begin - indent) + "^" * max(stop - begin, 1)
        number = str(line)
        gutter = " " * len(number)
        return f"{header}\n   {number} | {text.strip()}\n   {gutter} | {carets}"


class SavedLocation(NamedTuple):
    """A place in a program that is not here any more: what a saved file remembers of it."""

    text: str
    description: str

    def place(self) -> str:
        """``file:line``."""
        return self.text

    def describe(self) -> str:
        """File, line, the source text and a caret, as they were when the file was saved."""
        return self.description


def user_location() -> Optional[Location]:
    """The innermost instruction that is not inside tripy: the user's own line."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            module = frame.f_globals.get("__name__")
            if not isinstance(module, str) or module.partition(".")[0] not in _CALLERS:
                return Location(code, frame.f_lasti)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _library_frames() -> list[str]:
    """The calls inside tripy that have led here, the outermost first."""
    lines = []
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        file = os.path.relpath(frame.f_code.co_filename, os.path.dirname(_PACKAGE.rstrip(os.sep)))
        lines.append(f"  {file}:{frame.f_lineno} in {frame.f_code.co_name}()")
        frame = frame.f_back  # type: ignore[assignment]
    return ["", "Inside tripy:", *lines[:0:-1]] if len(lines) > 1 else []


class TripyException(Exception):
    """The one exception that tripy raises.

    Args:
        summary: One sentence that says what is wrong.
        got: What was passed.
        expected: What is accepted.
        hint: What to try.
        tensors: ``(role, tensor)`` pairs; the line that made each tensor is shown. A tensor is
            anything with a ``location``.
        location: The user's line for an error that concerns no tensor; by default the line that
            called tripy.

    Example:
        >>> import tripy as tp
        >>> try:
        ...     tp.ones((2, 3)) @ tp.ones((2, 3))
        ... except tp.TripyException as error:
        ...     print(str(error).splitlines()[0])
        matmul: the summed dimensions differ.
    """

    def __init__(
        self,
        summary: str,
        *,
        got: Any = None,
        expected: Any = None,
        hint: Any = None,
        tensors: Any = (),
        location: Optional[Location] = None,
    ) -> None:
        lines = [summary]
        for label, text in (("got", got), ("expected", expected), ("try", hint)):
            if text is not None:
                lines.append(f"  {label + ':':<10}{text}")
        here = location or user_location()
        shown = set()
        for role, tensor in tensors:
            place = getattr(tensor, "location", None)
            if place is None or (role, place) in shown:
                continue
            shown.add((role, place))
            lines += ["", f"{role} was made here:", place.describe()]
        if here is not None and here not in {place for _, place in shown}:
            lines += ["", "The error was raised here:", here.describe()]
        if "frames" in extra_information:
            lines += _library_frames()
        super().__init__("\n".join(lines))
        self.summary = summary
