"""What is said of a monitor that finds no target."""

from typing import Any

from flyball.operator.explain import why_no_targets


def meta(name: str, **labels: str) -> dict[str, Any]:
    return {"namespace": "shop", "name": name, "labels": labels}


def service(name: str, *ports: str, **labels: str) -> dict[str, Any]:
    return {"metadata": meta(name, **labels), "spec": {"ports": [{"name": port, "port": 80} for port in ports]}}


def endpoints(name: str, *ready: bool) -> dict[str, Any]:
    metadata = {**meta(name), "labels": {"kubernetes.io/service-name": name}}
    return {"metadata": metadata, "endpoints": [{"conditions": {"ready": one}} for one in ready]}


def monitor(**spec: Any) -> dict[str, Any]:
    return {"metadata": meta("m"), "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}


HTTP = {"endpoints": [{"port": "http"}]}


def test_no_service_has_the_labels() -> None:
    assert why_no_targets(monitor(**HTTP), {"Service": [service("a", "http", app="other")]}) == [
        'no Service in namespace shop has the labels "app=web"'
    ]
    everywhere = monitor(**HTTP, namespaceSelector={"any": True})
    assert why_no_targets(everywhere, {}) == ['no Service in any namespace has the labels "app=web"']


def test_each_service_tells_what_it_lacks() -> None:
    services = [
        service("a", "http", app="web"),
        service("b", "metrics", "admin", app="web"),
        service("c", "http", app="web"),
    ]
    slices = [endpoints("a", True, True, False), endpoints("c", False)]
    assert why_no_targets(monitor(**HTTP), {"Service": services, "EndpointSlice": slices}) == [
        'port http: 2 ready endpoints; no port is named "http" in Service shop/b (metrics, admin); '
        "no ready endpoint in Service shop/c"
    ]


def test_pods_are_asked_for_their_ports() -> None:
    def pod(name: str, phase: str, *ports: str) -> dict[str, Any]:
        declared = [{"name": port, "containerPort": 8000 + number} for number, port in enumerate(ports)]
        return {
            "metadata": meta(name, app="web"),
            "spec": {"containers": [{"ports": declared}]},
            "status": {"phase": phase},
        }

    about = monitor(podMetricsEndpoints=[{"port": "http"}, {"portNumber": 8001}, {"port": "x"}])
    pods = [pod("a", "Running", "http", "admin"), pod("b", "Succeeded", "http")]
    assert why_no_targets(about, {"Pod": pods}) == [
        "port http: 1 of 2 pods",
        "port 8001: 1 of 2 pods",
        "port x: no target; no container declares it, but 8000, 8001, admin, http",
    ]
    assert why_no_targets(about, {"Pod": pods[1:]})[0] == "port http: no target; all 1 pods have ended"
