"""The example's files import each other by name, as they do when it is run as a script."""

import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "nanogpt"
sys.path.insert(0, str(EXAMPLE))
