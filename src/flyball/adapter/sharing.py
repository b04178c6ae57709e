"""One query for everybody: whether a rule's query can be asked for all objects at once and cut by object afterwards.

The proof is on the syntax tree. A query for one object pins its labels (``namespace="a",pod="b"``) in every selector.
Widened, it asks for all objects (``namespace!="",pod!=""``) and groups by those labels. Cut by them, its result is
that of the single queries when every step treats the objects apart: what one object's series give never depends on
another's. Aggregation by the labels, functions of one series, and matching on the labels do; ``topk`` over everything,
``scalar``, ``absent`` or a label made by ``label_replace`` do not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flyball.adapter.confinement import confined_query
from flyball.adapter.registry import CustomMetric
from flyball.errors import QueryError
from flyball.metricrules import MetricQuery, Template, custom_query, resource_query
from flyball.metricrules.resources import NAMESPACES, GroupResource, ResourceConverter
from flyball.model.labels import Matcher, MatchType
from flyball.model.selectors import Requirement
from flyball.promql.parser import parse
from flyball.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
)

_NAMESPACE, _OBJECT = "flyball-any-namespace", "flyball-any-object"
_PLAIN_MATCHERS = re.compile(r"<<-?\s*\.LabelMatchers\s*-?>>")
_MIXING = frozenset({"absent", "absent_over_time", "scalar", "vector", "info"})


@dataclass(frozen=True, slots=True)
class SharedQuery:
    """A query for all objects. ``keys`` are the labels that tell them apart: (namespace, object) or (object,)."""

    query: MetricQuery
    keys: tuple[str, ...]


class NotShareable(Exception):  # noqa: N818
    """The proof fails; the message says where."""


def shared_custom(metric: CustomMetric, requirements: Sequence[Requirement], namespace: str | None) -> SharedQuery:
    """The query of a custom metric for all its objects; in one namespace, or with None in all.

    Raises:
        NotShareable: it cannot be proven to give what single queries give.
        QueryError, ConfigError: as for ``custom_query``.
    """
    _check_template(metric.rule.metrics_query.text)
    of_namespace = metric.resource == NAMESPACES or not metric.namespaced
    pinned = "" if of_namespace else (_NAMESPACE if namespace is None else namespace)
    query = custom_query(
        metric.rule.metrics_query,
        metric.rule.where,
        metric.converter,
        metric.series,
        metric.resource,
        pinned,
        [_OBJECT],
        requirements,
    )
    shared = _widened(query, metric.converter, "" if of_namespace else pinned)
    return replace(shared, query=confined_query(shared.query, metric.rule))


def shared_resource(
    template: Template,
    where: str,
    converter: ResourceConverter,
    resource: GroupResource,
    namespace: str | None,
    container_label: str,
) -> SharedQuery:
    """As ``shared_custom``, for cpu or memory. ``namespace`` "" is for nodes.

    Raises:
        NotShareable, ConfigError: see ``shared_custom``.
    """
    _check_template(template.text)
    pinned = _NAMESPACE if namespace is None else namespace
    query = resource_query(template, where, converter, resource, pinned, [_OBJECT], container_label)
    return _widened(query, converter, pinned)


def _check_template(text: str) -> None:
    rest = _PLAIN_MATCHERS.sub("", text)
    if rest == text:
        raise NotShareable("the template does not use <<.LabelMatchers>>")
    for name in (".LabelMatchers", ".LabelValuesByName"):
        if name in rest:
            raise NotShareable(f"the template uses {name} other than as <<.LabelMatchers>>")


def _widened(query: MetricQuery, converter: ResourceConverter, namespace: str) -> SharedQuery:
    label = query.group_labels[0]
    pins = {label: _OBJECT}
    if namespace == _NAMESPACE:
        pins = {converter.label_of(NAMESPACES): _NAMESPACE, **pins}
    try:
        tree = parse(query.expr)
    except QueryError as exc:
        raise NotShareable(f"the query cannot be read: {exc}") from exc
    wide = _Widening(pins).expr(tree)
    expr = str(wide)
    if _NAMESPACE in expr or _OBJECT in expr:
        raise NotShareable("the object's name stands outside the label matchers")
    keys = tuple(pins)
    found = (node for node in wide.walk() if isinstance(node, VectorSelector))
    selectors = dict.fromkeys(str(replace(node, offset_ms=0, at=None)) for node in found)
    if not selectors:
        raise NotShareable("the query reads no series")
    groups = (*keys, *query.group_labels[1:])
    return SharedQuery(replace(query, expr=expr, selectors=tuple(selectors), group_labels=groups), keys)


class _Widening:
    """Rewrites a tree for all objects, or says at which node they would mix."""

    def __init__(self, pins: dict[str, str]) -> None:
        self._pins, self._keys = pins, tuple(pins)

    def expr(self, node: Expr) -> Expr:
        match node:
            case NumberLiteral() | StringLiteral():
                return node
            case VectorSelector():
                return self._selector(node)
            case MatrixSelector():
                return replace(node, vector=self._selector(node.vector))
            case Subquery() | Paren() | Unary():
                return replace(node, expr=self.expr(node.expr))
            case Aggregate():
                return self._aggregate(node)
            case Call():
                return self._call(node)
            case Binary():
                return self._binary(node)
        raise NotShareable(f"{type(node).__name__} is not known to keep objects apart")

    def _selector(self, node: VectorSelector) -> VectorSelector:
        matchers, left = [], dict(self._pins)
        for matcher in node.matchers:
            if matcher.type is MatchType.EQUAL and left.get(matcher.name) == matcher.value:
                del left[matcher.name]
                matcher = Matcher(MatchType.NOT_EQUAL, matcher.name, "")
            matchers.append(matcher)
        if left:
            raise NotShareable(f"{node.name or 'a selector'} does not have the rule's label matchers")
        return replace(node, matchers=tuple(matchers))

    def _aggregate(self, node: Aggregate) -> Aggregate:
        if node.param is not None and any(isinstance(below, VectorSelector) for below in node.param.walk()):
            raise NotShareable(f"the parameter of {node.op} reads series of all objects")
        if isinstance(node.param, StringLiteral) and node.param.value in self._keys:
            raise NotShareable(f"{node.op} rewrites the label that names the object")
        inner = self.expr(node.expr)
        if node.without:
            if set(self._keys) & set(node.grouping):
                raise NotShareable(f"{node.op} without ({', '.join(node.grouping)}) mixes objects")
            return replace(node, expr=inner)
        if self._keys[-1] not in node.grouping:
            raise NotShareable(f"{node.op} is not by ({self._keys[-1]}) and mixes objects")
        return replace(node, expr=inner, grouping=self._with_keys(node.grouping))

    def _with_keys(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return (*(key for key in self._keys if key not in labels), *labels)

    def _call(self, node: Call) -> Call:
        if node.name in _MIXING:
            raise NotShareable(f"{node.name}() makes a value that belongs to no object")
        if node.name in ("label_replace", "label_join"):
            target = node.args[1]
            if not isinstance(target, StringLiteral) or target.value in self._keys:
                raise NotShareable(f"{node.name}() rewrites the label that names the object")
        return replace(node, args=tuple(self.expr(argument) for argument in node.args))

    def _binary(self, node: Binary) -> Binary:
        left, right = self.expr(node.left), self.expr(node.right)
        matching = node.matching
        if matching is not None and set(self._keys) & set(matching.include):
            raise NotShareable(f"{node.op} takes the label that names the object from another series")
        vectors = node.left.type is ValueType.VECTOR and node.right.type is ValueType.VECTOR
        if vectors and matching is not None and (matching.on or matching.labels):
            if matching.on and self._keys[-1] not in matching.labels:
                raise NotShareable(f"{node.op} on ({', '.join(matching.labels)}) matches series of different objects")
            if not matching.on and set(self._keys) & set(matching.labels):
                raise NotShareable(f"{node.op} ignoring ({', '.join(matching.labels)}) matches different objects")
            if matching.on:
                matching = replace(matching, labels=self._with_keys(matching.labels))
        return replace(node, left=left, right=right, matching=matching)
