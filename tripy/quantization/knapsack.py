"""The multiple-choice knapsack problem, exactly: one option a group, least cost, limited size.

Partial choices are extended a group at a time. One is given up where another is no larger and no
more costly, and where even the linear relaxation of what is left to choose (D. Sinha and
A. Zoltners, "The Multiple-Choice Knapsack Problem", 1979) cannot make it better than the best whole
choice known. Every partial choice gives such a whole one, by rounding its relaxation down; so the
bound tightens as partial choices multiply, and a hundred groups take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

# Partial choices kept after a group. More come up only where sizes have no common divisor and all
# options cost the same a byte; the answer then says how far from the best it may be.
LIMIT = 1 << 16
ROUNDING = 1e-13  # Of the costs' sum: what float64 sums may differ by.


class Option(NamedTuple):
    """What may be chosen: its size, a whole number of bytes, and its cost."""

    size: int
    cost: float


@dataclass(frozen=True)
class Answer:
    """The best choice.

    Attributes:
        chosen: The index of an option for each group.
        size: The sum of their sizes.
        cost: The sum of their costs.
        gap: What the cost may be above the least; 0 but where :data:`LIMIT` was met.
    """

    chosen: tuple[int, ...]
    size: int
    cost: float
    gap: float = 0.0


class _Steps:
    """All changes along the groups' lower convex hulls, the most worth while first."""

    def __init__(self, groups: Sequence[Sequence[tuple[int, Option]]]) -> None:
        hulls = [_hull(options) for options in groups]
        steps = []
        for number, hull in enumerate(hulls):
            steepest = -np.inf
            for (_, low), (index, high) in pairwise(hull):
                # Rounding must not put a group's steps out of order; sorting is stable.
                steepest = max(steepest, (high.cost - low.cost) / (high.size - low.size))
                steps.append((steepest, number, index, low, high))
        steps.sort(key=lambda step: step[0])
        self.groups = np.array([step[1] for step in steps], np.int64)
        self.options = np.array([step[2] for step in steps], np.int64)
        self.sizes = np.array([step[4].size - step[3].size for step in steps], np.int64)
        self.costs = np.array([step[4].cost - step[3].cost for step in steps], np.float64)
        # Of the smallest options, from each group on.
        self.least_sizes = [sum(h[0][1].size for h in hulls[i:]) for i in range(len(hulls) + 1)]
        self.least_costs = [sum(h[0][1].cost for h in hulls[i:]) for i in range(len(hulls) + 1)]


