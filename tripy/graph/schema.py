"""Operation schemas: the one place that knows each operation's types and shapes.

A schema is written as a signature and a shape function::

    @operation("matmul", "lhs: T, rhs: T -> T", T=FLOATS)
    def matmul(ctx):
        ...
        return shape

In the signature, ``T`` is a type variable: all inputs that name it have the same data type, one of
those given. ``Any`` is none: each input that names it has a type of its own. ``name: T?`` may be
left out, ``names: T*`` stands for any number of inputs. An output is a type variable, a data type's
name, or ``@attribute`` for a type given as an attribute, whose types are listed under its name, as
those of a variable are; where the attribute is a tuple, it has one type for each output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Union

from tripy import dtypes
from tripy.errors import Location, TripyException
from tripy.graph import dims
from tripy.graph.dims import Dim
from tripy.graph.ir import Constraint, Node, Value

Shape = tuple[Dim, ...]

SCHEMAS: dict[str, Schema] = {}


class Input(NamedTuple):
    """One input of an operation."""

    name: str
    type: str
    optional: bool
    variadic: bool


class Schema(NamedTuple):
    """What is known of an operation.

    Attributes:
        name: The operation.
        inputs: Its inputs, with type variables.
        outputs: Its outputs' types: a variable, a data type's name or ``@attribute``.
        types: The data types each variable stands for, and those that an attribute may be.
        infer: ``infer(ctx)`` gives the output's shape, or a list of shapes for several outputs.
        internal: Whether only rewrites make it.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    types: dict[str, tuple[dtypes.dtype, ...]]
    infer: Callable[[Inference], Union[Shape, list[Shape]]]
    internal: bool = False

    def input_types(self, name: str) -> tuple[dtypes.dtype, ...]:
        """The data types that the named input may have."""
        (found,) = (i for i in self.inputs if i.name == name)
        return self.types[found.type]


def operation(
    name: str, signature: str, *, internal: bool = False, **types: Sequence[dtypes.dtype]
) -> Callable:
    """Register a schema; decorates the operation's shape function."""

    def register(infer: Callable) -> Callable:
        left, right = signature.split("->")
        inputs = []
        for text in filter(None, (part.strip() for part in left.split(","))):
            parsed = re.fullmatch(r"(\w+): (\w+)([?*]?)", text)
            assert parsed is not None, text
            input_name, type_name, suffix = parsed.groups()
            inputs.append(Input(input_name, type_name, suffix == "?", suffix == "*"))
        table = {key: tuple(value) for key, value in types.items()}
        for each in inputs:
            if each.type in dtypes.BY_NAME:
                table[each.type] = (dtypes.BY_NAME[each.type],)
        outputs = tuple(part.strip() for part in right.split(","))
        SCHEMAS[name] = Schema(name, tuple(inputs), outputs, table, infer, internal)
        return infer

    return register


class Inference:
    """What a shape function works with: the inputs, the attributes, and ways to refuse them."""

    __slots__ = ("attrs", "constraints", "location", "op", "roles", "values")

    def __init__(
        self,
        op: str,
        values: Sequence[Optional[Value]],
        roles: Sequence[str],
        attrs: dict[str, Any],
        location: Optional[Location],
    ) -> None:
        self.op, self.values, self.roles, self.attrs = op, values, roles, attrs
        self.location = location
        self.constraints: list[Constraint] = []

    def shape(self, index: int = 0) -> Shape:
        return self.values[index].shape  # type: ignore[union-attr]

    def rank(self, index: int = 0) -> int:
        return len(self.shape(index))

    def has(self, index: int) -> bool:
        return index < len(self.values) and self.values[index] is not None

    def fail(
        self, summary: str, got: Any = None, expected: Any = None, hint: Any = None
    ) -> TripyException:
        """The error for these inputs; by default it lists their types."""
        if got is None:
            got = self.describe_inputs()
        return TripyException(
            f"{self.op}: {summary}",
            got=got,
            expected=expected,
            hint=hint,
            tensors=[(r, v) for r, v in zip(self.roles, self.values) if v is not None],
            location=self.location,
        )

    def describe_inputs(self) -> str:
        return ", ".join(
            f"{r}: {v.type_text}" for r, v in zip(self.roles, self.values) if v is not None
        )

    def axis(self, dim: int, rank: Optional[int] = None, name: str = "dim") -> int:
        """``dim`` counted from 0, after checking that it is one of ``rank`` dimensions."""
        rank = self.rank() if rank is None else rank
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise self.fail(f"{name} is not an integer.", got=repr(dim), expected="an integer")
        if not -rank <= dim < rank:
            raise self.fail(
                f"{name} is out of range.",
                got=f"{name}={dim} "
                + (f"with {self.describe_inputs()}" if self.values else f"for {rank} dimensions"),
                expected=f"{-rank} <= {name} < {rank}" if rank else "a tensor of rank 1 or more",
            )
        return dim % rank

    def equal(self, left: Dim, right: Dim, what: str, expected: Any = None) -> Dim:
        """Require two sizes to be equal: now if that can be told, else at run time."""
        if left == right:
            return left
        (low, high), (low2, high2) = dims.bounds(left), dims.bounds(right)
        if high < low2 or high2 < low:
            raise self.fail(what, expected=expected or f"{left} == {right}")
        self.constraints.append(Constraint("==", left, right, f"{self.op}: {what}", self.location))
        return left if isinstance(left, int) else right

    def at_most(self, left: Dim, right: Dim, what: str, expected: Any = None) -> None:
        """Require ``left <= right``: now if that can be told, else at run time."""
        if dims.at_least(right, left):
            return
        if not dims.at_least(dims.bounds(right)[1], dims.bounds(left)[0]):
            raise self.fail(what, expected=expected or f"{left} <= {right}")
        self.constraints.append(Constraint("<=", left, right, f"{self.op}: {what}", self.location))

    def broadcast_to(self, shape: Shape, target: Shape, what: str, expected: Any = None) -> None:
        """Require that a shape can be broadcast to another one, which is the result's."""
        if len(shape) > len(target):
            raise self.fail(what, expected=expected)
        for own, size in zip(shape, target[len(target) - len(shape) :]):
            low, high = dims.bounds(own)
            if own in (1, size):
                continue
            if not low <= 1 <= high:
                self.equal(own, size, what, expected)
                continue
            # It may be 1 at run time, and then fits everything.
            either = dims.Expr.of(dims.Call("broadcast", (own, size)))
            self.constraints.append(
                Constraint("==", either, size, f"{self.op}: {what}", self.location)
            )

    def broadcast(self, *shapes: Shape) -> Shape:
        """The shape of operands that are broadcast against each other, by numpy's rules."""
        result: list[Dim] = []
        for offset in range(1, max(map(len, shapes), default=0) + 1):
            size: Dim = 1
            for shape in shapes:
                if offset > len(shape):
                    continue
                other = shape[-offset]
                if size == other or other == 1:
                    continue
                if size == 1:
                    size = other
                    continue
                size = self._broadcast_pair(size, other, shapes)
            result.append(size)
        return tuple(reversed(result))

    def _broadcast_pair(self, left: Dim, right: Dim, shapes: Sequence[Shape]) -> Dim:
        what = "the shapes cannot be broadcast together."
        expected = "sizes that are equal or 1, counted from the last dimension"
        (low, high), (low2, high2) = dims.bounds(left), dims.bounds(right)
        may_be_one = low <= 1 <= high or low2 <= 1 <= high2
        if (high < low2 or high2 < low) and not may_be_one:
            raise self.fail(what, expected=expected)
        self.constraints.append(
            Constraint("broadcast", left, right, f"{self.op}: {what}", self.location)
        )
        return dims.broadcast(left, right)


