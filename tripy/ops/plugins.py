"""Operations of a user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Union

from tripy import dtypes
from tripy.backends.torch.plugins import PLUGINS, Plugin, known_names, register
from tripy.errors import TripyException
from tripy.graph.dims import Dim
from tripy.ops import arguments
from tripy.tensor import Tensor, apply


def register_plugin(
    name: str, *, outputs: Callable[..., Any], version: str = "1"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an operation of your own, which :func:`plugin` then calls.

    It decorates a function that computes the operation on torch tensors: it takes the inputs in
    order and the attributes by name, and gives a tensor or a tuple of them. It must not write into
    its inputs. int4 is torch.int8 there.

    With the TensorRT backend, TensorRT's plugin of the same name and version computes it instead;
    it is registered with TensorRT (``tensorrt.plugin.register``, or a library of plugins).

    Args:
        name: ``"namespace::name"``.
        outputs: The rule for the results: called with the inputs in order, as Tensors that have no
            values, and the attributes by name. It gives a ``(shape, dtype)`` pair, or one of the
            inputs for its shape and data type, or a tuple of these for several results. A shape may
            be computed from the inputs' sizes, also those that are known only at run time.
        version: The version that TensorRT's plugin has.

    Returns:
        The decorator; it gives the function back as it is.

    Raises:
        TripyException: For names of another form, and a name that another function has.

    Example:
        >>> import tripy as tp
        >>> @tp.register_plugin("docs::halves", outputs=lambda x: (
        ...     ((x.shape[0] // 2,), x.dtype), ((x.shape[0] // 2,), x.dtype)))
        ... def halves(x):
        ...     return tuple(x.chunk(2))
        >>> first, second = tp.plugin("docs::halves", [tp.arange(4)])
        >>> second.tolist()
        [2.0, 3.0]
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w+::\w+", name):
        raise TripyException(
            "register_plugin: the name does not have the form of one.",
            got=f"name={name!r:.80}",
            expected='"namespace::name", of letters, digits and underscores',
        )
    if not callable(outputs) or not isinstance(version, str):
        raise TripyException(
            "register_plugin: the arguments do not fit.",
            got=f"outputs={outputs!r:.80}, version={version!r:.80}",
            expected="a function that gives shapes and data types, and a text",
            hint="outputs=lambda x: x for one result that is like the first input",
        )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function):
            raise TripyException(
                "register_plugin: what is decorated cannot be called.",
                got=f"{function!r:.80}",
                expected="a function on torch tensors",
            )
        register(Plugin(name, function, outputs, version))
        return function

    return decorate


def plugin(
    name: str, inputs: Sequence[Tensor], **attributes: Any
) -> Union[Tensor, tuple[Tensor, ...]]:
    """The results of an operation of your own.

    Args:
        name: ``"namespace::name"``, as it was registered by :func:`register_plugin`.
        inputs: The tensors that it takes; at least one.
        attributes: Numbers, bools, texts, and sequences of numbers, by the names that the function
            has for them.

    Returns:
        A tensor, or a tuple where its rule names several results.

    Raises:
        TripyException: For a name that is not registered, a rule that fails or gives something
            else, and, when it is computed, results that are not what the rule says.

    Example:
        >>> import tripy as tp
        >>> @tp.register_plugin("docs::scaled", outputs=lambda x, factor: x)
        ... def scaled(x, factor):
        ...     return x * factor
        >>> tp.plugin("docs::scaled", [tp.arange(3)], factor=2.0).tolist()
        [0.0, 2.0, 4.0]
    """
    if not isinstance(name, str) or name not in PLUGINS:
        known, hint = known_names(name if isinstance(name, str) else "")
        raise TripyException(
            f"plugin: {name!r:.80} is not registered.",
            got=f"name={name!r:.80}",
            expected=f"a registered name: {known}",
            hint=hint or f"@tp.register_plugin({name!r:.80}, outputs=...)",
        )
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise TripyException(
            "plugin: inputs is not a sequence of tensors.",
            got=f"inputs={inputs!r:.80}",
            expected="a list or tuple of one Tensor or more",
            hint="[tensor]" if isinstance(inputs, Tensor) else None,
        )
    tensors = [arguments.tensor("plugin", x, f"inputs[{i}]") for i, x in enumerate(inputs)]
    given = tuple((key, _attribute(key, value)) for key, value in attributes.items())
    found = PLUGINS[name]
    results = _declared(found, tensors, dict(given))
    attrs = {
        "name": name,
        "version": found.version,
        "attributes": given,
        "shapes": tuple(shape for shape, _ in results),
        "dtypes": tuple(kind for _, kind in results),
    }
    return apply("plugin", tensors, attrs)


def _attribute(name: str, value: Any) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_number(name, item, value) for item in value)
    return _number(name, value, value)


def _number(name: str, item: Any, value: Any) -> Any:
    if isinstance(item, (bool, int, float)):
        return item
    if not isinstance(item, Tensor) and getattr(item, "shape", None) == ():  # A number of numpy's.
        return _number(name, item.item(), value)
    raise TripyException(
        f"plugin: the attribute {name} is nothing that a plugin can be given.",
        got=f"{name}={value!r:.80}",
        expected="a number, a bool, a text, or a list or tuple of numbers",
        hint="tensors, and sizes that are known only at run time, are inputs",
    )


def _declared(
    plugin: Plugin, inputs: Sequence[Tensor], attributes: dict[str, Any]
) -> list[tuple[tuple[Dim, ...], dtypes.dtype]]:
    """The shapes and data types that a plugin's rule gives."""
    try:
        said = plugin.outputs(*inputs, **attributes)
    except TripyException:
        raise
    except Exception as error:  # Whatever a user's function raises.
        raise TripyException(
            f"plugin: the rule outputs= of {plugin.name} has failed: "
            f"{type(error).__name__}: {error}",
            got=", ".join([*(x._value.type_text for x in inputs), *map(repr, attributes)]),
            expected="a rule that takes these inputs and attributes",
        ) from error
    single = isinstance(said, Tensor) or _is_pair(said)
    parts = [said] if single else said
    usable = isinstance(parts, (list, tuple)) and all(
        isinstance(part, Tensor) or _is_pair(part) for part in parts
    )
    if not usable or not parts:
        raise TripyException(
            f"plugin: the rule outputs= of {plugin.name} does not give shapes and data types.",
            got=f"{said!r:.80}",
            expected="a pair (shape, dtype), a Tensor that is like the result, or a tuple of these",
            hint="outputs=lambda x: (x.shape, x.dtype)",
        )
    return [
        (part._value.shape, part.dtype)
        if isinstance(part, Tensor)
        else (arguments.new_shape("plugin", part[0], "the shape"), part[1])
        for part in parts
    ]


def _is_pair(said: Any) -> bool:
    return (
        isinstance(said, (list, tuple))
        and len(said) == 2
        and isinstance(said[1], dtypes.dtype)
        and isinstance(said[0], (list, tuple))
    )
