"""One scenario for the real prometheus-adapter and for us: a configuration, objects, series, and requests."""

import json
import re
from typing import Any

from .world import Prometheus, pod

CONFIG = r"""
rules:
- seriesQuery: '{__name__=~"^app_.*",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^app_(.*)$"}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: requests_total
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)
- seriesQuery: service_hits
  resources: {overrides: {ns: {resource: namespaces}, svc: {resource: services}, node: {resource: node}}}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: lost_label
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>})
- seriesQuery: broken_query
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by
- seriesQuery: broken_template
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: <<index .GroupBySlice 7>>
- seriesQuery: no_such_series
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: <<.Series>>
externalRules:
- seriesQuery: queue_length
  resources: {namespaced: false}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)
- seriesQuery: jobs_waiting
  resources: {overrides: {namespace: {resource: namespace}}}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
- seriesQuery: no_namespace
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
- seriesQuery: a_scalar
  resources: {namespaced: false}
  metricsQuery: scalar(<<.Series>>)
- seriesQuery: a_matrix
  resources: {namespaced: false}
  metricsQuery: <<.Series>>[1m]
resourceRules:
  cpu:
    containerQuery: sum(cpu_cores{<<.LabelMatchers>>,container!=""}) by (<<.GroupBy>>)
    nodeQuery: sum(node_cpu_cores{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
  memory:
    containerQuery: sum(memory_bytes{<<.LabelMatchers>>,container!=""}) by (<<.GroupBy>>)
    nodeQuery: sum(node_memory_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
  window: 5m
"""


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def objects() -> list[dict[str, Any]]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        pod("web-1", app="web"),
        pod("web-2", app="web", tier="front"),
        pod("web-3", phase="Pending", app="web"),
        pod("db.0", app="db"),
        pod("dbx0", app="dbx"),
        pod("idle", app="idle"),
        pod("cart-1", "shop", app="web"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "front", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"ports": [{"port": 80}]},
        },
        node("node-a", zone="a"),
        node("node-b", zone="b"),
    ]


#: Every form that quantities take.
QUANTITIES = [
    0,
    1,
    0.1,
    1.5,
    12,
    0.0001,
    1234567,
    12_000,
    1e6,
    1e9,
    1.23456789,
    1e12,
    999,
    -5,
    -0.0025,
    5e15,
    123456.789,
]


