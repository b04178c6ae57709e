"""What the operator takes to write the configuration of 1,000 monitors: at first, and again after one has changed.

Each monitor has two endpoints with TLS, a token from a Secret and relabelling, as charts ship them. ``again`` is what
the event loop is held up for by every change in a cluster; CPU time, the median of several.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench.report import report
from flyball.operator.assets import ReadAssets
from flyball.operator.generation import Memo, generate

MONITORS, NAMESPACES, ROUNDS = 1_000, 20, 7
DATA = {"token": "c2VjcmV0"}


def monitor(number: int, version: int = 1) -> dict[str, Any]:
    endpoint = {
        "port": "https",
        "scheme": "https",
        "interval": "30s",
        "authorization": {"credentials": {"name": "scrape", "key": "token"}},
        "tlsConfig": {"serverName": f"app-{number}", "ca": {"configMap": {"name": "ca", "key": "ca.crt"}}},
        "relabelings": [{"action": "replace", "sourceLabels": ["__meta_kubernetes_pod_node_name"],
                         "targetLabel": "instance"}],
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "go_.+|process_.+"}],
    }  # fmt: skip
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": f"app-{number}",
            "namespace": f"team-{number % NAMESPACES}",
            "labels": {"app": f"app-{number}"},
            "uid": str(number),
            "resourceVersion": str(version),
        },
        "spec": {
            "selector": {"matchLabels": {"app": f"app-{number}"}},
            "jobLabel": "app",
            "endpoints": [endpoint, {**endpoint, "port": "admin", "interval": f"{30 + version % 2}s"}],
        },
    }


def cpu_ms(work: Callable[[], Any]) -> float:
    begun_s = time.process_time()
    work()
    return 1000 * (time.process_time() - begun_s)


def main() -> None:
    everything = {"name": "k8s", "namespace": "monitoring", "uid": "k8s", "resourceVersion": "1"}
    spec = {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}}
    objects: dict[str, list[dict[str, Any]]] = {
        "Prometheus": [{"kind": "Prometheus", "metadata": everything, "spec": spec}],
        "ServiceMonitor": [monitor(number) for number in range(MONITORS)],
    }
    namespaces = {f"team-{number}": {"team": str(number)} for number in range(NAMESPACES)}
    held = dict.fromkeys(namespaces)
    assets = ReadAssets(
        {(name, "scrape"): DATA for name in held}, {(name, "ca"): {"ca.crt": "-----BEGIN"} for name in held}
    )
    memo = Memo()

    def written(memo: Memo = memo) -> bytes:
        return msgspec.json.encode(generate(objects, namespaces, assets, memo).config)

    report("operator", f"{MONITORS} monitors at first", cpu_ms(written), "ms")
    again = []
    for version in range(2, ROUNDS + 2):
        objects["ServiceMonitor"][MONITORS // 2] = monitor(MONITORS // 2, version)
        again.append(cpu_ms(written))
    report("operator", f"{MONITORS} monitors again", statistics.median(again), "ms")
    if written() != written(Memo()):
        raise SystemExit("what was kept is not what it would be anew")


if __name__ == "__main__":
    main()
