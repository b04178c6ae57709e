"""Governors that an API server refuses, each field in kubectl's words."""

from typing import Any

import pytest

from flyball.localcluster.schema import KINDS
from flyball.localcluster.schema.validation import validate_own
from flyball.scaling import governor

PODS = {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}


def problems(**fields: Any) -> list[str]:
    kind = next(kind for kind in KINDS if kind.kind == "HorizontalPodAutoscaler" and kind.version == "v2")
    kind = type(kind)(**{**{name: getattr(kind, name) for name in kind.__slots__}, **OURS})
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": ref, "maxReplicas": 9, "metrics": [PODS], **fields}
    obj = {"apiVersion": "flyball.dev/v1alpha1", "kind": "Governor", "metadata": {"name": "web"}, "spec": spec}
    return [cause.message for cause in validate_own(kind, obj, None)]


OURS = {"group": "flyball.dev", "version": "v1alpha1", "kind": "Governor"}
RULE = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "minReplicas": 3}


def test_a_good_one() -> None:
    assert problems(schedule=[RULE], forecast={}, fallback={"replicas": 3}, override={"replicas": 0}) == []


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (
            {"minReplicas": 12},
            ["spec.maxReplicas: Invalid value: 9: must be greater than or equal to `minReplicas`"],
        ),
        (
            {"minReplicas": 0},
            [
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to "
                "zero replicas"
            ],
        ),
        (
            {"schedule": [RULE, {**RULE, "timeZone": "Mars/Olympus"}, {**RULE, "start": "0 25 * * *"}]},
            [
                'spec.schedule[1].timeZone: Invalid value: "Mars/Olympus": use a name such as Europe/Berlin or UTC',
                'spec.schedule[2].start: Invalid value: "0 25 * * *" is not a cron time',
            ],
        ),
        (
            {"schedule": [{**RULE, "maxReplicas": 2}]},
            ["spec.schedule[0].maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
        ),
        (
            {"override": {"replicas": 3, "until": "tomorrow"}, "fallback": {"afterSeconds": 3}},
            [
                "spec.fallback.replicas: Required value: how many replicas to hold when a metric is lost",
                'spec.override.until: Invalid value: "tomorrow": write a time as 2026-12-24T18:00:00Z',
            ],
        ),
        (
            {"forecast": {"model": "holtwinters", "startupSeconds": 20}},
            ['spec.forecast.model: Unsupported value: "holtwinters": supported values: "holt-winters", "linear"'],
        ),
        ({"metrics": [{"type": "Pods"}]}, ["spec.metrics[0].pods: Required value: must populate information for the"]),
    ],
)
def test_a_wrong_one(fields: dict[str, Any], wanted: list[str]) -> None:
    found = problems(**fields)
    assert len(found) == len(wanted)
    for one, start in zip(found, wanted, strict=True):
        assert one.startswith(start)


def test_a_model_that_is_not_installed_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"forecast": {"model": "holt-winters"}}
    monkeypatch.setattr(governor, "find_spec", lambda _: None)
    assert problems(**asked) == [
        'spec.forecast.model: Invalid value: "holt-winters": statsmodels is not installed: '
        "pip install 'flyball[forecast]', or use \"linear\""
    ]
    assert problems(forecast={"model": "linear"}) == problems(forecast={}) == []
    monkeypatch.setattr(governor, "find_spec", lambda _: "there")
    assert problems(**asked) == []
