"""What is kept of objects: equal labels once, and no more of them than there are objects."""

from typing import Any

import msgspec

from flyball.adapter.objects import LABELS_SPARE_MAX, Collection, MetaObject
from flyball.kube import KubeClient
from flyball.kube.client import Meta
from flyball.kube.kinds import PODS
from flyball.model.selectors import parse_selector


def decoded(number: int, labels: dict[str, str]) -> tuple[Meta, MetaObject]:
    metadata = {"name": f"web-{number}", "namespace": "default", "labels": labels, "resourceVersion": str(number + 1)}
    body = msgspec.json.encode({"metadata": metadata, "status": {"phase": "Running"}})
    found: Any = msgspec.json.decode(msgspec.json.encode(metadata), type=Meta)
    return found, msgspec.json.decode(body, type=MetaObject)


def test_equal_texts_are_in_memory_once_and_those_of_the_gone_are_let_go() -> None:
    collection = Collection(KubeClient.__new__(KubeClient), PODS)
    informer = collection._informer
    for number in range(3):
        informer._put(*decoded(number, {"app": "web" if number < 2 else "other"}))
    first, second, third = collection.of("default")
    assert first.metadata.labels is second.metadata.labels is not third.metadata.labels
    assert first.status is second.status and first.metadata.namespace is third.metadata.namespace
    ((_, name), *_), meta = informer.cache, next(iter(informer._metas.values()))
    assert meta.name is name is first.metadata.name
    assert collection.names("default", parse_selector("app=web")) == ["web-0", "web-1"]
    informer._put(Meta("web-0", "default", "", "99"), decoded(0, {"app": "x"})[1])
    assert collection.names("default", parse_selector("app=web")) == ["web-1"]  # the others keep theirs
    for number in range(2 * LABELS_SPARE_MAX):
        informer._put(Meta("web-0", "default", "", str(1000 + number)), decoded(0, {"version": str(number)})[1])
    assert len(collection._labels) <= LABELS_SPARE_MAX + 2 * len(collection) + 1
    (item,) = (item for item in collection.of("default") if item.metadata.name == "web-0")
    assert item.metadata.labels == {"version": str(2 * LABELS_SPARE_MAX - 1)}
