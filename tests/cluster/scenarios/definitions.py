"""CustomResourceDefinitions in depth: versions, rules in CEL, defaults, embedded objects, finalizers, bad schemas."""

from typing import Any

from tests.cluster.scenarios.manifests import TABLE, obj
from tests.cluster.steps import Http, Kubectl, Step

MERGE = "application/merge-patch+json"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_GROUP = "$NS.example.com"
_GEARS = f"/apis/{_GROUP}/v1/namespaces/$NS/gears"


def _text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def _struct(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


_SPEC = _struct(
    {
        "teeth": {"type": "integer", "format": "int32", "multipleOf": 2},
        "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0},
        "since": _text(format="date-time"),
        "address": _text(format="ipv4"),
        "note": _text(nullable=True, default="none", maxLength=20),
        "fixed": _text(**{"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable"}]}),
        "names": {
            "type": "array",
            "items": _text(minLength=2, maxLength=20),
            "x-kubernetes-list-type": "set",
            "minItems": 1,
            "maxItems": 5,
        },
        "limits": _struct(
            {"low": {"type": "integer", "default": 1}, "high": {"type": "integer"}},
            default={},
            **{"x-kubernetes-validations": [{"rule": "!has(self.high) || self.low <= self.high"}]},
        ),
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "weights": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "maxProperties": 2},
    },
    **{
        "x-kubernetes-validations": [
            {"rule": "!has(self.names) || self.names.all(n, n.size() < 6)", "message": "names are short"},
            {
                "rule": "!has(self.weights) || self.weights.all(k, self.weights[k] < 10)",
                "messageExpression": "'at most 9 each'",
                "reason": "FieldValueForbidden",
                "fieldPath": ".weights",
            },
            {"rule": "!has(self.note) || !self.note.matches('^x+$')", "message": "a note says something"},
        ]
    },
)


def _version(name: str, storage: bool, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": _struct({"spec": _SPEC})},
        "additionalPrinterColumns": [
            {"name": "Teeth", "type": "integer", "jsonPath": ".spec.teeth"},
            {"name": "Ratio", "type": "number", "jsonPath": ".spec.ratio"},
            {"name": "Names", "type": "string", "jsonPath": ".spec.names"},
            {"name": "First", "type": "string", "jsonPath": ".spec.names[0]"},
            {"name": "Since", "type": "date", "jsonPath": ".spec.since"},
            {"name": "Missing", "type": "boolean", "jsonPath": ".spec.nosuch"},
        ],
        "selectableFields": [{"jsonPath": ".spec.note"}],
        **more,
    }


def _crd(name: str = "gears", **spec: Any) -> dict[str, Any]:
    body = {
        "group": _GROUP,
        "scope": "Namespaced",
        "names": {"plural": name, "singular": name[:-1], "kind": name[:-1].capitalize()},
        "versions": [_version("v1", True), _version("v1beta1", False, deprecated=True)],
        **spec,
    }
    return obj("CustomResourceDefinition", f"{name}.{_GROUP}", "apiextensions.k8s.io/v1", spec=body)


def _gear(name: str, /, version: str = "v1", **spec: Any) -> dict[str, Any]:
    return obj("Gear", name, f"{_GROUP}/{version}", spec=spec)


def _post(body: dict[str, Any]) -> Step:
    return Http("POST", _GEARS, body)


def _bad_schema(schema: Any) -> Step:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return Http("POST", _CRDS, _crd("cogs", versions=[version]))


