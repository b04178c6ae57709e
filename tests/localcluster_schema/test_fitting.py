"""The quick yes to an object never says more than the slow look does."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from flyball.localcluster import schema

GOLDEN = Path(__file__).parents[1] / "localcluster_apiserver" / "golden"
WRONG = ("x", "", 3, -1, 2.5, 2**40, True, None, [], {}, ["x"], {"x": 1}, "1Gi", "1e400", "YQ=", "2026-13-01T00:00:00Z")


def stored_objects() -> Iterator[tuple[schema.Kind, Any]]:
    """What a real kube-apiserver answered, by the kinds that have a definition."""
    for name in ("defaults", "kinds", "changes", "hpas"):
        for line in (GOLDEN / f"{name}.jsonl").read_bytes().splitlines():
            obj = msgspec.json.decode(line).get("response")
            if isinstance(obj, dict) and "spec" in obj:
                group, _, version = obj["apiVersion"].rpartition("/")
                kind = schema.find_kind(group, version, obj["kind"])
                if kind is not None and schema.patch_schema(kind) is not None:
                    yield kind, obj


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) within a value."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from places(item)


def is_fine(kind: schema.Kind, obj: Any) -> bool:
    return not schema.type_errors(kind, obj) and not schema.validate_fields(kind, obj)


def test_what_a_real_server_stores_fits() -> None:
    found = list(stored_objects())
    assert len({kind.kind for kind, _ in found}) > 10
    assert [kind.kind for kind, obj in found if not schema.fits(kind, obj)] == []


def test_what_fits_after_any_change_is_fine_to_the_slow_look() -> None:
    rng = random.Random(7)
    quick = 0
    found = list(stored_objects())
    for _ in range(1500):
        kind, obj = rng.choice(found)
        obj = msgspec.json.decode(msgspec.json.encode(obj))
        holder, key = rng.choice(list(places(obj)))
        if isinstance(holder, dict) and rng.random() < 0.2:
            holder[rng.choice(("unknown", "name", "type"))] = rng.choice(WRONG)
        else:
            holder[key] = rng.choice(WRONG)
        if schema.fits(kind, obj):
            quick += 1
            assert is_fine(kind, obj), (kind.kind, key, holder)
    assert 100 < quick < 1400
