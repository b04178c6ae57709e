"""The autoscaler's world of its tests, for the gates: the controller itself over Kubernetes objects in memory.

One loaded service of ``PODS`` pods, an HPA or a Governor for it, and metrics APIs that say what a gate lets them say.
Time is a clock that a gate moves.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from flyball import clock as wall_clock
from flyball.autoscaler import Autoscaler
from flyball.journal import Journal
from flyball.kube import KubeClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "autoscaler"))
from cluster import FakeCluster

T = TypeVar("T")
Object = dict[str, Any]
PODS, PER_POD = 8, 10  # replicas that the load needs, and what each takes of it
BEAT_S = 15
SETTLED = 24  # beats, more than the stabilization window has
KINDS = ("Pods", "External", "Object", "Resource")
PATHS = {
    "Pods": "/apis/custom.metrics.k8s.io/v1beta2/namespaces/gate/pods/*/load",
    "Object": "/apis/custom.metrics.k8s.io/v1beta2/namespaces/gate/services/web/load",
    "External": "/apis/external.metrics.k8s.io/v1beta1/namespaces/gate/load",
    "Resource": "/apis/metrics.k8s.io/v1beta1/namespaces/gate/pods",
}


class Clock:
    """Time that only a gate moves."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    rfc3339 = staticmethod(wall_clock.rfc3339)
    parse_rfc3339_ms = staticmethod(wall_clock.parse_rfc3339_ms)


def metric(kind: str) -> Object:
    """A metric of which a pod takes PER_POD."""
    if kind == "Resource":
        return {"type": kind, "resource": {"name": "cpu", "target": _average}}
    source: Object = {"metric": {"name": "load"}, "target": _average}
    if kind == "Object":
        source["describedObject"] = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    return {"type": kind, kind.lower(): source}


_average = {"type": "AverageValue", "averageValue": str(PER_POD)}


class Subject:
    """One HPA (``profile`` "HPA") or Governor over its own service, evaluated beat by beat."""

    def __init__(self, kind: str, profile: str, journal: Journal, **spec: Any) -> None:
        self.kind, self.profile, self.clock = kind, profile, Clock()
        self.cluster = FakeCluster()
        self.load = float(PODS * PER_POD)
        self.name = "web" if profile == "HPA" else "governor/web"
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        body: Object = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 100, "metrics": [metric(kind)], **spec}
        meta = {"namespace": "gate", "name": "web", "uid": f"{profile} by {kind}", "generation": 1}
        self.plural = "horizontalpodautoscalers" if profile == "HPA" else "governors"
        extra = {} if profile == "HPA" else {"profile": profile}
        self.cluster.put(self.plural, {"metadata": meta, "spec": body | extra})
        self.cluster.scales["web"] = {
            "metadata": {"namespace": "gate", "name": "web"},
            "spec": {"replicas": PODS},
            "status": {"replicas": PODS, "selector": "app=web"},
        }
        self.cluster.answers["/apis/custom.metrics.k8s.io"] = {"versions": [{"version": "v1beta2"}]}
        self.autoscaler = Autoscaler(
            cast(KubeClient, self.cluster), journal, clock=self.clock, sync_period_s=3600, metric_timeout_s=0.05
        )
        self._pods: list[str] = []
        self.sizes: list[int] = []

    @property
    def size(self) -> int:
        return int(self.cluster.scales["web"]["spec"]["replicas"])

    def condition(self, kind: str) -> Object:
        """Of the object's status."""
        status = self.cluster.objects[self.plural, "gate", "web"].get("status") or {}
        return next((c for c in status.get("conditions") or () if c["type"] == kind), {})

    def answer(self, share: float = 1.0, age_s: float = 0.0, without: int = 0) -> Object:
        """What the kind's API says of the load: ``share`` of it, sampled ``age_s`` ago, ``without`` some pods."""
        stamp = wall_clock.rfc3339(int(self.clock.ms - age_s * 1000))
        milli = int(self.load * share * 1000)
        if self.kind in ("External", "Object"):
            value = {"timestamp": stamp, "value": f"{milli}m"}
            return {"items": [value | {"metricName": "load", "describedObject": {"name": "web"}}]}
        names = self._pods[without:]
        each = f"{milli // max(1, len(self._pods))}m"
        if self.kind == "Pods":
            return {"items": [{"describedObject": {"name": n}, "timestamp": stamp, "value": each} for n in names]}
        containers = [{"name": "main", "usage": {"cpu": each}}]
        rows = [{"metadata": {"name": n}, "timestamp": stamp, "window": "15s", "containers": containers} for n in names]
        return {"items": rows}

    async def beat(self, said: Callable[["Subject"], Any] | None = None) -> None:
        """One evaluation, a beat later. ``said`` gives the API's answer; without it the truth."""
        self.clock.ms += BEAT_S * 1000
        await self._play_deployment()
        self.cluster.answers[PATHS[self.kind]] = self.answer() if said is None else said(self)
        await self.autoscaler._guarded(("gate", self.name))
        self.sizes.append(self.size)
        await asyncio.sleep(0)  # the watch brings the status back

    async def _play_deployment(self) -> None:
        """The service has as many ready pods as it should."""
        while len(self._pods) != self.size:
            if len(self._pods) > self.size:
                self.cluster.remove("pods", "gate", self._pods.pop())
            else:
                self._pods.append(f"web-{len(self._pods)}")
                self.cluster.put("pods", _pod(self._pods[-1], self.clock.ms - 3_600_000))
        self.cluster.scales["web"]["status"]["replicas"] = self.size
        while self.autoscaler.statistics()["pods"] != self.size:
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Its watches run, and a first load was seen."""
        self.cluster.answers[PATHS[self.kind]] = {"items": []}
        task = asyncio.create_task(self.autoscaler.run())
        try:
            while not self.autoscaler.statistics()["histories"]:
                await asyncio.sleep(0.001)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _pod(name: str, at_ms: int) -> Object:
    stamp = wall_clock.rfc3339(at_ms)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
    return {
        "metadata": {"namespace": "gate", "name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "10"}}}]},
        "status": {"phase": "Running", "startTime": stamp, "conditions": [ready]},
    }


def with_journal(work: Callable[[Journal], Awaitable[T]]) -> T:
    """Runs ``work`` with a journal of its own."""

    async def main() -> T:
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
            journal = Journal(Path(folder) / "journal.db")
            try:
                return await work(journal)
            finally:
                journal.close()

    return asyncio.run(main())


async def each(journal: Journal, work: Callable[[Subject], Awaitable[None]], **spec: Any) -> int:
    """Runs ``work`` for every kind of metric under an HPA and both profiles of a Governor; how many those are."""
    count = 0
    for kind in KINDS:
        for profile in ("HPA", "parity", "fast"):
            subject = Subject(kind, profile, journal, **(spec if profile != "HPA" else {}))
            async with subject.running():
                for _ in range(SETTLED):
                    await subject.beat()
                await work(subject)
            count += 1
    return count
