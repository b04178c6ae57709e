"""What the stock HPA controller reads over the Kubernetes API: scales, and metrics through the metrics APIs.

Texts of failures are upstream's (pkg/controller/podautoscaler/metrics/client.go), for they end up in conditions.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from flyball.errors import FlyballError, KubeApiError, QueryError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import resource_of
from flyball.model.quantities import parse_quantity
from flyball.model.selectors import selector_of
from flyball.scaling import Metric, PodReading, Reading, Spec

CUSTOM = "custom.metrics.k8s.io"
CUSTOM_VERSIONS = ("v1beta2", "v1beta1")
DISCOVERY_TTL_S = 30.0
DISCOVERY_RETRY_S = 2.0
PARALLEL_READS = 8  # of one HPA; it may list hundreds of metrics

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_DURATION_MS = {"h": 3_600_000.0, "m": 60_000.0, "s": 1000.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}


class ClockLike(Protocol):
    """flyball.clock, or a test's own."""

    def now_ms(self) -> int: ...

    def monotonic_s(self) -> float: ...

    def rfc3339(self, at_ms: int) -> str: ...

    def parse_rfc3339_ms(self, text: str) -> int: ...


class Gatherer:
    """Reads for one autoscaler. Discovery answers are kept for half a minute."""

    def __init__(self, client: KubeClient, clock: ClockLike, metric_timeout_s: float) -> None:
        self._client, self._clock, self._timeout_s = client, clock, metric_timeout_s
        self._resources: dict[tuple[str, str], tuple[float, Resource]] = {}
        self._custom: tuple[float, str, str] = (0.0, "", "")  # until, version, error
        self.failures = 0

    async def resource(self, api_version: str, kind: str) -> Resource:
        """The resource of an object's apiVersion and kind, by discovery where it is not a built-in.

        Raises:
            KubeApiError: the server knows no such kind (404), or failed.
        """
        known = resource_of(api_version, kind)
        if known is not None:
            return known
        now_s = self._clock.monotonic_s()
        cached = self._resources.get((api_version, kind))
        if cached is not None and cached[0] > now_s:
            return cached[1]
        found = await self._discover(api_version, kind)
        if len(self._resources) > 1024:
            self._resources.clear()
        self._resources[api_version, kind] = (now_s + DISCOVERY_TTL_S, found)
        return found

    async def _discover(self, api_version: str, kind: str) -> Resource:
        group = api_version.partition("/")[0] if "/" in api_version else ""
        versions = [api_version] if api_version else []
        try:
            if group:
                listed = msgspec.json.decode(await self._client.raw_get(f"/apis/{quote(group, safe='')}"))
                served = [str(entry.get("groupVersion", "")) for entry in listed.get("versions") or []]
                versions = [v for v in versions if v in served] + [v for v in served if v != api_version]
            for version in versions:
                path = f"/apis/{version}" if "/" in version else f"/api/{version}"
                listed = msgspec.json.decode(await self._client.raw_get(path))
                for entry in listed.get("resources") or []:
                    if entry.get("kind") == kind and "/" not in entry.get("name", "/"):
                        name = version.rpartition("/")[2]
                        return Resource(group, name, entry["name"], kind, bool(entry.get("namespaced", True)))
        except KubeApiError as error:
            if error.code != 404:
                raise
        raise KubeApiError(404, "NotFound", f'no matches for kind "{kind}" in group "{group}"')

    async def readings(self, spec: Spec, selector: str) -> tuple[Reading, ...]:
        """One Reading a metric; a failure or a time-out is in the Reading, never raised."""
        if any(metric.type in ("Resource", "ContainerResource") for metric in spec.metrics):
            pod_metrics: asyncio.Task[list[dict[str, Any]]] | None = asyncio.create_task(
                self._pod_metrics(spec.namespace, selector)
            )
        else:
            pod_metrics = None
        slots = asyncio.Semaphore(PARALLEL_READS)

        async def read(metric: Metric) -> Reading:
            async with slots:
                return await self._read(spec, metric, selector, pod_metrics)

        try:
            return tuple(await asyncio.gather(*(read(metric) for metric in spec.metrics)))
        finally:
            if pod_metrics is not None:
                pod_metrics.cancel()
                await asyncio.gather(pod_metrics, return_exceptions=True)

    async def _read(
        self, spec: Spec, metric: Metric, selector: str, pod_metrics: "asyncio.Task[list[dict[str, Any]]] | None"
    ) -> Reading:
        try:
            series = "" if metric.selector is None else str(selector_of(metric.selector))
        except QueryError as error:
            return Reading(selector_error=str(error))
        reader: Callable[[], Coroutine[Any, Any, Reading]]
        if metric.type in ("Resource", "ContainerResource") and pod_metrics is not None:
            api, task = "resource", pod_metrics

            async def from_pods() -> Reading:
                return self._resource_reading(await asyncio.shield(task), metric)

            reader = from_pods
        elif metric.type == "Pods":
            api = "custom"

            async def from_custom() -> Reading:
                return await self._pods_reading(spec.namespace, metric.name, selector, series)

            reader = from_custom
        elif metric.type == "Object":
            api = "custom"

            async def from_object() -> Reading:
                return await self._object_reading(spec.namespace, metric, series)

            reader = from_object
        elif metric.type == "External":
            api = "external"

            async def from_external() -> Reading:
                return await self._external_reading(spec.namespace, metric.name, series)

            reader = from_external
        else:
            return Reading()
        prefix = f"unable to fetch metrics from {api} metrics API: "
        try:
            async with asyncio.timeout(self._timeout_s):
                return await reader()
        except TimeoutError:
            self.failures += 1
            return Reading(error=f"{prefix}no answer within {self._timeout_s:g} s")
        except FlyballError as error:
            self.failures += 1
            return Reading(error=prefix + str(error))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
            self.failures += 1
            return Reading(error=f"{prefix}the answer cannot be read: {type(error).__name__}: {error}")

    # --- metrics.k8s.io ---

    async def _pod_metrics(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{quote(namespace, safe='')}/pods"
        return _items(await self._client.raw_get(path, {"labelSelector": selector}))

    def _resource_reading(self, items: list[dict[str, Any]], metric: Metric) -> Reading:
        if not items:
            return Reading(error="no metrics returned from resource metrics API")
        pods: dict[str, PodReading] = {}
        for item in items:
            containers = item.get("containers") or []
            if metric.container:
                containers = [c for c in containers if c.get("name") == metric.container][:1]
            found = [(container.get("usage") or {}).get(metric.name) for container in containers]
            usages = [usage for usage in found if usage is not None]
            if not found or len(usages) < len(found):
                continue  # missing, never zero
            # each container rounds up to whole milli-units before the sum
            total: int = sum(parse_quantity(usage).milli_value() for usage in usages)
            window_ms = _duration_ms(item.get("window"))
            pods[item["metadata"]["name"]] = PodReading(total, self._ms(item.get("timestamp")), window_ms)
        return Reading(pods=pods, at_ms=self._ms(items[0].get("timestamp")))

    # --- custom.metrics.k8s.io ---

    async def _custom_version(self) -> str:
        """The version of the custom metrics API that the server prefers, of those that HPA speaks."""
        until, version, error = self._custom
        now_s = self._clock.monotonic_s()
        if until <= now_s:
            version, error = "", ""
            try:
                group = msgspec.json.decode(await self._client.raw_get(f"/apis/{CUSTOM}"))
                served = [entry.get("version") for entry in group.get("versions") or []]
                preferred = (group.get("preferredVersion") or {}).get("version")
                version = next((v for v in (preferred, *served) if v in CUSTOM_VERSIONS), "")
                if not version:
                    error = "no known available metric versions found"
            except KubeApiError as failure:
                if failure.code != 404:
                    raise
                error = f"no custom metrics API ({CUSTOM}) registered"
            self._custom = (now_s + (DISCOVERY_TTL_S if version else DISCOVERY_RETRY_S), version, error)
        if error:
            raise KubeApiError(404, "NotFound", error)
        return version

    async def _custom_items(self, where: str, metric: str, params: dict[str, str]) -> list[dict[str, Any]]:
        version = await self._custom_version()
        path = f"/apis/{CUSTOM}/{version}/{where}/{quote(metric, safe='')}"
        return _items(await self._client.raw_get(path, params))

    async def _pods_reading(self, namespace: str, metric: str, selector: str, series: str) -> Reading:
        params = {"labelSelector": selector} | ({"metricLabelSelector": series} if series else {})
        items = await self._custom_items(f"namespaces/{quote(namespace, safe='')}/pods/*", metric, params)
        if not items:
            return Reading(error="no metrics returned from custom metrics API")
        pods: dict[str, PodReading] = {}
        for item in items:
            window = item.get("windowSeconds", item.get("window"))
            pods[item["describedObject"]["name"]] = PodReading(
                parse_quantity(item["value"]).milli_value(),
                self._ms(item.get("timestamp")),
                0 if window is None else int(window) * 1000,  # upstream's 60 s count for cpu alone
            )
        return Reading(pods=pods, at_ms=self._ms(items[0].get("timestamp")))

    async def _object_reading(self, namespace: str, metric: Metric, series: str) -> Reading:
        described = metric.described or {}
        api_version, kind = str(described.get("apiVersion") or ""), str(described.get("kind") or "")
        params = {"metricLabelSelector": series} if series else {}
        if kind == "Namespace" and "/" not in api_version:
            where = f"namespaces/{quote(namespace, safe='')}/metrics"
        else:
            try:
                resource = await self.resource(api_version, kind)
            except KubeApiError as error:
                group = api_version.rpartition("/")[0]
                full = f"{kind}.{group}" if group else kind
                raise KubeApiError(
                    error.code, error.reason, f"unable to map kind {full} to resource: {error}"
                ) from error
            name = quote(str(described.get("name") or ""), safe="")
            where = f"namespaces/{quote(namespace, safe='')}/{resource}/{name}"
        items = await self._custom_items(where, metric.name, params)
        if len(items) != 1:
            raise KubeApiError(
                500,
                "InternalError",
                f"the custom metrics API server returned {len(items)} results when we asked for exactly one",
            )
        return Reading(
            values=(parse_quantity(items[0]["value"]).milli_value(),), at_ms=self._ms(items[0].get("timestamp"))
        )

    # --- external.metrics.k8s.io ---

    async def _external_reading(self, namespace: str, metric: str, series: str) -> Reading:
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{quote(namespace, safe='')}/{quote(metric, safe='')}"
        items = _items(await self._client.raw_get(path, {"labelSelector": series} if series else None))
        if not items:
            return Reading(error="no metrics returned from external metrics API")
        values = tuple(parse_quantity(item["value"]).milli_value() for item in items)
        return Reading(values=values, at_ms=self._ms(items[0].get("timestamp")))

    def _ms(self, text: str | None) -> int:
        return 0 if not text else self._clock.parse_rfc3339_ms(text)


def _items(body: bytes) -> list[dict[str, Any]]:
    return list(msgspec.json.decode(body).get("items") or [])


def _duration_ms(text: str | None) -> int:
    """A Go duration (``1m30s``) in ms; 0 when absent."""
    if not text:
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration')
    return int(sum(float(number) * _DURATION_MS[unit] for number, unit in parts))
