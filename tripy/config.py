"""Settings that the user may change: ``tp.config.name = value``."""

from __future__ import annotations

import os
import tempfile
from typing import Optional

from tripy.device import device

# Whether operations check their arguments' types and devices. Off saves about a microsecond an
# operation; wrong arguments then fail later and less clearly.
enable_input_validation: bool = True

# Where the TensorRT backend keeps measured timings between builds.
timing_cache_file_path: str = os.path.join(tempfile.gettempdir(), "tripy-timing-cache")

# Extra sections of error messages: "" or any of "graph" (the operation's node).
extra_error_information: list[str] = []

# Where new tensors live; None picks the GPU where PyTorch sees one, else the CPU. The
# environment variable TRIPY_DEVICE overrides it.
default_device: Optional[device] = None

# Tracing, printing and checking, from the environment: see docs.
verify: bool = os.environ.get("TRIPY_VERIFY", "0") not in ("", "0")
debug: int = int(os.environ.get("TRIPY_DEBUG", "0") or 0)
