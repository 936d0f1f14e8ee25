"""What runs a compiled function: the answer to 'which layers are really quantized'."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tripy.backends.base import ReportRow


class Report:
    """How each fused or quantized node of a compiled function runs.

    Attributes:
        backend: The backend, its device and why it was chosen.
        rows: One for each node, in the order in which they run.
        engine_bytes: Bytes that all weights in a TensorRT engine take, by the builder's own
            account; 0 of other backends.
    """

    def __init__(self, backend: str, rows: Sequence[ReportRow], engine_bytes: int = 0) -> None:
        self.backend, self.rows, self.engine_bytes = backend, list(rows), engine_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes that the listed layers' weights take."""
        return sum(row.weight_bytes for row in self.rows)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(
            {
                "backend": self.backend,
                "rows": [row._asdict() for row in self.rows],
                "engine_bytes": self.engine_bytes,
            }
        )

    def __str__(self) -> str:
        header = ("name", "operation", "kernel", "weight bytes", "reason")
        table = [header] + [
            (r.name, r.operation, r.kernel, f"{r.weight_bytes:,}" if r.weight_bytes else "-",
             r.reason)
            for r in self.rows
        ]  # fmt: skip
        widths = [max(len(row[i]) for row in table) for i in range(len(header))]
        lines = [f"backend: {self.backend}"]
        for row in table if self.rows else []:
            lines.append("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())
        if self.engine_bytes:
            lines.append(f"the engine's weights take {self.engine_bytes:,} bytes")
        if not self.rows:
            lines.append("no fused or quantized operations")
        return "\n".join(lines)

    __repr__ = __str__
