"""Pods and HPA selectors of each namespace, indexed so that one evaluation looks at the pods it needs."""

from collections.abc import Iterable
from typing import Any

import msgspec

from flyball.model.selectors import Selector
from flyball.scaling import Pod, pod_from_object

Key = tuple[str, str]
_Pair = tuple[str, str]


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    deletionTimestamp: str | None = None  # noqa: N815


class _Container(msgspec.Struct):
    name: str = ""
    resources: dict[str, Any] | None = None
    restartPolicy: str | None = None  # noqa: N815


class _Spec(msgspec.Struct):
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None  # noqa: N815
    overhead: dict[str, Any] | None = None
    resources: dict[str, Any] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""
    lastTransitionTime: str | None = None  # noqa: N815


class _Status(msgspec.Struct):
    phase: str | None = None
    startTime: str | None = None  # noqa: N815
    conditions: list[_Condition] | None = None


class PodView(msgspec.Struct):
    """The fields of a Pod that scaling reads; the informer keeps no others."""

    metadata: _Meta
    spec: _Spec | None = None
    status: _Status | None = None


class PodIndex:
    """Pods by namespace and label pair; ``update`` is an informer handler."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, tuple[dict[str, str], Pod]]] = {}
        self._by_pair: dict[str, dict[_Pair, set[str]]] = {}

    def update(self, change: str, old: PodView | None, new: PodView | None) -> None:
        """Take one change of the collection in."""
        if old is not None:
            self._remove(old)
        if new is not None and change != "DELETED":
            self._add(new)

    def _add(self, view: PodView) -> None:
        namespace, name = view.metadata.namespace, view.metadata.name
        labels = view.metadata.labels or {}
        self._pods.setdefault(namespace, {})[name] = (labels, pod_from_object(msgspec.to_builtins(view)))
        pairs = self._by_pair.setdefault(namespace, {})
        for pair in labels.items():
            pairs.setdefault(pair, set()).add(name)

    def _remove(self, view: PodView) -> None:
        namespace, name = view.metadata.namespace, view.metadata.name
        found = self._pods.get(namespace, {}).pop(name, None)
        if found is None:
            return
        pairs = self._by_pair.get(namespace, {})
        for pair in found[0].items():
            names = pairs.get(pair)
            if names is not None:
                names.discard(name)
                if not names:
                    del pairs[pair]

    def select(self, namespace: str, selector: Selector) -> list[tuple[dict[str, str], Pod]]:
        """(labels, pod) of every pod that matches, by name."""
        pods = self._pods.get(namespace)
        if not pods:
            return []
        names: Iterable[str] = pods
        pair = _first_pair(selector)
        if pair is not None:
            names = self._by_pair.get(namespace, {}).get(pair, ())
        return [pods[name] for name in sorted(names) if selector.matches(pods[name][0])]

    def __len__(self) -> int:
        return sum(len(pods) for pods in self._pods.values())


class SelectorIndex:
    """Which HPA selects with what; an HPA counts from its first evaluation on, as upstream."""

    def __init__(self) -> None:
        self._selectors: dict[Key, tuple[str, Selector, _Pair | None]] = {}
        self._by_pair: dict[str, dict[_Pair | None, set[str]]] = {}

    def put(self, key: Key, text: str, selector: Selector) -> None:
        """Note the selector of an HPA's target."""
        known = self._selectors.get(key)
        if known is not None and known[0] == text:
            return
        self.remove(key)
        pair = _first_pair(selector)
        self._selectors[key] = (text, selector, pair)
        self._by_pair.setdefault(key[0], {}).setdefault(pair, set()).add(key[1])

    def remove(self, key: Key) -> None:
        """Forget an HPA."""
        known = self._selectors.pop(key, None)
        if known is not None:
            names = self._by_pair[key[0]][known[2]]
            names.discard(key[1])
            if not names:
                del self._by_pair[key[0]][known[2]]

    def selecting(self, namespace: str, labels_of_pods: Iterable[dict[str, str]]) -> list[str]:
        """``namespace/name`` of every HPA that selects one of these pods, by name."""
        pairs = self._by_pair.get(namespace)
        if not pairs:
            return []
        distinct = {frozenset(labels.items()): labels for labels in labels_of_pods}
        found: set[str] = set()
        for labels in distinct.values():
            for pair in (*labels.items(), None):
                for name in pairs.get(pair, ()):
                    if name not in found and self._selectors[namespace, name][1].matches(labels):
                        found.add(name)
        return [f"{namespace}/{name}" for name in sorted(found)]


def _first_pair(selector: Selector) -> _Pair | None:
    for requirement in selector.requirements:
        if requirement.operator in ("=", "in") and len(requirement.values) == 1:
            return (requirement.key, requirement.values[0])
    return None
