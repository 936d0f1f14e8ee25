"""A build while it runs: how far it is, the memory it holds, and the user who stops it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from tripy.backends.torch import storage

# Builds that take longer show how far they are.
SILENT_SECONDS = 2.0


class Progress:
    """Passes a builder's steps on to a progress bar, and a wish to stop to the builder.

    Args:
        trt: The TensorRT module.

    Attributes:
        stop: Whether the builder shall end at its next step.
        monitor: The IProgressMonitor.
    """

    def __init__(self, trt: Any) -> None:
        self.stop = False
        self._start = time.monotonic()
        self._shown = False
        outer = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self.steps: dict[str, int] = {}

            def phase_start(self, name: str, parent: Optional[str], steps: int) -> None:
                self.steps[name] = steps
                # Copies of the weights come and go in phases. What one has freed and malloc keeps
                # would still be held when the next one allocates: up to a third of the peak.
                storage.give_memory_back()

            def step_complete(self, name: str, step: int) -> bool:
                outer.show(name, step + 1, self.steps.get(name, 0))
                return not outer.stop

            def phase_finish(self, name: str) -> None:
                self.steps.pop(name, None)
                storage.give_memory_back()

        self.monitor = Monitor()

    def show(self, phase: str, step: int, steps: int) -> None:
        """Show a step, where the build takes long and somebody looks."""
        seconds = time.monotonic() - self._start
        if seconds < SILENT_SECONDS or not sys.stderr.isatty():
            return
        self._shown = True
        sys.stderr.write(f"\r\x1b[Ktensorrt: {seconds:.0f} s, {phase} {step}/{steps}")
        sys.stderr.flush()

    def watch(self, work: Callable[[], Any]) -> Any:
        """Build in another thread, so that this one notices when the user stops it.

        Args:
            work: Calls the builder with this monitor.

        Returns:
            What the work gives.

        Raises:
            KeyboardInterrupt: When the user stops it. The builder has ended then: nobody else may
                use it before.
        """
        result: list[Any] = []
        begun, ended = threading.Event(), threading.Event()

        def target() -> None:
            begun.set()
            try:
                # Who stops it looks at `begun` after saying so: one of the two sees the other.
                result.append(KeyboardInterrupt() if self.stop else work())
            except BaseException as error:  # Passed on to the thread that waits.
                result.append(error)
            finally:
                ended.set()

        try:
            # All that waits is in here: an interrupt can come between any two lines.
            threading.Thread(target=target, name="tensorrt build").start()
            while not ended.wait(0.1):
                pass
        except KeyboardInterrupt:
            self._stop(begun, ended)
            raise
        finally:
            self._clear()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def _stop(self, begun: threading.Event, ended: threading.Event) -> None:
        """End the builder, whatever the user presses meanwhile."""
        while True:
            try:
                self.stop = True
                while begun.is_set() and not ended.wait(0.1):
                    pass
                return
            except KeyboardInterrupt:
                continue

    def _clear(self) -> None:
        """Take away what was shown."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
