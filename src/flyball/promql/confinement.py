"""Expressions that see one namespace only. The matcher is put into the syntax tree, never pasted into text."""

from copy import deepcopy
from dataclasses import replace

from flyball.errors import ConfigError, QueryError
from flyball.model.labels import Matcher, MatchType
from flyball.promql.parser import parse
from flyball.promql.syntax import Expr, VectorSelector


def confined(expr: str, label: str, namespace: str, what: str) -> tuple[str, tuple[str, ...]]:
    """The expression with ``label="namespace"`` in every selector, and those selectors without offsets.

    Raises:
        ConfigError: the text is no PromQL that we can read, so it cannot be confined.
    """
    try:
        tree = deepcopy(parse(expr))  # the parser keeps its tree for the next who asks the same
    except QueryError as exc:
        raise ConfigError(f"{what}: cannot be confined to the namespace {namespace}: {exc}") from exc
    matcher = Matcher(MatchType.EQUAL, label, namespace)
    selectors: dict[str, None] = {}
    for node in tree.walk():
        if isinstance(node, VectorSelector):
            node.matchers = (*(known for known in node.matchers if known != matcher), matcher)
            selectors[str(replace(node, offset_ms=0, at=None))] = None
    text = str(tree)
    _check(parse(text), matcher, what)
    return text, tuple(selectors)


def _check(tree: Expr, matcher: Matcher, what: str) -> None:
    """What is sent is read once more: printing must not have lost the matcher."""
    for node in tree.walk():
        if isinstance(node, VectorSelector) and matcher not in node.matchers:
            raise ConfigError(f"{what}: a selector could not be confined to {matcher}")
