"""The chain from a pod's metric to its replicas, link by link; the first broken one ends the walk. Read-only."""

import contextlib
import difflib
import json
from dataclasses import dataclass, field
from typing import Any

from flyball.errors import FlyballError, KubeApiError

CUSTOM, RESOURCE, EXTERNAL = "custom.metrics.k8s.io", "metrics.k8s.io", "external.metrics.k8s.io"

ADAPTER_CONFIG = ("flyball-adapter", "flyball-system")  # name and namespace, as flyball install writes them


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain: ``ok`` True, False, or None where it could not be judged."""

    link: str
    ok: bool | None
    what: str
    remedy: str = ""


@dataclass(slots=True)
class Diagnosis:
    """The links of one HPA, in the order of the data's way."""

    hpa: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> Finding | None:
        return next((finding for finding in self.findings if finding.ok is False), None)

    def add(self, link: str, ok: bool | None, what: str, remedy: str = "") -> bool:
        self.findings.append(Finding(link, ok, what, remedy))
        return ok is not False


class Prometheus:
    """The read API of any Prometheus-compatible server, and Flyball's own rule report where there is one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: Any = None

    async def get(self, path: str, **parameters: str) -> Any:
        from flyball.http.client import get_json, new_session

        if self._session is None:
            self._session = new_session(timeout_s=10)
        return await get_json(self._session, self.url + path, parameters)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Chain:
    """The links of one HPA; stops at the first that is broken, since all behind it is."""

    def __init__(self, client: Any, prometheus: Prometheus, hpa: dict[str, Any]) -> None:
        self.client = client
        self.prometheus = prometheus
        self.hpa = hpa
        self.namespace = hpa["metadata"]["namespace"]
        self.name = hpa["metadata"]["name"]
        self.diagnosis = Diagnosis(f"hpa {self.namespace}/{self.name}")
        self.selector = ""
        self.pods: list[dict[str, Any]] = []
        self.target: dict[str, Any] = {}

    async def walk(self) -> Diagnosis:
        if not await self._target() or not await self._pods():
            return self.diagnosis
        for metric in self.hpa["spec"].get("metrics") or []:
            kind = metric["type"]
            if kind in ("Resource", "ContainerResource"):
                broken = not self._requests(metric) or not await self._resource_metrics(metric)
            else:
                broken = not await self._custom(metric)
            if broken:
                return self.diagnosis
        await self._compatibility()
        if self._conditions():
            await self._scale()
        return self.diagnosis

    async def _target(self) -> bool:
        reference = self.hpa["spec"]["scaleTargetRef"]
        what = f"{reference['kind']} {self.namespace}/{reference['name']}"
        try:
            resource = next(
                r
                for r, _ in await self.client.resources(reference.get("apiVersion", "v1"))
                if r.kind == reference["kind"]
            )
            self.target = await self.client.get(resource, reference["name"], self.namespace)
            scale = await self.client.get(resource, reference["name"], self.namespace, subresource="scale")
        except StopIteration:
            remedy = f"correct scaleTargetRef of the HPA: {reference.get('apiVersion')} has no {reference['kind']}"
            return self.diagnosis.add("workload", False, f"{what}: the server has no such kind", remedy)
        except KubeApiError as exc:
            remedy = f"create {what}, or correct scaleTargetRef of HPA {self.name}"
            return self.diagnosis.add("workload", False, f"{what}: {exc}", remedy)
        self.selector = scale.get("status", {}).get("selector", "")
        if not self.selector:
            remedy = "give the workload a selector; its scale subresource has none"
            return self.diagnosis.add("workload", False, f"{what} has no selector", remedy)
        if scale["spec"].get("replicas", 0) == 0:
            remedy = f"kubectl scale {reference['kind'].lower()} {reference['name']} --replicas=1"
            return self.diagnosis.add("workload", False, f"{what} is at 0 replicas, which pauses its HPA", remedy)
        return self.diagnosis.add("workload", True, f"{what}, {scale['spec'].get('replicas')} replicas")

    async def _pods(self) -> bool:
        from flyball.kube import kinds

        pods = await self.client.list(kinds.PODS, self.namespace, label_selector=self.selector)
        self.pods = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        if not self.pods:
            remedy = f"kubectl describe the workload and its ReplicaSet; no pod matches {self.selector}"
            return self.diagnosis.add("pod", False, f"no pod matches {self.selector}", remedy)
        ready = [p for p in self.pods if _condition(p, "Ready") == "True"]
        if not ready:
            pod = self.pods[0]
            what = f"none of {len(self.pods)} pods is ready: {pod['metadata']['name']} {_pod_trouble(pod)}"
            remedy = f"kubectl describe pod {pod['metadata']['name']}; kubectl logs {pod['metadata']['name']}"
            return self.diagnosis.add("pod", False, what, remedy)
        return self.diagnosis.add("pod", True, f"{len(ready)} of {len(self.pods)} ready")

    def _requests(self, metric: dict[str, Any]) -> bool:
        source = metric.get("resource") or metric.get("containerResource") or {}
        if source.get("target", {}).get("type") != "Utilization":
            return True
        for pod in self.pods:
            for container in pod["spec"]["containers"]:
                if source["name"] not in (container.get("resources", {}).get("requests") or {}):
                    what = (
                        f"container {container['name']} of pod {pod['metadata']['name']} requests no {source['name']}"
                    )
                    remedy = f"set resources.requests.{source['name']} on it: utilization is a share of the request"
                    return self.diagnosis.add("pod", False, what, remedy)
        return True

    async def _resource_metrics(self, metric: dict[str, Any]) -> bool:
        name = (metric.get("resource") or metric.get("containerResource") or {}).get("name", "")
        if not await self._api_service(RESOURCE):
            return False
        path = f"/apis/{RESOURCE}/v1beta1/namespaces/{self.namespace}/pods"
        try:
            items = json.loads(await self.client.raw_get(path, {"labelSelector": self.selector}))["items"]
        except FlyballError as exc:
            remedy = "look at the metrics server's log (on a laptop: the adapter's resourceRules)"
            return self.diagnosis.add("metrics API", False, f"{RESOURCE}: {exc}", remedy)
        if not items:
            if not await self._kubelet_targets():
                return False
            remedy = "wait one scrape; then look at the targets of job kubelet-resource and at the resourceRules"
            return self.diagnosis.add("metrics API", False, f"{RESOURCE} knows none of {len(self.pods)} pods", remedy)
        return self.diagnosis.add("metrics API", True, f"{name} of {len(items)} pods from {RESOURCE}")

    async def _kubelet_targets(self) -> bool:
        try:
            targets = (await self.prometheus.get("/api/v1/targets"))["data"]["activeTargets"]
        except FlyballError:
            return True
        down = [t for t in targets if "resource" in t.get("scrapePool", "") and t.get("health") == "down"]
        if down:
            remedy = "start the node (flyball up keeps it), or correct the scrape job"
            return self.diagnosis.add("scrape", False, f"{down[0]['scrapeUrl']}: {down[0].get('lastError')}", remedy)
        return True

    async def _custom(self, metric: dict[str, Any]) -> bool:
        kind = metric["type"]
        source = metric[kind[0].lower() + kind[1:]]
        name = source["metric"]["name"]
        group = EXTERNAL if kind == "External" else CUSTOM
        path, parameters = self._metric_path(group, kind, name, source)
        if kind == "Pods" and not await self._scraped(name, path, parameters):
            return False
        if not await self._api_service(group):
            return False
        items, failure = [], ""
        try:
            items = await self._values(path, parameters)
        except FlyballError as exc:
            failure = str(exc)
        scaled_object = _scaled_object(source["metric"])
        if scaled_object:  # KEDA's adapter lists no metric, and has no rules
            if not items:
                remedy = (
                    f"kubectl describe scaledobject -n {self.namespace} {scaled_object}: its conditions and triggers"
                )
                what = f"KEDA gives no value for ScaledObject {scaled_object}: {failure or 'an empty list'}"
                return self.diagnosis.add("metrics API", False, what, remedy)
        elif not await self._registered(group, kind, name, source):
            return False
        if failure:
            remedy = "ask the adapter's log; the text of the rule's metricsQuery can be run in Prometheus as it is"
            return self.diagnosis.add("metrics API", False, f"{path}: {failure}", remedy)
        if not items:
            remedy = f"run the rule's metricsQuery in {self.prometheus.url}; it answers nothing for these pods"
            return self.diagnosis.add("metrics API", False, f"{path} has no value", remedy)
        values = ", ".join(str(item.get("value")) for item in items[:5])
        return self.diagnosis.add("metrics API", True, f"{name}: {len(items)} values ({values})")

    async def _values(self, path: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(await self.client.raw_get(path, parameters))["items"]
        return items

    async def _scraped(self, name: str, path: str, parameters: dict[str, str]) -> bool:
        try:
            targets = (await self.prometheus.get("/api/v1/targets", state="active"))["data"]["activeTargets"]
        except FlyballError as exc:
            remedy = "start it, or name another with --prometheus URL"
            return self.diagnosis.add("scrape", False, f"Prometheus cannot be asked: {exc}", remedy)
        names = {p["metadata"]["name"] for p in self.pods}
        addresses = {p.get("status", {}).get("podIP") for p in self.pods} - {None, ""}
        ours = [
            t
            for t in targets
            if t.get("labels", {}).get("pod") in names
            or t.get("discoveredLabels", {}).get("__meta_kubernetes_pod_name") in names
            or str(t.get("discoveredLabels", {}).get("__address__", "")).rsplit(":", 1)[0] in addresses
        ]
        if not ours:
            with contextlib.suppress(FlyballError):
                if await self._values(path, parameters):
                    return self.diagnosis.add("exporter", True, "another exporter than the pods gives their values")
            listed = await self._listed(CUSTOM)
            if name not in listed and _close(name, listed):  # misspelt, which a later link names
                return self.diagnosis.add("exporter", None, "no target is of these pods")
            what, remedy = await self._why_not_selected()
            return self.diagnosis.add("exporter", False, what, remedy)
        self.diagnosis.add("exporter", True, f"{len(ours)} targets for {len(self.pods)} pods")
        up = [t for t in ours if t.get("health") == "up"]
        if not up and any(t.get("health") == "down" for t in ours):
            target = next(t for t in ours if t.get("health") == "down")
            remedy = "make the application answer metrics there, or correct port and path in the monitor"
            return self.diagnosis.add("scrape", False, f"{target['scrapeUrl']}: {target.get('lastError')}", remedy)
        if not up:
            return self.diagnosis.add("scrape", None, "no target has been scraped yet")
        return self.diagnosis.add("scrape", True, f"{len(up)} of {len(ours)} targets up")

    async def _why_not_selected(self) -> tuple[str, str]:
        from flyball.kube import kinds
        from flyball.model.selectors import selector_of

        annotated = [
            p for p in self.pods if (p["metadata"].get("annotations") or {}).get("prometheus.io/scrape") == "true"
        ]
        if annotated:
            return (
                "the pods are annotated with prometheus.io/scrape but no target was made of them",
                "check the annotation prometheus.io/port, and that Prometheus has a job for annotated pods",
            )
        try:
            monitors = await self.client.list(kinds.SERVICE_MONITORS, self.namespace)
            services = await self.client.list(kinds.SERVICES, self.namespace)
        except KubeApiError:
            monitors, services = [], []
        labels = self.pods[0]["metadata"].get("labels") or {}
        ours = [
            s
            for s in services
            if s["spec"].get("selector") and all(labels.get(k) == v for k, v in s["spec"]["selector"].items())
        ]
        for monitor in monitors:
            selector = selector_of(monitor["spec"].get("selector") or {})
            for service in ours:
                if not selector.matches(service["metadata"].get("labels") or {}):
                    continue
                ports = {p.get("name", "") for p in service["spec"].get("ports", [])}
                wanted = [e.get("port") for e in monitor["spec"].get("endpoints", [])]
                missing = [port for port in wanted if port and port not in ports]
                if missing:
                    name, port = monitor["metadata"]["name"], missing[0]
                    return (
                        f"ServiceMonitor {name} asks for port {port}, not one of Service {service['metadata']['name']}",
                        f"name one of the Service's ports there: {', '.join(sorted(ports)) or 'none has a name'}",
                    )
        if ours and monitors:
            names = ", ".join(m["metadata"]["name"] for m in monitors[:5])
            return (
                f"no ServiceMonitor of {self.namespace} ({names}) selects Service {ours[0]['metadata']['name']}",
                "make the monitor's spec.selector match the labels of the Service itself",
            )
        return (
            "nothing scrapes the pods: no monitor selects them and they carry no prometheus.io/scrape annotation",
            'apply a ServiceMonitor or PodMonitor, or annotate the pods with prometheus.io/scrape: "true"',
        )

    async def _api_service(self, group: str) -> bool:
        from flyball.kube import kinds

        versions = ("v1beta1", "v1beta2") if group == CUSTOM else ("v1beta1",)
        trouble = f"no APIService for {group}"
        for version in versions:
            try:
                service = await self.client.get(kinds.API_SERVICES, f"{version}.{group}")
            except KubeApiError as exc:
                if exc.code == 403:
                    return self.diagnosis.add("metrics API", None, f"APIService {version}.{group} may not be read")
                if exc.code != 404:
                    trouble = str(exc)
                continue
            condition: dict[str, Any] = next(
                (c for c in service.get("status", {}).get("conditions", []) if c["type"] == "Available"), {}
            )
            if condition.get("status") == "True":
                return self.diagnosis.add("metrics API", True, f"APIService {version}.{group} is available")
            trouble = f"APIService {version}.{group}: {condition.get('message') or 'not available yet'}"
        remedy = "start the adapter and look at its log; the APIService must name its Service, port and CA"
        return self.diagnosis.add("metrics API", False, trouble, remedy)

    async def _registered(self, group: str, kind: str, name: str, source: dict[str, Any]) -> bool:
        names = await self._listed(group)
        if name in names:
            return self.diagnosis.add("rule", True, f"{name} is registered in {group}")
        what, remedy = f"{group} does not list {name}", "correct the metric's name in the HPA or add a rule for it"
        if close := _close(name, names):
            remedy = f"did you mean {', '.join(close)}? " + remedy
            return self.diagnosis.add("rule", False, what, remedy)
        for rule in await self._rules():
            if rule.get("error"):
                return self.diagnosis.add("rule", False, f"{rule['rule']}: {rule['error']}", "correct that rule")
            if rule.get("seriesMatched") == 0 and await self._series_exists(rule["seriesQuery"]) is False:
                what = f"{what}, and {rule['rule']} matches no series: {rule['seriesQuery']}"
                remedy = "correct its seriesQuery, or make the application export that metric"
                return self.diagnosis.add("series", False, what, remedy)
        return self.diagnosis.add("rule", False, what, remedy)

    async def _listed(self, group: str) -> set[str]:
        """The names of the group's metrics."""
        for version in ("v1beta2", "v1beta1") if group == CUSTOM else ("v1beta1",):
            with contextlib.suppress(FlyballError):
                listed = json.loads(await self.client.raw_get(f"/apis/{group}/{version}"))["resources"]
                return {item["name"].split("/", 1)[-1] for item in listed}
        return set()

    async def _rules(self) -> list[dict[str, Any]]:
        rules = (await self._report()).get("rules") or []
        return [r for r in rules if r["rule"].startswith("ConfigMap ")]  # the built-in ones match what there is

    async def _report(self) -> dict[str, Any]:
        """What our adapter says of its rules, beside Prometheus' API on a laptop; else what its configuration says.

        Empty where another adapter serves, or where these rights do not reach ours.
        """
        from flyball.kube import kinds
        from flyball.metricrules import parse_config

        with contextlib.suppress(FlyballError, TypeError):
            return dict(await self.prometheus.get("/api/flyball/v1/rules"))
        with contextlib.suppress(FlyballError):
            found = await self.client.get(kinds.CONFIG_MAPS, *ADAPTER_CONFIG)
            return {"compatibility": sorted(parse_config(found["data"]["config.yaml"]).compatibility)}
        return {}

    async def _compatibility(self) -> None:
        """Switches that bring upstream's ways back, some of which make a number of what is no value."""
        switches = (await self._report()).get("compatibility") or []
        if switches:
            self.diagnosis.add("rule", None, f"compatibility switches are on: {', '.join(switches)}")

    async def _series_exists(self, match: str) -> bool | None:
        try:
            return bool((await self.prometheus.get("/api/v1/series", **{"match[]": match}))["data"])
        except FlyballError:
            return None

    def _metric_path(self, group: str, kind: str, name: str, source: dict[str, Any]) -> tuple[str, dict[str, str]]:
        from flyball.model.selectors import selector_of

        chosen = str(selector_of(source["metric"].get("selector") or {}))
        base = f"/apis/{group}/v1beta1/namespaces/{self.namespace}"
        if kind == "External":
            return f"{base}/{name}", {"labelSelector": chosen} if chosen else {}
        parameters = {"metricLabelSelector": chosen} if chosen else {}
        if kind == "Pods":
            return f"{base}/pods/*/{name}", {"labelSelector": self.selector, **parameters}
        described = source["describedObject"]
        if described["kind"] == "Namespace":
            return f"{base}/metrics/{name}", parameters
        group_name = described.get("apiVersion", "").rpartition("/")[0]
        plural = described["kind"].lower() + ("es" if described["kind"].endswith("s") else "s")
        plural = plural[:-2] + "ies" if described["kind"].endswith("y") else plural
        resource = f"{plural}.{group_name}" if group_name else plural
        return f"{base}/{resource}/{described['name']}/{name}", parameters

    def _conditions(self) -> bool:
        conditions = {c["type"]: c for c in self.hpa.get("status", {}).get("conditions", [])}
        if not conditions:
            remedy = "see that a controller for HPAs runs (flyball up, or kube-controller-manager)"
            return self.diagnosis.add("hpa", False, "no controller has looked at this HPA yet", remedy)
        for kind in ("AbleToScale", "ScalingActive"):
            condition = conditions.get(kind)
            if condition and condition["status"] == "False":
                remedy = _remedy(condition["reason"])
                return self.diagnosis.add("hpa", False, f"{condition['reason']}: {condition['message']}", remedy)
        status = self.hpa["status"]
        limited = conditions.get("ScalingLimited", {})
        text = f"wants {status.get('desiredReplicas')} replicas"
        if limited.get("status") == "True":
            text += f", limited: {limited.get('message')}"
        return self.diagnosis.add("hpa", True, text)

    async def _scale(self) -> bool:
        wanted = self.hpa.get("status", {}).get("desiredReplicas")
        status = self.target.get("status", {})
        replicas, ready = self.target.get("spec", {}).get("replicas", 1), status.get("readyReplicas", 0)
        reference = self.hpa["spec"]["scaleTargetRef"]
        if status.get("observedGeneration", 0) < self.target["metadata"].get("generation", 0):
            return self.diagnosis.add("scale", None, "the workload's controller has not seen the last change yet")
        for condition in status.get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                remedy = "kubectl describe the ReplicaSet; a quota or an admission rule refuses its pods"
                return self.diagnosis.add("scale", False, condition.get("message", ""), remedy)
        if ready < replicas:
            waiting = [p for p in self.pods if _condition(p, "Ready") != "True"]
            trouble = f": {waiting[0]['metadata']['name']} {_pod_trouble(waiting[0])}" if waiting else ""
            remedy = f"kubectl get pods -l {self.selector}; describe those that are not ready"
            return self.diagnosis.add("scale", False, f"{ready} of {replicas} replicas are ready{trouble}", remedy)
        return self.diagnosis.add("scale", True, f"{reference['kind']} has {ready} of {wanted} replicas ready")