def series(prometheus: Prometheus) -> None:
    def app(name: str, pod_name: str, value: float, namespace: str = "default", **labels: str) -> None:
        prometheus.add({"__name__": f"app_{name}", "namespace": namespace, "pod": pod_name, **labels}, value)

    for name, code, value in (("web-1", "200", 3), ("web-1", "500", 1), ("web-2", "200", 4.25), ("web-3", "200", 2)):
        app("load", name, value, code=code)
    app("load", "cart-1", 11, "shop", code="200")
    app("load", "db.0", 7, code="200")
    app("load", "dbx0", 8, code="200")
    app("bad", "web-1", float("nan"))
    app("bad", "web-2", 2)
    app("endless", "web-1", float("inf"))
    for index, value in enumerate(QUANTITIES):
        app(f"quantity_{index}", "web-1", value)
    for name, per_second in (("web-1", 1.5), ("web-2", 20)):
        prometheus.counter(
            {"__name__": "requests_total", "namespace": "default", "pod": name, "job": "web"}, per_second, ahead_s=300
        )
    prometheus.add({"__name__": "service_hits", "ns": "default", "svc": "front", "node": "node-a"}, 42)
    prometheus.add({"__name__": "service_hits", "ns": "default", "svc": "other", "node": "node-b"}, 43)
    for name in ("lost_label", "broken_query", "broken_template"):
        prometheus.add({"__name__": name, "namespace": "default", "pod": "web-1"}, 1)
    for queue, value in (("a", 5), ("b", 7.5)):
        prometheus.add({"__name__": "queue_length", "queue": queue, "region": "eu"}, value)
    prometheus.add({"__name__": "jobs_waiting", "namespace": "default", "kind": "mail"}, 3)
    prometheus.add({"__name__": "jobs_waiting", "namespace": "shop", "kind": "mail"}, 4)
    prometheus.add({"__name__": "no_namespace"}, 1)
    prometheus.add({"__name__": "a_scalar"}, 6)
    prometheus.add({"__name__": "a_matrix"}, 6)
    usage = (("web-1", "main", 0.25, 5 << 20), ("web-1", "side", 0.0015, 3100), ("web-2", "main", 2, 1536 << 20))
    for name, container, cores, size in usage:
        labels = {"namespace": "default", "pod": name, "container": container}
        prometheus.add({"__name__": "cpu_cores", **labels}, cores)
        prometheus.add({"__name__": "memory_bytes", **labels}, size)
    shop = {"namespace": "shop", "pod": "cart-1", "container": "main"}
    prometheus.add({"__name__": "cpu_cores", **shop}, 0.5)
    prometheus.add({"__name__": "memory_bytes", **shop}, 12_345_678)
    prometheus.add({"__name__": "cpu_cores", "namespace": "default", "pod": "db.0", "container": "main"}, 1)
    prometheus.add({"__name__": "node_cpu_cores", "node": "node-a"}, 1.25)
    prometheus.add({"__name__": "node_memory_bytes", "node": "node-a"}, 8 << 30)
    prometheus.add({"__name__": "node_cpu_cores", "node": "node-b"}, 0.75)


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_C1, _C2 = "/apis/custom.metrics.k8s.io/v1beta1", "/apis/custom.metrics.k8s.io/v1beta2"
_E, _M = "/apis/external.metrics.k8s.io/v1beta1", "/apis/metrics.k8s.io/v1beta1"
_NS = "/namespaces/default"