class _Relaxation:
    """The least cost of the groups from one on, as a function of the size that is left.

    Attributes:
        smallest: The sum of the smallest options' sizes.
        sizes: Where the function bends: sizes above the smallest, ascending from 0.
        costs: Its values there. All of them are reached by whole choices.
    """

    def __init__(self, steps: _Steps, first: int) -> None:
        self._mine = np.flatnonzero(steps.groups >= first)
        self._steps = steps
        self.smallest = steps.least_sizes[first]
        self.sizes = np.concatenate(([0], np.cumsum(steps.sizes[self._mine])))
        self.costs = np.cumsum(np.append(steps.least_costs[first], steps.costs[self._mine]))

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The (group, option) that each bend after the first changes to."""
        options = self._steps.options[self._mine].tolist()
        return list(zip(self._steps.groups[self._mine].tolist(), options))

    def bound(self, left: np.ndarray) -> np.ndarray:
        """No choice within the size that is left costs less."""
        return np.interp(left - self.smallest, self.sizes, self.costs)

    def whole(self, left: np.ndarray) -> np.ndarray:
        """The index of the last bend within the size that is left."""
        return np.searchsorted(self.sizes, left - self.smallest, side="right") - 1


def _undominated(options: Sequence[Option]) -> list[tuple[int, Option]]:
    """Options with their indices, growing in size and falling in cost."""
    kept: list[tuple[int, Option]] = []
    for index, option in sorted(enumerate(options), key=lambda item: item[1]):
        if not kept or option.cost < kept[-1][1].cost:
            kept.append((index, option))
    return kept


def _hull(options: Sequence[tuple[int, Option]]) -> list[tuple[int, Option]]:
    """Those on the lower convex hull."""
    hull: list[tuple[int, Option]] = []
    for item in options:
        while len(hull) > 1:
            (_, a), (_, b), c = hull[-2], hull[-1], item[1]
            if (b.cost - a.cost) * (c.size - b.size) < (c.cost - b.cost) * (b.size - a.size):
                break
            hull.pop()
        hull.append(item)
    return hull


def smallest(groups: Sequence[Sequence[Option]]) -> int:
    """The least possible size."""
    return sum(min(option.size for option in options) for options in groups)


def solve(groups: Sequence[Sequence[Option]], budget: int, limit: int = LIMIT) -> Answer:
    """One option of each group, with the least sum of costs among sums of sizes within the budget.

    Args:
        groups: At least one option each. Costs are finite.
        budget: At least :func:`smallest`.
        limit: How many partial choices are kept.
    """
    # Wide groups first: narrow ones fill what is left over, which makes good whole choices early.
    order = sorted(range(len(groups)), key=lambda g: -max(o.size for o in groups[g]))
    sorted_groups = [_undominated(groups[g]) for g in order]
    tolerance = ROUNDING * sum(abs(o[0][1].cost) for o in sorted_groups)
    # numpy's types of arrays differ from version to version.
    sizes: Any = np.zeros(1, np.int64)
    costs: Any = np.zeros(1)
    trace: list[tuple[np.ndarray, np.ndarray]] = []
    best, best_at, unseen = np.inf, (0, 0, 0), np.inf
    steps = _Steps(sorted_groups)
    relaxation = _Relaxation(steps, 0)
    for number in range(len(groups) + 1):
        bends = relaxation.whole(budget - sizes)
        totals = costs + relaxation.costs[bends]
        at = int(np.argmin(totals))
        if totals[at] < best:
            best, best_at = float(totals[at]), (number, at, int(bends[at]))
        if number == len(groups):
            break
        following = _Relaxation(steps, number + 1)
        options = sorted_groups[number]
        parents = np.tile(np.arange(len(sizes)), len(options))
        picks = np.repeat(np.arange(len(options)), len(sizes))
        sizes = np.concatenate([sizes + option.size for _, option in options])
        costs = np.concatenate([costs + option.cost for _, option in options])
        fits = np.flatnonzero(sizes + following.smallest <= budget)
        bounds = costs[fits] + following.bound(budget - sizes[fits])
        promising = bounds < best - tolerance
        kept, bounds = fits[promising], bounds[promising]
        ordered = np.lexsort((costs[kept], sizes[kept]))
        kept, bounds = kept[ordered], bounds[ordered]
        before = np.minimum.accumulate(np.concatenate(([np.inf], costs[kept])))[:-1]
        kept, bounds = kept[costs[kept] < before], bounds[costs[kept] < before]
        if len(kept) > limit:
            closest = np.argpartition(bounds, limit)
            unseen = min(unseen, float(bounds[closest[limit]]))
            kept = np.sort(kept[closest[:limit]])
        if not len(kept):  # Nothing can be better than the best whole choice.
            break
        sizes, costs = sizes[kept], costs[kept]
        trace.append((parents[kept].astype(np.int32), picks[kept].astype(np.int32)))
        relaxation = following
    picked = _picked(sorted_groups, steps, trace, best_at)
    chosen = [0] * len(groups)
    for place, group in enumerate(order):
        chosen[group] = picked[place]
    options_chosen = [groups[g][i] for g, i in enumerate(chosen)]
    return Answer(
        tuple(chosen),
        sum(option.size for option in options_chosen),
        float(sum(option.cost for option in options_chosen)),
        max(0.0, best - unseen) if np.isfinite(unseen) else 0.0,
    )


def _picked(
    groups: list[list[tuple[int, Option]]],
    steps: _Steps,
    trace: list[tuple[np.ndarray, np.ndarray]],
    found: tuple[int, int, int],
) -> list[int]:
    """The options of a whole choice: those of a partial one, and a rounded relaxation's."""
    number, at, bend = found
    picked = [options[0][0] for options in groups]
    for place in range(number - 1, -1, -1):
        parents, picks = trace[place]
        picked[place] = groups[place][picks[at]][0]
        at = int(parents[at])
    for place, index in _Relaxation(steps, number).steps[:bend]:
        picked[place] = index
    return picked
