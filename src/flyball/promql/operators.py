"""Unary and binary operators, and how the two sides of a binary one find each other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from flyball.model.frames import Floats, Mask
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import METRIC_NAME, Labels
from flyball.promql.aggregation import Groups, counts
from flyball.promql.distributions import trimmed
from flyball.promql.histograms import IncompatibleError, combine, compact, divided, equal, scaled, with_hint
from flyball.promql.syntax import COMPARISONS, SET_OPERATORS, TRIMS, Binary, Unary, VectorMatching
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import (
    METADATA,
    Index,
    Vec,
    dense,
    grouping,
    label_text,
    merge,
    remember,
    stack,
    without,
)

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod, "^": np.power, "atan2": np.arctan2,
}  # fmt: skip
COMPARE: dict[str, Callable[[Floats, Floats], Mask]] = {
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


def unary(ev: "Evaluator", expr: Unary) -> Vec | Floats:
    inner = ev.eval(expr.expr)
    if isinstance(inner, np.ndarray):
        return -inner if expr.op == "-" else inner
    assert isinstance(inner, Vec)
    if expr.op == "+":
        return inner
    negative = replace(inner, values=-inner.values)
    if inner.histograms is not None:
        negative = negative.with_cells([(i, k, scaled(h, -1)) for i, k, h in inner.cells()])
    return ev.unname(negative)


def binary(ev: "Evaluator", expr: Binary) -> Vec | Floats:
    left, right = ev.eval(expr.left), ev.eval(expr.right)
    op = expr.op
    if isinstance(left, Vec) and isinstance(right, Vec):
        assert expr.matching is not None
        if op in SET_OPERATORS:
            return set_operation(op, left, right, expr.matching)
        return match(ev, expr, left, right, expr.matching)
    if isinstance(left, Vec) or isinstance(right, Vec):
        return with_scalar(ev, expr, cast(Vec | Floats, left), cast(Vec | Floats, right))
    a, b = cast(Floats, left), cast(Floats, right)
    if op in COMPARISONS:
        return COMPARE[op](a, b).astype(np.float64)
    return ARITHMETIC[op](a, b)


def with_scalar(ev: "Evaluator", expr: Binary, left: Vec | Floats, right: Vec | Floats) -> Vec:
    """A vector and a scalar."""
    op = expr.op
    vec = left if isinstance(left, Vec) else right
    assert isinstance(vec, Vec)
    a = left.values if isinstance(left, Vec) else left[None, :]
    b = right.values if isinstance(right, Vec) else right[None, :]
    cells: list[tuple[int, int, Histogram | None]] = []
    scalar = right if isinstance(left, Vec) else left
    assert isinstance(scalar, np.ndarray)
    for i, k, h in vec.cells():
        sides = (h, float(scalar[k])) if isinstance(left, Vec) else (float(scalar[k]), h)
        found = _element(ev, expr, *sides)
        cells.append((i, k, found if isinstance(found, Histogram) else None))
    floats = vec.floats()
    if op in COMPARISONS:
        keep = COMPARE[op](a, b)
        if expr.bool:
            return ev.unname(replace(floats, values=keep.astype(np.float64)))
        return replace(floats, ok=floats.ok & keep)
    if op in TRIMS:
        if floats.ok.any():
            _incompatible_types(ev, expr, "float", "float")
        result = replace(floats, ok=np.zeros(floats.ok.shape, bool))
        return result.with_cells(cells).compact() if cells else result.compact()
    result = Vec(floats.labels, ARITHMETIC[op](a, b), floats.ok, floats.drop)
    return ev.unname(result.with_cells(cells).compact() if cells else result)


# --- elements that are histograms


def _incompatible_types(ev: "Evaluator", expr: Binary, left: str, right: str) -> None:
    message = f'incompatible sample types encountered for binary operator "{expr.op}": {left} {expr.op} {right}'
    ev.run.notes.info(message, expr)


def _element(
    ev: "Evaluator", expr: Binary, left: Histogram | float, right: Histogram | float
) -> Histogram | bool | None:
    """What two samples give of which at least one is a histogram: a histogram, for ``==`` and ``!=`` whether it
    holds, or None when the operator does not go with them."""
    op = expr.op
    if isinstance(left, Histogram) and isinstance(right, Histogram):
        if op in ("+", "-"):
            return _sum(ev, expr, left, right)
        if op in ("==", "!="):
            return equal(left, right) == (op == "==")
    elif isinstance(left, Histogram):
        assert isinstance(right, float)
        if op == "*":
            return compact(scaled(left, right))
        if op == "/":
            return compact(divided(left, right))
        if op in TRIMS:
            return trimmed(left, right, keep_below=op == "</")
    elif op == "*":
        assert isinstance(right, Histogram)
        return compact(scaled(right, left))
    kinds = ["histogram" if isinstance(side, Histogram) else "float" for side in (left, right)]
    _incompatible_types(ev, expr, *kinds)
    return None


def _sum(ev: "Evaluator", expr: Binary, left: Histogram, right: Histogram) -> Histogram | None:
    plus = expr.op == "+"
    try:
        found = combine(left, right, 1 if plus else -1)
    except IncompatibleError:
        ev.run.notes.warn(f"incompatible bucket layout encountered for binary operator {expr.op}", expr)
        return None
    operation = "addition" if plus else "subtraction"
    if found.collision:
        ev.run.notes.reset_collision(operation, expr)
    if found.reconciled:
        ev.run.notes.reconciled(operation, expr)
    return compact(found.value if plus else with_hint(found.value, ResetHint.GAUGE))


# --- vectors on both sides


@dataclass(slots=True, eq=False)
class _Signatures:
    """Match group numbers of both sides, how many groups there are, and their labels."""

    left: Index
    right: Index
    count: int
    labels: list[Labels]


def _signatures(left: Vec, right: Vec, m: VectorMatching) -> _Signatures:
    names = m.labels if m.on else (*m.labels, METRIC_NAME)

    def make() -> _Signatures:
        sets_l, codes_l = grouping(left.labels, names, not m.on)
        sets_r, codes_r = grouping(right.labels, names, not m.on)
        numbers = {labels: i for i, labels in enumerate(sets_l)}
        to = np.array([numbers.setdefault(labels, len(numbers)) for labels in sets_r], np.int64)
        return _Signatures(codes_l, to[codes_r] if len(sets_r) else codes_r, len(numbers), list(numbers))

    return remember((left.labels, right.labels), ("signatures", names, m.on), make)


def _seen(codes: Index, ok: Mask, count: int) -> Mask:
    """[count, T], where a group has a sample."""
    found = np.zeros((count, ok.shape[1]), bool)
    if codes.size:
        groups = Groups(codes, count)
        used = groups.sizes > 0
        found[used] = np.logical_or.reduceat(groups.arrange(ok), groups.starts[used], axis=0)
    return found


def set_operation(op: str, left: Vec, right: Vec, m: VectorMatching) -> Vec:
    """``and``, ``or``, ``unless``."""
    codes = _signatures(left, right, m)
    if op == "or":
        rest = right.ok & ~_seen(codes.left, left.ok, codes.count)[codes.right]
        return merge(stack(left, replace(right, ok=rest).compact()))
    there = _seen(codes.right, right.ok, codes.count)[codes.left]
    return replace(left, ok=left.ok & (there if op == "and" else ~there)).compact()


@dataclass(slots=True, eq=False)
class _Pairs:
    """Rows that meet: ``many`` [P] and ``one`` [P] row numbers, -1 for a fill value; ``code`` [P] match groups."""

    many: Index
    one: Index
    code: Index
    ok: Mask  # [P, T]


def _pairs(many: Vec, one: Vec, codes: _Signatures, fill_many: bool, fill_one: bool) -> _Pairs:
    """All pairs of one group, as runs of the one side sorted by group; and rows without a partner where filled."""
    groups = Groups(codes.right, codes.count)
    width = groups.sizes[codes.left]
    at_many = np.repeat(np.arange(codes.left.size), width)
    inside = np.arange(at_many.size) - np.repeat(np.cumsum(width) - width, width)
    at_one = groups.order[np.repeat(groups.starts[codes.left], width) + inside]
    found = [(at_many, at_one, codes.left[at_many], many.ok[at_many] & one.ok[at_one])]
    if fill_one:
        alone = many.ok & ~_seen(codes.right, one.ok, codes.count)[codes.left]
        rows = np.flatnonzero(alone.any(axis=1))
        found.append((rows, np.full(rows.size, -1), codes.left[rows], alone[rows]))
    if fill_many:
        alone = one.ok & ~_seen(codes.left, many.ok, codes.count)[codes.right]
        rows = np.flatnonzero(alone.any(axis=1))
        found.append((np.full(rows.size, -1), rows, codes.right[rows], alone[rows]))
    if len(found) == 1:
        return _Pairs(*found[0])
    return _Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _at(vec: Vec, rows: Index, fill: float | None) -> Floats:
    if fill is None:
        return vec.values[rows]
    values = np.full((rows.size, vec.values.shape[1]), fill)
    there = rows >= 0
    values[there] = vec.values[rows[there]]
    return values


def match(ev: "Evaluator", expr: Binary, left: Vec, right: Vec, m: VectorMatching) -> Vec:
    """Arithmetic, comparison and trimming between two vectors."""
    fills = (m.fill_left, m.fill_right)
    if fills == (None, None) and (not left.labels or not right.labels):
        return ev.empty()
    swapped = m.card == "one-to-many"
    many, one = (right, left) if swapped else (left, right)
    codes = _signatures(many, one, m)
    # Where one side is empty nothing is matched, nor checked, unless missing samples are filled in.
    matched = many.ok.any(axis=0) if fills == (None, None) else np.ones(ev.ts.size, bool)
    _check_one_side(codes, one, np.asarray(matched), "left" if swapped else "right")
    pairs = _pairs(many, one, codes, fills[0] is not None, fills[1] is not None)
    ev.run.count(pairs.many.size * ev.ts.size)
    value_m, value_o = _at(many, pairs.many, fills[0]), _at(one, pairs.one, fills[1])
    a, b = (value_o, value_m) if swapped else (value_m, value_o)
    paired = ok = pairs.ok
    comparison = expr.op in COMPARISONS
    if comparison:
        keep = COMPARE[expr.op](a, b)
        # a filter gives the left-hand value, whichever side is "many"
        values = keep.astype(np.float64) if expr.bool else a
        if not expr.bool:
            ok = ok & keep
    elif expr.op in TRIMS:
        values = a
    else:
        values = ARITHMETIC[expr.op](a, b)
    delayed = ev.run.options.features.delayed_name_removal
    unnamed = not (comparison or expr.op in TRIMS) or (expr.bool and not delayed)
    labels = _pair_labels(many, one, pairs, codes, m, unnamed)
    result = Vec(labels, values, ok, np.full(len(labels), True) if expr.bool and delayed else None)
    if expr.op in TRIMS or many.histograms is not None or one.histograms is not None:
        result, incompatible = _with_histograms(ev, expr, result, (many, one), pairs, (value_m, value_o), swapped)
        paired = paired & ~incompatible
    # A pair that a filter removes is a match, too; one that the operator does not go with is none.
    if m.card == "one-to-one" and pairs.many.size and (counts(paired, Groups(*dense(pairs.code))) > 1).any():
        raise EvaluationError(
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        )
    message = "multiple matches for labels: grouping labels must ensure unique matches"
    filtered = m.card != "one-to-one" and comparison and not expr.bool
    if filtered and len(set(labels)) < len(labels):
        numbers: dict[tuple[Labels, int], int] = {}
        keys = zip(labels, pairs.code.tolist(), strict=True)
        code = [numbers.setdefault(key, len(numbers)) for key in keys]
        if (counts(paired, Groups(np.array(code, np.int64), len(numbers))) > 1).any():
            raise EvaluationError(message)
    return merge(result.compact(), message)


def _with_histograms(
    ev: "Evaluator",
    expr: Binary,
    result: Vec,
    sides: tuple[Vec, Vec],
    pairs: _Pairs,
    values: tuple[Floats, Floats],
    swapped: bool,
) -> tuple[Vec, Mask]:
    """The result with the pairs computed that hold a histogram, and the pairs that the operator does not go with."""
    tables = [vec.is_histogram() for vec in sides]
    is_histogram = np.zeros(pairs.ok.shape, bool)
    for mask, rows in zip(tables, (pairs.many, pairs.one), strict=True):
        if mask.size:
            is_histogram |= mask[rows] & (rows >= 0)[:, None]
    is_histogram &= pairs.ok
    incompatible = pairs.ok & ~is_histogram if expr.op in TRIMS else np.zeros(pairs.ok.shape, bool)
    if incompatible.any():
        _incompatible_types(ev, expr, "float", "float")
        result = replace(result, ok=result.ok & is_histogram)
    result = replace(result, values=result.values.copy(), ok=np.where(is_histogram, False, result.ok))
    cells: list[tuple[int, int, Histogram | None]] = []
    for p, k in np.argwhere(is_histogram).tolist():
        found: list[Histogram | float] = []
        for vec, table, rows, value in zip(sides, tables, (pairs.many, pairs.one), values, strict=True):
            row = int(rows[p])
            is_one = row >= 0 and vec.histograms is not None and bool(table[row, k])
            found.append(vec.histograms[row, k] if is_one and vec.histograms is not None else float(value[p, k]))
        left, right = (found[1], found[0]) if swapped else (found[0], found[1])
        answer = _element(ev, expr, left, right)
        if isinstance(answer, bool):  # == and !=
            if expr.bool:
                result.values[p, k], result.ok[p, k] = float(answer), True
            elif answer and isinstance(left, Histogram):
                cells.append((p, k, left))
        elif answer is not None:
            cells.append((p, k, answer))
        else:
            incompatible[p, k] = True
    return result.with_cells(cells) if cells else result, incompatible


def _check_one_side(codes: _Signatures, one: Vec, matched: Mask, side: str) -> None:
    if np.unique(codes.right).size == codes.right.size:
        return
    groups = Groups(*dense(codes.right))
    several = (counts(one.ok, groups) > 1) & matched
    if not several.any():
        return
    group, step = map(int, np.argwhere(several)[0])
    rows = [i for i in np.flatnonzero(groups.code == group).tolist() if one.ok[i, step]]
    pair = ", ".join(label_text(one.labels[i]) for i in rows[:2])
    raise EvaluationError(
        f"found duplicate series for the match group {label_text(codes.labels[int(codes.right[rows[0]])])} on the "
        f"{side} hand-side of the operation: [{pair}];many-to-many matching not allowed: matching labels must be "
        "unique on one side"
    )


def _pair_labels(
    many: Vec, one: Vec, pairs: _Pairs, codes: _Signatures, m: VectorMatching, unnamed: bool
) -> tuple[Labels, ...]:
    key = (m.on, m.labels, m.card, m.include, unnamed, pairs.many.tobytes(), pairs.one.tobytes())
    return remember(
        (many.labels, one.labels),
        ("match", key) if pairs.many.size < 100_000 else object(),
        lambda: tuple(
            _result_labels(
                many.labels[i] if i >= 0 else _group_labels(codes.labels[g]),
                one.labels[k] if k >= 0 else _group_labels(codes.labels[g]),
                m,
                unnamed,
            )
            for i, k, g in zip(pairs.many.tolist(), pairs.one.tolist(), pairs.code.tolist(), strict=True)
        ),
    )


def _group_labels(labels: Labels) -> Labels:
    return without(labels, (METRIC_NAME,))


def _result_labels(labels: Labels, one: Labels, m: VectorMatching, unnamed: bool) -> Labels:
    if m.card == "one-to-one":
        labels = tuple([p for p in labels if (p[0] in m.labels) == m.on])
    if unnamed:
        labels = without(labels, METADATA)
    if m.include:
        kept = [p for p in labels if p[0] not in m.include]
        labels = tuple(sorted(kept + [p for p in one if p[0] in m.include]))
    return labels
