"""What tripy tells while it works: ``tp.logger``.

Everything goes to standard error. ``error``, ``warning``, ``info`` and ``verbose`` are degrees:
each shows those before it too. ``timing``, ``ir`` and ``trace`` are topics of the compiler, shown
only when they are asked for by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Union

from tripy import config
from tripy.errors import TripyException

DEGREES = ("error", "warning", "info", "verbose")
TOPICS = ("timing", "ir", "trace")

Verbosity = Union[str, Sequence[str]]
# A message, or what makes it, called only if the message is shown.
Message = Union[str, Callable[[], str]]

# TRIPY_DEBUG=n asks for the first n of these: stages, graphs, rewrites, kernels.
_DEBUG = ("timing", "ir", "trace", "verbose")


def _checked(verbosity: Verbosity) -> tuple[str, ...]:
    is_one = isinstance(verbosity, str) or not isinstance(verbosity, Iterable)
    names = (verbosity,) if is_one else tuple(verbosity)
    unknown = [name for name in names if name not in DEGREES + TOPICS]
    if unknown:
        raise TripyException(
            "logger: there is no such verbosity.",
            got=", ".join(map(repr, unknown)),
            expected="one or several of " + ", ".join(DEGREES + TOPICS),
        )
    return names  # type: ignore[return-value]  # All are texts.


class Logger:
    """Prints, to standard error, what it was asked to print.

    ``error``, ``warning``, ``info`` and ``verbose`` are degrees: each shows those before it too.
    ``verbose`` tells which backend and which kernels were chosen, and why. The compiler's topics
    are shown only where they are named: ``timing`` (how long each stage takes), ``ir`` (the graph
    before the first pass and after each that changed it) and ``trace`` (the function as recorded,
    and each rewrite).

    Example:
        >>> import tripy as tp
        >>> with tp.logger.use_verbosity(["warning", "timing"]):
        ...     print(tp.logger.verbosity)
        ('warning', 'timing')
        >>> tp.logger.verbosity
        ('info',)
    """

    def __init__(self) -> None:
        self.verbosity = ("info", *_DEBUG[: config.debug])

    @property
    def verbosity(self) -> tuple[str, ...]:
        """What is shown; may be set to a name or several. Topics alone leave the degree at info."""
        return self._verbosity

    @verbosity.setter
    def verbosity(self, verbosity: Verbosity) -> None:
        names = _checked(verbosity)
        degree = max((DEGREES.index(n) for n in names if n in DEGREES), default=2)
        self._shown = {*DEGREES[: degree + 1], *names}
        self._verbosity = names

    def use_verbosity(self, verbosity: Verbosity) -> AbstractContextManager[Logger]:
        """Another verbosity, for all threads, until the ``with`` block ends.

        Args:
            verbosity: A name or several.

        Example:
            >>> import tripy as tp
            >>> with tp.logger.use_verbosity("ir"):
            ...     fast = tp.compile(lambda x: x + 1, args=[tp.InputInfo((2,), tp.float32)])
        """
        return self._use(_checked(verbosity))

    @contextmanager
    def _use(self, verbosity: tuple[str, ...]) -> Iterator[Logger]:
        before = self.verbosity
        self.verbosity = verbosity
        try:
            yield self
        finally:
            self.verbosity = before

    def enabled(self, name: str) -> bool:
        """Whether a degree or topic is shown."""
        return name in self._shown

    def log(self, name: str, message: Message) -> None:
        """Print a message, if its degree or topic is shown."""
        if name in self._shown:
            text = message if isinstance(message, str) else message()
            # One call, so that lines of several threads do not mix.
            sys.stderr.write("".join(f"[{name}] {line}\n" for line in text.splitlines()))

    def error(self, message: Message) -> None:
        """Something has failed."""
        self.log("error", message)

    def warning(self, message: Message) -> None:
        """Something is probably not as it was meant."""
        self.log("warning", message)

    def info(self, message: Message) -> None:
        """Something that a user wants to know."""
        self.log("info", message)

    def verbose(self, message: Message) -> None:
        """What was decided, and why."""
        self.log("verbose", message)

    def timing(self, message: Message) -> None:
        """How long a stage has taken."""
        self.log("timing", message)

    def ir(self, message: Message) -> None:
        """A graph."""
        self.log("ir", message)

    def trace(self, message: Message) -> None:
        """A function as recorded, or a step of a rewrite."""
        self.log("trace", message)


logger = Logger()
