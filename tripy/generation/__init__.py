"""``generate``: from prompts and compiled steps to tokens, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Optional

from tripy import config
from tripy.backends.torch import generation as steps
from tripy.backends.torch.cuda_graphs import nothing_recordable
from tripy.backends.torch.kernels.cuda.available import missing
from tripy.dtypes import int32
from tripy.executable import Executable
from tripy.generation import checks
from tripy.logger import logger
from tripy.tensor import Tensor

# Functions that may do anything, and copies between devices, are not part of a CUDA graph.
_NOT_RECORDED = ("plugin", "copy")
_LARGEST = 2**63 - 1


def generate(
    decode: Executable,
    prompts: Sequence[Sequence[int]],
    caches: Any,
    *,
    prefill: Executable,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: Optional[int] = None,
    seed: int = 0,
    row_ids: Optional[Sequence[int]] = None,
    stop_tokens: Sequence[int] = (),
    lookahead: int = 8,
) -> Iterator[list[Optional[int]]]:
    """Generate tokens that follow the prompts, with a key/value cache.

    Everything is checked at once; the work begins when the first step is asked for. On a GPU the
    step, the choice of the next token and the move to the next position are one CUDA graph. The
    host launches up to ``lookahead`` steps ahead and hands out tokens as they arrive, so the GPU
    never waits for it. Elsewhere a step begins when it is asked for.

    A row's tokens do not depend on the rest of the batch, but for how the functions round: some
    kernels add up in another order where there are more rows, or longer prompts beside them. The
    noise is a function of the seed, the step, the row's id and the token. It is the same on the
    CPU and on a GPU, which draw the same tokens unless their logits differ by a rounding that
    matters.

    Args:
        decode: Compiled from ``decode(tokens, position, caches) -> (logits, caches)``: tokens and
            position int32 ``[batch]``, logits ``[batch, vocabulary]`` of a float type. It writes
            the token's key and value at its position and attends to what is there up to it.
        prompts: The tokens of each row, at least one. They may differ in length.
        caches: What both functions take and return: a tensor, or a structure of tensors that
            share no memory. They are used up: they hold the state of the generation, after the
            prompts and what was generated. Stopped early, up to ``lookahead`` tokens more.
        prefill: Compiled from ``prefill(tokens, lengths, caches) -> (logits, caches)``: tokens
            int32 ``[batch, length]``, the prompts with zeros after those that are shorter; lengths
            int32 ``[batch]``; logits of the last real token of each row. The keys of padding may
            be written: decode overwrites them before it looks at them.
        max_new_tokens: How many steps, if not all rows stop before.
        temperature: What logits are divided by before softmax gives the probabilities; 0 takes the
            largest logit, the first of equal ones. A NaN counts as larger than all numbers.
        top_k: Only the k largest logits are drawn from, and those equal to the last of them;
            None for all.
        seed: An int from 0 to 2**63 - 1. Equal seeds draw equal tokens.
        row_ids: An int32 for each row, that the noise is keyed with; by default the row's number,
            so that equal prompts draw different tokens. A prompt with the same id draws the same
            tokens in every row of every batch.
        stop_tokens: A row that draws one of these has stopped. It is the last token that is
            yielded for that row, and is not put into the cache.
        lookahead: How many steps may be launched before their tokens are taken; 1 or more.

    Returns:
        An iterator that yields for each step a list with the new token of each row, None for rows
        that have stopped. It ends after ``max_new_tokens`` steps, or when all rows have stopped.

    Raises:
        TripyException: Before anything runs: for functions or caches that do not fit, a prompt
            that is empty or has tokens outside the vocabulary, more tokens than the cache has
            room for, and arguments out of range.

    Example:
        >>> import tripy as tp
        >>> after = tp.Tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
        >>> def prefill(tokens, lengths, caches):
        ...     return after[tp.flatten(tokens)[lengths - 1]], caches
        >>> def decode(tokens, position, caches):
        ...     return after[tokens], caches
        >>> row, cache = tp.InputInfo((1,), tp.int32), tp.InputInfo((1, 1), tp.float32)
        >>> prompt = tp.InputInfo((1, (1, 4, 8)), tp.int32)
        >>> prefill = tp.compile(prefill, args=[prompt, row, cache])
        >>> decode = tp.compile(decode, args=[row, row, cache])
        >>> cache = tp.zeros((1, 1))
        >>> list(tp.generate(decode, [[0, 1]], cache, prefill=prefill, max_new_tokens=4))
        [[2], [0], [1], [2]]
    """
    roles = checks.functions(prefill, decode)
    rows = checks.prompts(prompts, roles[1].vocabulary)
    options = steps.Options(
        checks.integer("max_new_tokens", max_new_tokens, 1), checks.temperature(temperature),
        None if top_k is None else checks.integer("top_k", top_k, 1),
        checks.integer("seed", seed, 0, _LARGEST), checks.row_ids(row_ids, len(rows)),
        checks.tokens("stop_tokens", stop_tokens, roles[1].vocabulary),
        checks.integer("lookahead", lookahead, 1, 1024),
    )  # fmt: skip
    where, count = decode.device, options.steps

    def integers(values: list) -> Tensor:
        return Tensor(values, dtype=int32, device=where)

    length = max(checks.least_length(prefill), *map(len, rows))
    padded = integers([row + [0] * (length - len(row)) for row in rows])
    lengths = integers([len(row) for row in rows])
    start = checks.bind(prefill, roles[0], (padded, lengths, caches))
    last, position = integers([r[-1] for r in rows]), integers([len(r) - 1 for r in rows])
    bound = checks.bind(decode, roles[1], (last, position, caches))
    checks.room(start, length, f"prompts of {length} tokens", "shorter prompts")
    longest = max(map(len, rows))
    checks.room(
        bound, longest + count - 1, f"a prompt of {longest} tokens and max_new_tokens={count}",
        "fewer new tokens",
    )  # fmt: skip
    checks.apart(bound)
    return _run(bound, start, options)


def _run(
    bound: checks.Bound, start: checks.Bound, options: steps.Options
) -> Iterator[list[Optional[int]]]:
    decode = bound.executable
    tokens, position, where = *bound.tensors[:2], decode.device

    def stream() -> Any:
        return decode.stream._current()

    why_not = missing(where) or ""
    if where.kind == "cpu" or why_not:
        if where.kind == "gpu":
            logger.info(f"generate: the host chooses each token, and is waited for: {why_not}")
        step = bound.step(tokens, position)
        return steps.on_host(start.step(), step, tokens, position, options, stream)
    if decode._backend_name != "torch":
        why_not = f"the backend is {decode._backend_name}"
    elif not config.cuda_graphs:
        why_not = "tp.config.cuda_graphs is False"
    elif any(node.op in _NOT_RECORDED for node in decode.graph.nodes()):
        why_not = "the function has a plugin or copies between devices"
    else:
        why_not = nothing_recordable()
    if why_not:
        logger.info(f"generate: launched kernel by kernel, not as a CUDA graph: {why_not}")
    return steps.on_gpu(
        start.step(), bound.step, tokens, position, options, stream, decode._program,
        bound.roles.vocabulary, why_not,
    )  # fmt: skip
