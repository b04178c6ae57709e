"""Which Prometheus object takes what, and what becomes of the rest."""

from typing import Any

import pytest

from flyball.operator.assets import ReadAssets
from flyball.operator.generation import Generated, Memo, generate

NAMESPACES = {"shop": {"team": "a"}, "bank": {"team": "b"}, "monitoring": {}}


def prometheus(name: str = "k8s", namespace: str = "monitoring", **spec: Any) -> dict[str, Any]:
    return {"kind": "Prometheus", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def monitor(namespace: str, name: str = "web", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "labels": labels or {}}
    return {"metadata": metadata, "spec": {"selector": {}, "endpoints": [{"port": "http"}], **spec}}


def rules(namespace: str, expr: str = "up == 0") -> dict[str, Any]:
    group = {"name": "g", "rules": [{"alert": "Down", "expr": expr}]}
    return {"metadata": {"namespace": namespace, "name": "r", "uid": "1"}, "spec": {"groups": [group]}}


def generated(**objects: list[dict[str, Any]]) -> Generated:
    return generate(objects, NAMESPACES, ReadAssets({}, {}))


def jobs(found: Generated) -> list[str]:
    return [job["job_name"].split("/", 1)[1] for job in found.config["scrape_configs"]]


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({}, []),
        ({"serviceMonitorSelector": {}}, ["monitoring/web/0"]),
        (
            {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}},
            ["bank/web/0", "monitoring/web/0", "shop/web/0"],
        ),
        (
            {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {"matchLabels": {"team": "a"}}},
            ["shop/web/0"],
        ),
        (
            {"serviceMonitorSelector": {"matchLabels": {"tier": "x"}}, "serviceMonitorNamespaceSelector": {}},
            ["bank/web/0"],
        ),
    ],
)
def test_selectors_decide(spec: dict[str, Any], taken: list[str]) -> None:
    monitors = [monitor("shop"), monitor("bank", labels={"tier": "x"}), monitor("monitoring")]
    found = generated(Prometheus=[prometheus(**spec)], ServiceMonitor=monitors)
    assert jobs(found) == taken
    left = {f"{namespace}/{name}/0" for _, namespace, name in found.unselected}
    assert left == {"bank/web/0", "monitoring/web/0", "shop/web/0"} - set(taken)
    assert all("Prometheus monitoring/k8s" in why for why in found.unselected.values())


def test_without_a_prometheus_object_everything_is_taken() -> None:
    found = generated(ServiceMonitor=[monitor("shop")], PrometheusRule=[rules("bank")])
    assert jobs(found) == ["shop/web/0"] and len(found.rule_files) == 1 and not found.unselected


def test_an_object_that_two_select_is_taken_once() -> None:
    both: dict[str, Any] = {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}}
    found = generated(Prometheus=[prometheus("b", **both), prometheus("a", **both)], ServiceMonitor=[monitor("shop")])
    assert jobs(found) == ["shop/web/0"]
    assert found.owners["ServiceMonitor", "shop", "web"].name == "a"


def test_one_wrong_object_is_refused_alone() -> None:
    wrong = monitor("shop", "wrong", endpoints=[{"port": "http", "interval": "soon"}])
    found = generated(ServiceMonitor=[wrong, monitor("shop"), monitor("bank", endpoints="none")])
    assert jobs(found) == ["shop/web/0"]
    assert "spec.endpoints[0].interval" in found.refused["ServiceMonitor", "shop", "wrong"]
    assert "spec.endpoints" in found.refused["ServiceMonitor", "bank", "web"]


def test_a_wrong_prometheus_object_is_refused_and_its_monitors_say_so() -> None:
    wrong = prometheus(version="one", serviceMonitorSelector={}, serviceMonitorNamespaceSelector={})
    found = generated(Prometheus=[wrong], ServiceMonitor=[monitor("shop")])
    assert jobs(found) == [] and 'spec.version: "one"' in found.refused["Prometheus", "monitoring", "k8s"]
    assert found.unselected["ServiceMonitor", "shop", "web"] == "no Prometheus object is usable"


def test_an_additional_configuration_that_is_missing_leaves_the_monitors_in_force() -> None:
    both: dict[str, Any] = {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}}
    wanting = prometheus(additionalScrapeConfigs={"name": "more", "key": "jobs"}, **both)
    found = generated(Prometheus=[wanting], ServiceMonitor=[monitor("shop")])
    assert jobs(found) == ["shop/web/0"]
    assert "there is no Secret monitoring/more" in found.refused["Prometheus", "monitoring", "k8s"]


def test_the_enforced_label_confines_rules_and_targets() -> None:
    both: dict[str, Any] = {
        f"{kind}{what}": {} for kind in ("serviceMonitor", "rule") for what in ("Selector", "NamespaceSelector")
    }
    found = generated(
        Prometheus=[prometheus(enforcedNamespaceLabel="namespace", **both)],
        ServiceMonitor=[monitor("shop")],
        PrometheusRule=[rules("bank", "sum(up) / count(http_requests_total)")],
    )
    (job,) = found.config["scrape_configs"]
    assert job["relabel_configs"][-1] == {"target_label": "namespace", "replacement": "shop"}
    ((_, text),) = found.rule_files
    assert 'sum(up{namespace=\\"bank\\"}) / count(http_requests_total{namespace=\\"bank\\"})' in text
    assert '"labels": {"namespace": "bank"}' in text


def test_only_what_changed_is_made_anew() -> None:
    def versioned(name: str, version: int, **spec: Any) -> dict[str, Any]:
        obj = monitor("shop", name, **spec)
        return {**obj, "metadata": {**obj["metadata"], "uid": name, "resourceVersion": str(version)}}

    def found(*monitors: dict[str, Any], token: str | None = "YQ==") -> list[dict[str, Any]]:
        held = ReadAssets({("shop", "s"): {"token": token} if token else None}, {})
        documents: list[dict[str, Any]] = generate({"ServiceMonitor": monitors}, NAMESPACES, held, memo).config[
            "scrape_configs"
        ]
        return documents

    memo = Memo()
    credentials = {"authorization": {"credentials": {"name": "s", "key": "token"}}}
    plain, secret = versioned("a", 1), versioned("b", 1, endpoints=[{"port": "http", **credentials}])
    first = found(plain, secret)
    assert [job["authorization"]["credentials"] for job in first[1:]] == ["a"]
    again = found(plain, secret)
    assert all(one is other for one, other in zip(first, again, strict=True))
    rotated = found(plain, secret, token="Yg==")
    assert rotated[0] is first[0] and rotated[1]["authorization"]["credentials"] == "b"
    assert found(plain, secret, token=None) == first[:1]  # the Secret is gone, and so is the job
    assert found(plain, secret) == first
    edited = found(versioned("a", 2, endpoints=[{"port": "other"}]), secret)
    assert edited[0] != first[0] and edited[0]["job_name"] == first[0]["job_name"]
    assert found(secret) == first[1:]
