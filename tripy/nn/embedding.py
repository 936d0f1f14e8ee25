"""The lookup table of vectors."""

from __future__ import annotations

from tripy import dtypes, ops
from tripy.errors import TripyException
from tripy.nn import checks
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.ops import arguments
from tripy.tensor import Tensor


class Embedding(Module):
    """A row of a table for each id.

    Args:
        num_embeddings: The number of rows.
        embedding_dim: The size of a row.
        dtype: float32, float16 or bfloat16.

    Attributes:
        weight: [num_embeddings, embedding_dim].

    Raises:
        TripyException: For sizes below 1 and other data types.

    Example:
        >>> import tripy as tp
        >>> embedding = tp.Embedding(3, 2)
        >>> embedding.weight = tp.Tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> embedding(tp.Tensor([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    weight: Parameter

    def __init__(
        self, num_embeddings: int, embedding_dim: int, dtype: dtypes.dtype = dtypes.float32
    ) -> None:
        self.num_embeddings = checks.size("Embedding", num_embeddings, "num_embeddings")
        self.embedding_dim = checks.size("Embedding", embedding_dim, "embedding_dim")
        self.dtype = checks.floating("Embedding", dtype)
        self._declare("weight", Declaration((num_embeddings, embedding_dim), (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Look up ids.

        Args:
            x: Ids, an int32 or int64 tensor of any shape.

        Returns:
            [*x.shape, embedding_dim].

        Raises:
            TripyException: For ids of another data type, and where they are on the host for ids
                that are not rows of the table.

        Example:
            >>> import tripy as tp
            >>> embedding = tp.Embedding(10, 4)
            >>> embedding.initialize_dummy_parameters()
            >>> embedding(tp.zeros((2, 3), dtype=tp.int32)).shape
            (2, 3, 4)
        """
        arguments.tensor("Embedding", x, "the input")
        if x.dtype not in dtypes.INTS:
            raise TripyException(
                "Embedding: the ids are not integers.",
                got=x._value.type_text,
                expected=f"int32 or int64: ids from 0 to {self.num_embeddings - 1}",
                hint="tp.cast(ids, tp.int32)",
                tensors=[("the ids", x)],
            )
        return ops.gather(self.weight, 0, x)
