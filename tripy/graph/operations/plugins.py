"""Schema of operations that a user has written: what is known of them was told at recording."""

from __future__ import annotations

from tripy.dtypes import ALL
from tripy.graph.schema import Inference, Shape, operation


@operation("plugin", "inputs: Any* -> @dtypes", Any=ALL, dtypes=ALL)
def _plugin(ctx: Inference) -> list[Shape]:
    """Attributes name and version; attributes, pairs of a name and a value; shapes; dtypes.

    Shapes may hold sizes that are known only at run time, in terms of the inputs' sizes.
    """
    return list(ctx.attrs["shapes"])