def _scaled_object(metric: dict[str, Any]) -> str:
    """The KEDA ScaledObject that an external metric belongs to; "" for any other."""
    labels = (metric.get("selector") or {}).get("matchLabels") or {}
    return str(labels.get("scaledobject.keda.sh/name", ""))


def _close(name: str, names: set[str]) -> list[str]:
    """Names that may have been meant."""
    return difflib.get_close_matches(name, sorted(names - {name}), 3, 0.8)


def _condition(obj: dict[str, Any], kind: str) -> str | None:
    conditions = obj.get("status", {}).get("conditions") or []
    return next((str(c["status"]) for c in conditions if c["type"] == kind), None)


def _pod_trouble(pod: dict[str, Any]) -> str:
    for status in pod.get("status", {}).get("containerStatuses") or []:
        waiting = status.get("state", {}).get("waiting")
        if waiting:
            return f"is waiting: {waiting.get('reason')} {waiting.get('message', '')}".rstrip()
        if not status.get("ready"):
            return "runs but is not ready: its readiness probe fails"
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["status"] == "False" and condition.get("message"):
            return str(condition["message"])
    return f"is {pod.get('status', {}).get('phase', 'Pending')}"


def _remedy(reason: str) -> str:
    return {
        "FailedGetScale": "correct scaleTargetRef of the HPA",
        "InvalidSelector": "give the workload a selector",
        "AmbiguousSelector": "let one HPA select these pods: make the workloads' selectors disjoint, or delete one HPA",
        "ScalingDisabled": "scale the workload above 0",
        "FailedUpdateScale": "see whether the controller may update the scale subresource",
        "FailedGetResourceMetric": "every container needs a request for the resource, and the metrics API a value",
    }.get(reason, "kubectl describe hpa shows the events; flyball explain hpa shows the last numbers")
