"""The form in which Go would write an object back: what a real server stores and answers.

Go decodes into structs. So a null is a field's zero value, some zero values are written and others left out, and a
quantity is written in its canonical form, however the client wrote it. Which field is which comes from the struct tags
of the Kubernetes API packages (``tools/schema/protobuf_fields.py``); a kind without a Go type
(monitoring.coreos.com) has only its metadata brought into this form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flyball.localcluster.schema import fields, quantity
from flyball.localcluster.schema.kinds import Kind

Object = dict[str, Any]
Walk = Callable[[Any], Any]

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_OBJECT_META = _META + "ObjectMeta"
_NUMBERS = frozenset({"int32", "int64", "uint32", "uint64", "double", "float"})
_SCALARS = _NUMBERS | {"string", "bool", "bytes"}
_ABSENT: Any = object()


def normalise(kind: Kind, obj: Object, old: Object | None = None) -> None:
    """Bring an object into Go's form, in place. What equals ``old``, the stored object, is in that form already."""
    struct = _of_kind(kind)
    if old is None:
        struct.write(obj)
        return
    changed = {name: value for name, value in obj.items() if name not in old or value != old[name]}
    for name in changed:
        del obj[name]
    struct.write(changed, whole=False)
    obj.update(changed)
    struct.complete(obj)


def normalise_metadata(metadata: Object) -> None:
    """The same for the metadata of a custom resource."""
    _struct(_OBJECT_META).write(metadata)


@dataclass(slots=True)
class _Struct:
    """What to do with the fields of one struct.

    ``walks`` bring a field's value into form; ``dropped`` are left out when they are empty; ``zeros`` make what stands
    for an absent field; ``emptied`` are lists and maps that are null when they are empty, since the bytes in etcd know
    no empty one. Any other field is left out when it is null.
    """

    names: set[str] = field(default_factory=set)
    walks: dict[str, Walk] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    zeros: dict[str, Callable[[], Any]] = field(default_factory=dict)
    emptied: set[str] = field(default_factory=set)

    def write(self, obj: Any, whole: bool = True) -> Any:
        if not isinstance(obj, dict):
            return obj
        gone = []
        for name, value in obj.items():
            if value is None:
                if name in self.names:
                    gone.append(name)
            elif not value and name in self.dropped:
                gone.append(name)
            elif not value and name in self.emptied:
                obj[name] = None
            elif name in self.walks:
                obj[name] = self.walks[name](value)
        for name in gone:
            del obj[name]
        if whole:
            self.complete(obj)
        return obj

    def complete(self, obj: Object) -> None:
        for name, zero in self.zeros.items():
            if name not in obj:
                obj[name] = zero()


@cache
def _of_kind(kind: Kind) -> _Struct:
    found = message_of(kind.api_version, kind.kind)
    if found is None:
        return _Struct(walks={"metadata": _struct(_OBJECT_META).write})
    return _struct(found)


def message_of(api_version: str, kind: str) -> str | None:
    """The name of a kind's Go type, None without one."""
    table = fields.go_fields()
    package = table["packages"].get(api_version)
    name = f"{package}.{kind}"
    return name if package is not None and name in table["messages"] else None


@cache
def _struct(name: str) -> _Struct:
    struct = _Struct()
    for key, kind, flags in fields.go_fields()["messages"][name].values():
        if "i" in flags:
            inner = _struct(kind)
            struct.names |= inner.names
            struct.walks |= inner.walks
            struct.dropped |= inner.dropped
            struct.zeros |= inner.zeros
            struct.emptied |= inner.emptied
            continue
        struct.names.add(key)
        walk = _walk(kind, flags)
        if walk is not None:
            struct.walks[key] = walk
        if "p" in flags:
            continue
        is_many = bool(set("rm") & set(flags))
        is_struct = not is_many and kind not in _SCALARS
        if kind.endswith(".HPAScalingPolicy"):
            continue  # the one list that is refused when it is empty and defaulted when it is absent
        if "z" in flags or ("o" in flags and not is_struct):
            struct.dropped.add(key)
        else:
            zero = _zero(kind, flags)
            if zero is not None:
                struct.zeros[key] = zero
            if is_many:
                struct.emptied.add(key)
    return struct


def _walk(kind: str, flags: str) -> Walk | None:
    """How a field's value is brought into form; None where nothing has to be done."""
    if "m" in flags:
        value = kind.split(",")[1]
        return _map_walk(_walk(value, ""), _zero(value, ""))
    if "r" in flags:
        inner = _walk(kind, "")
        return None if inner is None else _list_walk(inner, kind)
    if kind in _SCALARS:
        return None
    if kind in _SPECIAL:
        return _SPECIAL[kind][0]
    return lambda value: _struct(kind).write(value)  # looked up late, since structs nest in themselves


def _list_walk(inner: Walk, kind: str) -> Walk:
    is_struct = kind not in _SPECIAL

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            for index, item in enumerate(value):
                value[index] = inner({} if item is None and is_struct else item)
        return value

    return walk


def _map_walk(inner: Walk | None, zero: Callable[[], Any] | None) -> Walk:
    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            for key, item in value.items():
                if item is None and zero is not None:
                    value[key] = zero()
                elif inner is not None:
                    value[key] = inner(item)
        return value

    return walk


def _zero(kind: str, flags: str) -> Callable[[], Any] | None:
    """What Go writes for an absent field that is no pointer; None for nothing."""
    if set("rm") & set(flags) or kind == "bytes":
        return lambda: None
    if kind == "string":
        return str
    if kind == "bool":
        return bool
    if kind in _NUMBERS:
        return int
    if kind in _SPECIAL:
        zero = _SPECIAL[kind][1]
        return None if zero is _ABSENT else lambda: zero
    return lambda: _struct(kind).write({})


def _quantity(value: Any) -> Any:
    return quantity.canonical(value)


# Types that write themselves: how a value is brought into form, and what stands for none.
_SPECIAL: dict[str, tuple[Walk | None, Any]] = {
    "k8s.io.api.core.v1.ResourceList": (None, _ABSENT),
    "k8s.io.apimachinery.pkg.api.resource.Quantity": (_quantity, "0"),
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": (None, 0),
    _META + "Time": (None, None),
    _META + "MicroTime": (None, None),
    _META + "Duration": (None, "0s"),
    _META + "FieldsV1": (None, _ABSENT),
    _META + "Verbs": (None, None),
    "k8s.io.apimachinery.pkg.runtime.RawExtension": (None, None),
    "k8s.io.api.authentication.v1.ExtraValue": (None, None),
    "k8s.io.api.authorization.v1.ExtraValue": (None, None),
    "k8s.io.api.certificates.v1.ExtraValue": (None, None),
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON": (None, None),
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps": (None, _ABSENT),
}