SCENARIOS: dict[str, list[Step]] = {
    "definitions": [
        _bad_schema({"properties": {"spec": {}}}),
        _bad_schema(_struct({"spec": _struct({"a": {"type": "integer", "default": "x"}})})),
        _bad_schema(_struct({"spec": _struct({"a": {"type": "sum"}})})),
        _bad_schema(_struct({"spec": {"type": "array"}})),
        _bad_schema(_struct({"spec": _struct({}, **{"x-kubernetes-validations": [{"rule": "self."}]})})),
        _bad_schema(_struct({"spec": _struct({}, **{"x-kubernetes-validations": [{"rule": ""}]})})),
        _bad_schema(_struct({"metadata": _struct({"labels": {"type": "object"}})})),
        Http(
            "POST",
            _CRDS,
            _crd("cogs", names={"plural": "cogs", "singular": "cog", "kind": "bad kind", "listKind": "CogList"}),
        ),
        Http("POST", _CRDS, _crd("cogs", versions=[_version("v1", True), _version("v1", False)])),
        Http("POST", _CRDS, _crd("cogs", versions=[_version("1bad", True)])),
        Kubectl("create -f -", _crd()),
        Kubectl(f"wait crd/gears.{_GROUP} --for=condition=Established --timeout=20s", quiet=True),
        Kubectl(["wait", f"crd/gears.{_GROUP}", "--for=jsonpath={.status.acceptedNames.kind}=Gear"], quiet=True),
        Http("GET", f"/apis/{_GROUP}"),
        Http("GET", f"/apis/{_GROUP}/v1beta1"),
        _post(_gear("plain", teeth=4, names=["ab", "cd"], since="2026-01-01T00:00:00Z", fixed="f", ratio=0.5)),
        _post(_gear("null", note=None, limits=None)),
        _post(_gear("bare")),
        _post(_gear("odd", teeth=3)),
        _post(_gear("zero", ratio=0)),
        _post(_gear("late", since="yesterday")),
        _post(_gear("address", address="1.2.3.400")),
        _post(_gear("short", names=["a"])),
        _post(_gear("twice", names=["ab", "ab"])),
        _post(_gear("none", names=[])),
        _post(_gear("long", names=["abcdefgh"])),
        _post(_gear("range", limits={"low": 5, "high": 2})),
        _post(_gear("heavy", weights={"a": 11})),
        _post(_gear("negative", weights={"a": -1})),
        _post(_gear("crowded", weights={"a": 1, "b": 2, "c": 3})),
        _post(_gear("empty", note="xxx")),
        _post(_gear("inner", template={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "x": 1})),
        _post(_gear("kindless", template={"x": 1})),
        _post(_gear("wrong", teeth="4")),
        _post(_gear("wrong", names="ab")),
        Http("PATCH", f"{_GEARS}/plain", {"spec": {"fixed": "g"}}, MERGE),
        Http("PATCH", f"{_GEARS}/plain", {"spec": {"teeth": 8}}, MERGE),
        Http("PATCH", f"{_GEARS}/plain", {"spec": None}, MERGE),
        Http("GET", f"/apis/{_GROUP}/v1beta1/namespaces/$NS/gears/plain"),
        Http("POST", f"/apis/{_GROUP}/v1beta1/namespaces/$NS/gears", _gear("old", version="v1beta1", teeth=2)),
        Http("GET", _GEARS, accept=TABLE),
        Http("GET", f"{_GEARS}?fieldSelector=spec.note%3Dnone,metadata.name%3Dbare"),
        Http("GET", f"{_GEARS}?limit=2"),
        Kubectl(f"get gears.{_GROUP}"),
        Kubectl("explain gears.spec.limits"),
        Kubectl("explain gears --recursive"),
        Kubectl(["patch", f"gears.{_GROUP}", "plain", "--type=merge", "-p", '{"metadata":{"finalizers":["a.b/c"]}}']),
        Kubectl(f"delete gears.{_GROUP} --all --wait=false"),
        Http("GET", f"{_GEARS}/plain"),
        Http("DELETE", f"{_CRDS}/gears.{_GROUP}"),
        Kubectl(["wait", f"crd/gears.{_GROUP}", "--for=condition=Terminating", "--timeout=20s"], quiet=True),
        _post(_gear("late")),
        Http("PATCH", f"{_GEARS}/plain", {"metadata": {"finalizers": None}}, MERGE),
        Kubectl(f"wait crd/gears.{_GROUP} --for=delete --timeout=20s", quiet=True),
        Http("GET", f"{_CRDS}/gears.{_GROUP}"),
    ],
}
