"""The API server's own series, under the names that kube-apiserver's dashboards and alerts ask for.

Facts: staging/src/k8s.io/apiserver/pkg/endpoints/metrics/metrics.go of Kubernetes 1.37.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flyball.localcluster.durations import Durations, Series

BUCKETS_S = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0),
    *(8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)  # fmt: skip
_READ_ONLY = frozenset({"GET", "LIST", "WATCH"})
_LONG_RUNNING = frozenset({"WATCH", "CONNECT"})
_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component", "dry_run")


class About(NamedTuple):
    """What a request is about: the labels of its series."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    scope: str = ""
    component: str = "apiserver"
    dry_run: str = ""


def about(method: str, segments: list[str], params: Mapping[str, list[str]], content_type: str = "") -> About:
    """What an API request is about; paths outside the API have no resource.

    Args:
        segments: of the path, as ``["apis", "apps", "v1", "namespaces", "default", "deployments", "web", "scale"]``.
    """
    dry_run = ",".join(params.get("dryRun", ()))
    if not segments or segments[0] not in ("api", "apis"):
        return About(method, dry_run=dry_run)
    legacy = segments[0] == "api"
    group = "" if legacy else (segments[1] if len(segments) > 1 else "")
    version, rest = (segments[1:2], segments[2:]) if legacy else (segments[2:3], segments[3:])
    scope = "cluster"
    if len(rest) > 2 and rest[0] == "namespaces":
        scope, rest = "namespace", rest[2:]
    resource, name, subresource = (*rest, "", "", "")[:3]
    verb = method
    if method == "GET" and resource:
        watched = params.get("watch", ["0"])[0] not in ("0", "false", "False", "")
        verb = "WATCH" if watched else "GET" if name else "LIST"
    elif method == "DELETE" and resource and not name:
        verb = "DELETECOLLECTION"
    elif method == "PATCH" and content_type.startswith("application/apply-patch"):
        verb = "APPLY"
    if subresource in ("exec", "attach", "portforward", "proxy"):
        verb = "CONNECT"
    if name or verb == "POST":
        scope = "resource"
    return About(verb, group, version[0] if version else "", resource, subresource, scope, dry_run=dry_run)


class Telemetry:
    """Counts requests, and what is under way.

    Args:
        objects: the number of stored objects by key, as ``apps/deployments`` and ``/pods``.
        unavailable: whether each aggregated API is out of reach, by its APIService.
    """

    def __init__(
        self,
        version: Mapping[str, str],
        objects: Callable[[], Mapping[str, int]],
        unavailable: Callable[[], Mapping[str, bool]],
    ) -> None:
        self._version, self._objects, self._unavailable = version, objects, unavailable
        self._requests: Counter[tuple[About, int]] = Counter()
        self._under_way: Counter[About] = Counter()
        self._durations = Durations(BUCKETS_S, _LABELS)
        #: ``/metrics``
        self.exposition = Series(self.collect).exposition

    def began(self, request: About) -> None:
        self._under_way[request] += 1

    def ended(self, request: About, code: int, duration_s: float) -> None:
        self._under_way[request] -= 1
        self._requests[request, code] += 1
        if request.verb in _LONG_RUNNING:  # how long somebody watches says nothing of us
            return
        self._durations.observe(duration_s, request)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "apiserver_request", "Requests by what they are about.", labels=(*_LABELS, "code")
        )
        for (request, code), count in list(self._requests.items()):
            requests.add_metric((*request, str(code)), count)
        yield requests
        # no webhook and no queue stands before a request here, so both are the same
        yield self._durations.family("apiserver_request_duration_seconds", "Response latency.")
        yield self._durations.family(
            "apiserver_request_sli_duration_seconds", "Response latency, webhooks not counted."
        )
        yield from self._running()
        objects = GaugeMetricFamily("apiserver_storage_objects", "Stored objects by resource.", labels=("resource",))
        for key, count in self._objects().items():
            group, _, plural = key.partition("/")
            objects.add_metric((f"{plural}.{group}" if group else plural,), count)
        yield objects
        away = GaugeMetricFamily("aggregator_unavailable_apiservice", "Aggregated APIs out of reach.", labels=("name",))
        for name, unavailable in self._unavailable().items():
            away.add_metric((name,), float(unavailable))
        yield away
        build = GaugeMetricFamily("kubernetes_build_info", "The version that is spoken.", labels=tuple(self._version))
        build.add_metric(tuple(self._version.values()), 1)
        yield build

    def _running(self) -> Iterable[Metric]:
        under_way = +self._under_way  # without zeros
        inflight = GaugeMetricFamily(
            "apiserver_current_inflight_requests", "Requests under way.", labels=("request_kind",)
        )
        for kind, reads in (("readOnly", True), ("mutating", False)):
            count = sum(
                number
                for request, number in under_way.items()
                if request.verb not in _LONG_RUNNING and (request.verb in _READ_ONLY) is reads
            )
            inflight.add_metric((kind,), count)
        yield inflight
        running = GaugeMetricFamily("apiserver_longrunning_requests", "Watches and streams under way.", labels=_LABELS)
        for request, count in under_way.items():
            if request.verb in _LONG_RUNNING:
                running.add_metric(request, count)
        yield running
