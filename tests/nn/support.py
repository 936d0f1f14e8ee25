"""What the tests of modules share."""

import re
from contextlib import contextmanager

import numpy as np

from tests.helpers import ROUNDING, raises


@contextmanager
def refused(*fragments, line=None):
    """As tests.helpers.raises, for a message that has all the fragments."""
    with raises(re.escape(fragments[0]), line) as caught:
        yield
    for fragment in fragments:
        assert fragment in str(caught.value)


def product_bound(left, right, dtype):
    """How far ``left @ right`` may be off in a data type, by the standard analysis.

    A sum of n products has an error of at most n * unit * sum(abs(products)), whatever its order
    (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3); a few roundings more are
    those of scales and of the result.
    """
    return (left.shape[-1] + 8) * ROUNDING[dtype] * (np.abs(left) @ np.abs(right))
