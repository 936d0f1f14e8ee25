"""The table of test cases, one family a file."""

from tests.ops.cases import create as create
from tests.ops.cases import elementwise as elementwise
from tests.ops.cases import linear_algebra as linear_algebra
from tests.ops.cases import movement as movement
from tests.ops.cases import quantization as quantization
from tests.ops.cases import reduction as reduction
from tests.ops.cases import spatial as spatial
from tests.ops.cases import tiling as tiling
from tests.ops.cases import user_plugins as user_plugins
from tests.ops.cases.table import CASES, Case, Draw, Sample

__all__ = ["CASES", "Case", "Draw", "Sample"]