#: (path, Accept)
REQUESTS: list[tuple[str, str]] = [
    *((path, "") for path in (_C1, _C2, _E, _M)),
    *(
        (base + _NS + rest, "")
        for base in (_C1, _C2)
        for rest in (
            "/pods/*/load",
            "/pods/*/load?labelSelector=app%3Dweb",
            "/pods/*/load?labelSelector=app%3Dweb,tier",
            "/pods/*/load?labelSelector=app+in+(db)",
            "/pods/*/load?labelSelector=app%3Dnone",
            "/pods/*/load?labelSelector=app%3D%3D%3D",
            "/pods/*/load?metricLabelSelector=code%3D200",
            "/pods/*/load?metricLabelSelector=code+in+(200,500)",
            "/pods/*/load?metricLabelSelector=code!%3D200",
            "/pods/*/load?metricLabelSelector=code+notin+(200)",
            "/pods/*/load?metricLabelSelector=code",
            "/pods/*/load?metricLabelSelector=!code",
            "/pods/*/load?metricLabelSelector=code%3E1",
            "/pods/*/load?labelSelector=app%3Didle",
            "/pods/web-1/load",
            "/pods/web-1/load?labelSelector=app%3Dnone",
            "/pods/web-1/load?metricLabelSelector=code%3D500",
            "/pods/idle/load",
            "/pods/none/load",
            "/pod/web-1/load",
            "/pods/db.0/load",
            "/pods/*/bad",
            "/pods/web-1/bad",
            "/pods/*/requests_per_second?labelSelector=app%3Dweb",
            "/pods/web-1/lost_label",
            "/pods/*/lost_label",
            "/pods/web-1/broken_query",
            "/pods/web-1/broken_template",
            "/pods/web-1/no_such_series",
            "/pods/web-1/unknown",
            "/services/front/service_hits",
            "/services/*/service_hits",
            "/services/*/service_hits?labelSelector=app%3Dweb",
            "/metrics/load",
            "/metrics/requests_per_second",
            "/metrics/service_hits",
            "/metrics/unknown",
            "/jobs.batch/web/requests_per_second",
            "/pods/web-1/load?fieldSelector=metadata.name%3Dweb-1",
            "/pods/web-1/load?fieldSelector=metadata.name%3Dweb-2",
            "/nothing/web-1/load",
            "/pods",
            "/pods/web-1",
        )
    ),
    *((f"{_C1}{_NS}/pods/web-1/quantity_{index}", "") for index in range(len(QUANTITIES))),
    *(
        (base + rest, "")
        for base in (_C1, _C2)
        for rest in (
            "/nodes/node-a/service_hits",
            "/nodes/*/service_hits",
            "/nodes/*/service_hits?labelSelector=zone%3Db",
            "/namespaces/default/load",
            "/namespaces/*/metrics/load",
            "/pods/web-1/load",
            "/nodes/node-a/unknown",
            "/blah",
            "/nodes/foo",
        )
    ),
    *(
        (_E + rest, "")
        for rest in (
            _NS + "/queue_length",
            _NS + "/queue_length?labelSelector=queue%3Da",
            _NS + "/queue_length?labelSelector=queue+in+(a,b)",
            _NS + "/queue_length?labelSelector=queue%3Dnone",
            _NS + "/queue_length?labelSelector=queue!%3Da",
            _NS + "/queue_length?labelSelector=queue%3E1",
            _NS + "/jobs_waiting",
            "/namespaces/shop/jobs_waiting",
            "/namespaces/nothing/jobs_waiting",
            _NS + "/no_namespace",
            _NS + "/a_scalar",
            _NS + "/a_matrix",
            _NS + "/unknown",
            "/namespaces/shop/unknown",
            "/queue_length",
            _NS + "/queue_length/x",
        )
    ),
    *(
        (_M + rest, accept)
        for accept in ("", TABLE)
        for rest in (
            "/pods",
            _NS + "/pods",
            _NS + "/pods?labelSelector=app%3Dweb",
            _NS + "/pods?fieldSelector=metadata.name%3Dweb-2",
            _NS + "/pods/web-1",
            "/namespaces/shop/pods/cart-1",
            "/nodes",
            "/nodes?labelSelector=zone%3Da",
            "/nodes/node-a",
        )
    ),
    *((path, "") for path in (_C1.rpartition("/")[0], _E.rpartition("/")[0], _M.rpartition("/")[0])),
    *((path + "?pretty=true", "") for path in (_C1 + _NS + "/pods/web-1/load", _E + _NS + "/queue_length")),
    (_C1 + _NS + "/pods/*/load?labelSelector=app%3Dweb&limit=1", ""),
    (_C1 + _NS + "/pods/*/load?labelSelector=app%3Dweb&metricLabelSelector=%3D%3D", ""),
    (_E + _NS + "/queue_length?labelSelector=%3D%3D", ""),
    (_M + _NS + "/pods?labelSelector=%3D%3D", ""),
    (_M + _NS + "/pods?fieldSelector=spec.nodeName%3Dx", ""),
    (_M + "/nodes?fieldSelector=metadata.name%3Dnode-a", ""),
    *((_M + rest, "") for rest in (_NS + "/pods/idle", _NS + "/pods/none", "/nodes/none", "/nodes/node-b", "/blah")),
]

_TIMES = re.compile(rb'"(timestamp|creationTimestamp)": ?("[^"]*"|null)')


def comparable(body: bytes, path: str) -> str:
    """The body with what differs from run to run taken out: times, and upstream's random orders."""
    text = _TIMES.sub(rb'"\1":"T"', body.strip()).decode()
    document = json.loads(text)
    for item in document.get("items") or [document]:
        if isinstance(item.get("containers"), list):
            item["containers"].sort(key=lambda container: container["name"])
    if path.count("/") == 3:
        document["resources"].sort(key=lambda item: (item["name"], item["namespaced"]))
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