def infer_node(
    op: str,
    values: Sequence[Optional[Value]],
    attrs: dict[str, Any],
    location: Optional[Location],
    validate: bool = True,
) -> tuple[list[dtypes.dtype], list[Shape], list[Constraint]]:
    """Check an operation's inputs and give its outputs' types, shapes and open constraints."""
    schema = SCHEMAS[op]
    inputs = schema.inputs
    if inputs and inputs[-1].variadic:
        inputs = inputs[:-1] + tuple(
            Input(f"{inputs[-1].name}[{i}]", inputs[-1].type, False, True)
            for i in range(len(values) - len(inputs) + 1)
        )
    bound: dict[str, tuple[str, dtypes.dtype]] = {}
    ctx = Inference(op, values, [i.name for i in inputs], attrs, location)
    for each, value in zip(inputs, values):
        if value is None:
            continue
        if validate and value.dtype not in schema.types[each.type]:
            raise ctx.fail(
                f"{each.name} has an unsupported data type.",
                got=f"{each.name}: {value.type_text}",
                expected=dtypes.listed(schema.types[each.type]),
                hint=f"tp.cast({each.name}, ...)",
            )
        if each.type == "Any":
            continue
        first = bound.setdefault(each.type, (each.name, value.dtype))
        if validate and first[1] is not value.dtype:
            raise ctx.fail(
                f"{first[0]} and {each.name} have different data types.",
                expected="one data type for both",
                hint=f"tp.cast({each.name}, tp.{first[1]})",
            )
    shapes = schema.infer(ctx)
    if not isinstance(shapes, list):
        shapes = [shapes]
    kinds = schema.outputs * len(shapes) if len(schema.outputs) == 1 else schema.outputs
    if validate:
        _check_attributes(ctx, schema)
    types = []
    for position, kind in enumerate(kinds):
        if kind.startswith("@"):
            given = attrs[kind[1:]]
            types.append(given[position] if isinstance(given, tuple) else given)
        else:
            types.append(dtypes.BY_NAME[kind] if kind in dtypes.BY_NAME else bound[kind][1])
    return types, shapes, ctx.constraints


def _check_attributes(ctx: Inference, schema: Schema) -> None:
    """Refuse a data type given as an attribute that is not one of those it may be."""
    for kind in schema.outputs:
        accepted = schema.types.get(kind[1:]) if kind.startswith("@") else None
        given = ctx.attrs[kind[1:]] if kind.startswith("@") else ()
        asked = given if isinstance(given, tuple) else (given,)
        if accepted is not None and any(each not in accepted for each in asked):
            raise ctx.fail(
                "the data type is not supported.",
                got=f"{kind[1:]}={ctx.attrs[kind[1:]]}",
                expected=dtypes.listed(accepted),
            )


def make_node(
    op: str,
    inputs: Sequence[Optional[Value]],
    attrs: dict[str, Any],
    location: Optional[Location] = None,
    device: Any = None,
    validate: bool = True,
) -> Node:
    """A checked node with its outputs; they live on ``device``, or where the inputs live."""
    types, shapes, constraints = infer_node(op, inputs, attrs, location, validate)
    node = Node(op, inputs, attrs, location, tuple(constraints))
    if device is None:
        device = next(v.device for v in inputs if v is not None)
    node.outputs = [
        Value(t, s, device, node, i, location=location)
        for i, (t, s) in enumerate(zip(types, shapes))
    ]
    return node
