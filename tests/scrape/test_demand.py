"""Targets behind Governors are scraped more often, and whoever waits is told by name."""

from typing import Any

import pytest

from flyball.scrape.demand import Demand
from flyball.scrape.targets import Target


class Manager:
    """Stands for the scrape manager: targets and the interval asked for."""

    def __init__(self, targets: list[Target]) -> None:
        self.targets, self.override = targets, None

    def running(self) -> list[Target]:
        return self.targets

    def set_interval(self, override: Any) -> None:
        self.override = override

    def intervals(self) -> list[int | None]:
        assert self.override is not None
        return [self.override(target) for target in self.targets]


def target(name: str, interval_ms: int = 15_000, namespace: str = "shop", **labels: str) -> Target:
    meta = "__meta_kubernetes_"
    found = {f"{meta}namespace": namespace, f"{meta}pod_name": name}
    found |= {f"{meta}pod_label_{key}": value for key, value in labels.items()}
    return Target(f"http://{name}/metrics", (("instance", name),), found, interval_ms, interval_ms)


def governor(selector: str = "app=web", **spec: Any) -> dict[str, Any]:
    body = {"profile": "fast", "metrics": [{"type": "Pods"}]} | spec
    return {"metadata": {"namespace": "shop", "name": "web"}, "spec": body, "status": {"selector": selector}}


def demand(manager: Manager, woken: list[tuple[str, str]], **options: Any) -> Demand:
    return Demand(None, manager, lambda *name: woken.append(name), **options)  # type: ignore[arg-type]


PODS = [
    target("web-1", app="web"),
    target("web-2", 500, app="web"),
    target("api-1", app="api"),
    target("other", namespace="office", app="web"),
]


def test_only_what_is_behind_a_fast_governor_is_scraped_each_second() -> None:
    manager, woken = Manager(PODS), []
    found = demand(manager, woken)
    found._changed("ADDED", None, governor())
    assert manager.intervals() == [1000, 500, None, None]
    for one in PODS:
        found._landed(one, 0)
    assert woken == [("shop", "web")] * 2
    found._changed("MODIFIED", governor(), governor(profile="parity"))
    assert manager.intervals() == [None] * 4
    found._changed("MODIFIED", governor(profile="parity"), governor())
    found._changed("DELETED", governor(), None)
    assert manager.intervals() == [None] * 4


def test_a_label_whose_name_discovery_rewrites() -> None:
    pods = [target("web-1", app_kubernetes_io_name="web"), target("web-2", app_kubernetes_io_name="api")]
    manager = Manager(pods)
    demand(manager, [])._changed("ADDED", None, governor("app.kubernetes.io/name in (web)"))
    assert manager.intervals() == [1000, None]


@pytest.mark.parametrize("spec", [{"pause": True}, {"profile": "parity"}])
def test_who_needs_no_haste(spec: dict[str, Any]) -> None:
    manager = Manager(PODS)
    found = demand(manager, [])
    found._changed("ADDED", None, governor(**spec))
    found._changed("ADDED", None, governor("this is no selector ="))
    assert manager.override is None


def test_nodes_are_asked_where_resources_count() -> None:
    node = Target("https://n/metrics", (), {"__meta_kubernetes_node_name": "n"}, 5_000, 5_000)
    manager = Manager([node])
    found = demand(manager, [])
    found._changed("ADDED", None, governor())
    assert manager.intervals() == [None]
    found._changed("MODIFIED", governor(), governor(metrics=[{"type": "Resource"}]))
    assert manager.intervals() == [1000]


def test_above_the_budget_the_interval_grows_up_to_the_jobs_own() -> None:
    pods = [target(f"web-{at}", app="web") for at in range(250)]
    manager = Manager(pods)
    found = demand(manager, [], budget=100)
    found._changed("ADDED", None, governor())
    found.count()
    assert set(manager.intervals()) == {3000}
    found = demand(manager, [], budget=10)
    found._changed("ADDED", None, governor())
    found.count()
    assert set(manager.intervals()) == {15_000}


def test_a_pod_whose_labels_change_comes_and_goes() -> None:
    pod = target("web-1", app="api")
    manager = Manager([pod])
    found = demand(manager, [])
    found._changed("ADDED", None, governor())
    assert manager.intervals() == [None]
    manager.targets = [target("web-1", app="web")]
    found.count()
    assert manager.intervals() == [1000]
