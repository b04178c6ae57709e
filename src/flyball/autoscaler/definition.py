"""The CustomResourceDefinition of Governors, as applied by ``flyball up`` and by hand on a cluster."""

from typing import Any

from flyball.kube.kinds import CRDS, GOVERNORS
from flyball.scaling.governor import FORECAST_MODELS

Schema = dict[str, Any]


def governor_definition() -> Schema:
    """The manifest."""
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {"name": f"{GOVERNORS.plural}.{GOVERNORS.group}"},
        "spec": {
            "group": GOVERNORS.group,
            "scope": "Namespaced",
            "names": {
                "kind": GOVERNORS.kind,
                "listKind": GOVERNORS.list_kind,
                "plural": GOVERNORS.plural,
                "singular": "governor",
                "shortNames": ["gov"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": GOVERNORS.version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        _column("Reference", ".spec.scaleTargetRef.name"),
                        _column("Profile", ".spec.profile"),
                        _column("MinPods", ".spec.minReplicas", "integer"),
                        _column("MaxPods", ".spec.maxReplicas", "integer"),
                        _column("Replicas", ".status.currentReplicas", "integer"),
                        _column("Shadow", ".spec.shadow", "boolean"),
                        _column("Age", ".metadata.creationTimestamp", "date"),
                    ],
                    "schema": {
                        "openAPIV3Schema": _object(
                            {
                                "apiVersion": _string(),
                                "kind": _string(),
                                "metadata": {"type": "object"},
                                "spec": _spec(),
                                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            },
                            required=["spec"],
                        )
                    },
                }
            ],
        },
    }


def _spec() -> Schema:
    reference = {"apiVersion": _string(), "kind": _string(min_length=1), "name": _string(min_length=1)}
    return _object(
        {
            "scaleTargetRef": _object(reference, required=["kind", "name"]),
            "minReplicas": _whole(0),
            "maxReplicas": _whole(1),
            "metrics": _list(_metric()),
            "behavior": _object({"scaleUp": _rules(), "scaleDown": _rules()}),
            "profile": _described(
                "parity computes what kube-controller-manager computes, at its beat; fast sizes from demand as soon as"
                " a sample lands.",
                {"type": "string", "enum": ["parity", "fast"], "default": "parity"},
            ),
            "schedule": _described("Calendar floors and ceilings.", _list(_schedule())),
            "forecast": _described(
                "Size for the demand when a pod that starts now is ready. It never scales in, and counts only while it"
                " errs less than that demand stays as it is.",
                _object(
                    {
                        "startupSeconds": _described(
                            "How long a pod takes to be ready; without it as its pods have taken.", _whole(1, 3600)
                        ),
                        "maxReplicas": _described("A forecast asks for no more than this.", _whole(1)),
                        "model": _described(
                            "linear (default) learns from recent changes, the day and the week. holt-winters adds a"
                            " smoothed day, from the extra forecast: pip install 'flyball[forecast]'.",
                            {"type": "string", "enum": sorted(FORECAST_MODELS)},
                        ),
                    }
                ),
            ),
            "fallback": _described(
                "Hold at least so many replicas once a metric has been lost for afterSeconds.",
                _object({"afterSeconds": _whole(0, 86_400), "replicas": _whole(1)}, required=["replicas"]),
            ),
            "override": _described(
                "A person's number, until it expires; see flyball scale.",
                _object(
                    {"replicas": _whole(0), "until": {"type": "string", "format": "date-time"}}, required=["replicas"]
                ),
            ),
            "pause": _described("Decide and record, and leave the size as it is.", {"type": "boolean"}),
            "shadow": _described("Decide and record beside another autoscaler; write nothing.", {"type": "boolean"}),
        },
        required=["scaleTargetRef", "maxReplicas"],
    )


def _metric() -> Schema:
    target = _object(
        {
            "type": {"type": "string", "enum": ["Utilization", "Value", "AverageValue"]},
            "value": _quantity(),
            "averageValue": _quantity(),
            "averageUtilization": _whole(1),
        },
        required=["type"],
    )
    selector = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    identifier = _object({"name": _string(min_length=1), "selector": selector}, required=["name"])
    described = _object(
        {"apiVersion": _string(), "kind": _string(min_length=1), "name": _string(min_length=1)},
        required=["kind", "name"],
    )
    resource = {"name": _string(min_length=1), "target": target}
    custom = {"metric": identifier, "target": target}
    return _object(
        {
            "type": {"type": "string", "enum": ["Resource", "ContainerResource", "Pods", "Object", "External"]},
            "resource": _object(resource, required=["name", "target"]),
            "containerResource": _object(
                {**resource, "container": _string(min_length=1)}, required=["name", "container", "target"]
            ),
            "pods": _object(custom, required=["metric", "target"]),
            "object": _object(
                {**custom, "describedObject": described}, required=["describedObject", "metric", "target"]
            ),
            "external": _object(custom, required=["metric", "target"]),
        },
        required=["type"],
    )


def _rules() -> Schema:
    policy = _object(
        {
            "type": {"type": "string", "enum": ["Pods", "Percent"]},
            "value": _whole(1),
            "periodSeconds": _whole(1, 1800),
        },
        required=["type", "value", "periodSeconds"],
    )
    return _object(
        {
            "stabilizationWindowSeconds": _whole(0, 3600),
            "selectPolicy": {"type": "string", "enum": ["Max", "Min", "Disabled"]},
            "policies": _list(policy),
            "tolerance": _quantity(),
        }
    )


def _schedule() -> Schema:
    day = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
    return _object(
        {
            "name": _string(),
            "timeZone": _string(),
            "start": _string(min_length=1),
            "end": _string(min_length=1),
            "minReplicas": _whole(0),
            "maxReplicas": _whole(1),
            "dates": _list(day),
            "exceptions": _list(day),
        },
        required=["start", "end"],
    )


def _described(text: str, schema: Schema) -> Schema:
    return {"description": text, **schema}


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _string(min_length: int = 0) -> Schema:
    return {"type": "string", **({"minLength": min_length} if min_length else {})}


def _whole(low: int, high: int | None = None) -> Schema:
    limit = {} if high is None else {"maximum": high}
    return {"type": "integer", "format": "int32", "minimum": low, **limit}


def _quantity() -> Schema:
    return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def _column(name: str, path: str, kind: str = "string") -> Schema:
    return {"name": name, "type": kind, "jsonPath": path}
