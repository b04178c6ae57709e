"""Bodies recorded from kubectl 1.32, and damaged ones."""

import base64
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import QueryError
from flyball.localcluster import schema

RECORDED = Path(__file__).with_name("recorded")


def decoded(name: str) -> dict[str, Any]:
    return schema.decode_protobuf((RECORDED / f"{name}.pb").read_bytes())


def test_create_deployment() -> None:
    assert decoded("deployment") == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "nginx",
                            "image": "nginx:1.27",
                            "command": ["sleep", "1d"],
                            "ports": [{"containerPort": 8080}],
                            "resources": {},
                        }
                    ]
                },
            },
        },
        "status": {},
    }


def test_create_configmap_with_empty_value_and_binary_file() -> None:
    obj = decoded("configmap")
    assert obj["data"] == {"mode": "fast", "empty": "", "note.txt": "file body\n"}
    assert base64.b64decode(obj["binaryData"]["blob"]) == bytes(range(200, 256))


def test_autoscale_sends_autoscaling_v1() -> None:
    obj = decoded("hpa")
    assert obj["apiVersion"] == "autoscaling/v1"
    assert obj["spec"] == {
        "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
        "minReplicas": 2,
        "maxReplicas": 10,
        "targetCPUUtilizationPercentage": 60,
    }


def test_int_or_string_quantities_and_bytes() -> None:
    assert [p["targetPort"] for p in decoded("service")["spec"]["ports"]] == ["http", 8443]
    assert decoded("quota")["spec"]["hard"] == {"cpu": "1", "memory": "512Mi", "pods": "3"}
    assert decoded("secret")["data"] == {"user": "YWRh"}
    assert decoded("pdb")["spec"]["minAvailable"] == "50%"


def test_inlined_structs_have_no_level_of_their_own() -> None:
    path = decoded("ingress")["spec"]["rules"][0]["http"]["paths"][0]
    assert path == {
        "path": "/",
        "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"number": 80}}},
    }


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.pb")), ids=lambda p: p.stem)
def test_every_recorded_body_has_only_known_and_rightly_typed_fields(path: Path) -> None:
    obj = schema.decode_protobuf(path.read_bytes())
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = schema.find_kind(group, version, obj["kind"])
    if kind is None:
        assert obj["kind"] == "TokenRequest"
        assert obj["spec"]["expirationSeconds"] == 600
        return
    assert schema.validate_fields(kind, obj) == []
    assert schema.type_errors(kind, obj) == []
    schema.default(kind, obj)
    assert schema.validate(kind, obj, None) == []


@pytest.mark.parametrize("name", ["deployment", "configmap", "ingress"])
def test_a_body_cut_anywhere_is_refused_or_read_but_never_crashes(name: str) -> None:
    body = (RECORDED / f"{name}.pb").read_bytes()
    refused = 0
    for end in range(len(body)):
        try:
            schema.decode_protobuf(body[:end])
        except QueryError:
            refused += 1
    assert refused > len(body) // 2


def field(number: int, data: bytes) -> bytes:
    assert len(data) < 128 and number < 256
    tag = number << 3 | 2
    return (bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])) + bytes([len(data)]) + data


def envelope(api_version: str, kind: str, raw: bytes, *rest: bytes) -> bytes:
    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, meta) + field(2, raw) + b"".join(rest)


def test_times_negative_numbers_and_volumes_by_hand() -> None:
    # coreV1 ObjectMeta.creationTimestamp is field 8: Time{seconds=1}; Pod.spec.priority (25, varint) = -1
    meta = field(1, field(1, b"p") + field(8, b"\x08\x01"))
    config = field(2, field(19, field(1, field(1, b"settings"))))
    volume = field(1, field(1, b"v") + config)
    priority = b"\xc8\x01" + b"\xff" * 9 + b"\x01"
    obj = schema.decode_protobuf(envelope("v1", "Pod", meta + field(2, volume + priority)))
    assert obj["metadata"] == {"name": "p", "creationTimestamp": "1970-01-01T00:00:01Z"}
    assert obj["spec"]["volumes"] == [{"name": "v", "configMap": {"name": "settings"}}]
    assert obj["spec"]["priority"] == -1


def test_unknown_field_numbers_are_skipped() -> None:
    raw = field(1, field(1, b"x")) + b"\xf8\x3f\x05"
    assert schema.decode_protobuf(envelope("v1", "ConfigMap", raw))["metadata"] == {"name": "x"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "no Kubernetes protobuf envelope"),
        (envelope("example.com/v1", "Widget", b""), 'no kind "Widget" is registered for version "example.com/v1"'),
        (envelope("v1", "ConfigMap", b"\x0b"), "wire type 3"),
        (envelope("v1", "ConfigMap", b"\x08\x01"), "a number stands where"),
        (envelope("v1", "ConfigMap", b"", field(3, b"gzip")), "contentEncoding"),
        (envelope("v1", "ConfigMap", field(1, field(1, b"\xff"))), "not UTF-8"),
    ],
)
def test_bad_bodies_are_query_errors(body: bytes, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        schema.decode_protobuf(body)


def test_an_envelope_may_hold_json() -> None:
    body = envelope("example.com/v1", "Widget", b'{"kind":"Widget"}', field(4, b"application/json"))
    assert schema.decode_protobuf(body) == {"kind": "Widget"}
