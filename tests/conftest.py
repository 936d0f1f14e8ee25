"""Settings of all tests: every graph is verified after every pass, and nothing is random twice."""

import os
import sys
from pathlib import Path

# Before tripy is imported: it reads its settings then.
os.environ.setdefault("TRIPY_VERIFY", "1")
# The tests' device, also where a test resets tp.config.default_device: on machines with a GPU too.
os.environ.setdefault("TRIPY_DEVICE", "cpu")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in [str(ROOT)] if path not in sys.path]

import hypothesis  # noqa: E402
import pytest  # noqa: E402

import tripy as tp  # noqa: E402

pytest.register_assert_rewrite("tests.helpers")

# Data in lists and initializers lives where the tests run.
tp.config.default_device = tp.device(os.environ.get("TRIPY_DEVICE", "cpu"))

hypothesis.settings.register_profile(
    "tests",
    max_examples=int(os.environ.get("TRIPY_EXAMPLES", "10")),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def rng():
    """A numpy random generator, the same in every run."""
    import numpy as np  # noqa: PLC0415  (only tests that ask for it need it)

    return np.random.default_rng(0)
