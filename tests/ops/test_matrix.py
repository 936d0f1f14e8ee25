"""The random test matrix: every public function in every data type, eager and compiled.

And every data type that the API does not name is refused, with the line of the user's program.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import helpers
from tests.ops.cases import CASES, Case, Draw


def _rows(accepted: bool) -> list:
    rows = []
    for position, case in enumerate(CASES):
        kinds = helpers.types_of(case.types)
        for dtype in helpers.ALL:
            if (dtype in kinds) == accepted:
                rows.append(pytest.param(case, dtype, id=f"{case.name}-{dtype}-{position}"))
    return rows


@pytest.mark.parametrize(("case", "dtype"), _rows(accepted=True))
@given(data=st.data())
def test_values(case: Case, dtype, data):
    sample = case.build(Draw(data), dtype)
    helpers.check(sample.function, *sample.tensors, reference=sample.reference, **sample.options)


@pytest.mark.parametrize(("case", "dtype"), _rows(accepted=False))
def test_other_types_are_refused(case: Case, dtype):
    @given(data=st.data())
    @helpers.once
    def run(data):
        sample = case.build(Draw(data), dtype)
        with helpers.raises("data type|cannot be cast"):
            sample.function(*sample.tensors)

    run()
