"""The workload controllers of the embedded cluster. They know the API server only through its API."""

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.core import Metric

from flyball.kube import KubeClient
from flyball.kube.kinds import REPLICATION_CONTROLLERS
from flyball.localcluster.durations import ClientSeries, Series
from flyball.localcluster.workloads.clusterroles import ClusterRoleController
from flyball.localcluster.workloads.controller import Controller, Informers
from flyball.localcluster.workloads.cronjob import CronJobController
from flyball.localcluster.workloads.daemonset import DaemonSetController
from flyball.localcluster.workloads.deployment import DeploymentController
from flyball.localcluster.workloads.disruption import DisruptionController
from flyball.localcluster.workloads.endpoints import EndpointsController
from flyball.localcluster.workloads.garbage import GarbageCollector
from flyball.localcluster.workloads.job import JobController
from flyball.localcluster.workloads.namespaces import NamespaceController
from flyball.localcluster.workloads.nodelifecycle import NodeLifecycleController
from flyball.localcluster.workloads.persistentvolumes import PersistentVolumeController
from flyball.localcluster.workloads.replicaset import ReplicaSetController
from flyball.localcluster.workloads.scheduler import Scheduler
from flyball.localcluster.workloads.statefulset import StatefulSetController
from flyball.localcluster.workloads.telemetry import queue_series, scheduler_series
from flyball.localcluster.workloads.volumeprotection import VolumeProtectionController

__all__ = ["Workloads", "run_all", "statistics"]


class Workloads:
    """All controllers over one client.

    Args:
        volumes_dir: where volumes provisioned for claims live.
        scheduling: the client of the scheduler's own requests, to tell them apart; the others' when there is none.
    """

    def __init__(self, client: KubeClient, volumes_dir: Path, scheduling: KubeClient | None = None) -> None:
        self._informers = Informers(client)
        scheduling = scheduling or client
        self._scheduler = Scheduler(scheduling, self._informers)
        asked = {one: ClientSeries(urlsplit(one.access.server).netloc) for one in (client, scheduling)}
        for one, series in asked.items():
            one.on_answer = series.answered
        #: ``/metrics`` of the controllers, and of the scheduler
        self.controllers_page = Series(asked[client].collect, self._queues).exposition
        self.scheduler_page = Series(asked[scheduling].collect, partial(scheduler_series, self._scheduler)).exposition
        self._controllers: list[Controller] = [
            NamespaceController(client, self._informers),
            DeploymentController(client, self._informers),
            ReplicaSetController(client, self._informers),
            ReplicaSetController(client, self._informers, REPLICATION_CONTROLLERS),
            StatefulSetController(client, self._informers),
            DaemonSetController(client, self._informers),
            JobController(client, self._informers),
            CronJobController(client, self._informers),
            DisruptionController(client, self._informers),
            PersistentVolumeController(client, self._informers, volumes_dir),
            VolumeProtectionController(client, self._informers),
            EndpointsController(client, self._informers),
            self._scheduler,
            NodeLifecycleController(client, self._informers),
            ClusterRoleController(client, self._informers),
            GarbageCollector(client),
        ]

    async def run(self) -> None:
        """Work until cancelled. A server that is not there yet is waited for."""
        _running.append(self)
        try:
            await self._run()
        finally:
            _running.remove(self)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informers.run(), name="workload informers")
            # A controller on half a cache would take what it cannot see for missing.
            await self._informers.wait_synced()
            for controller in self._controllers:
                group.create_task(controller.run(), name=controller.name)

    def _queues(self) -> Iterable[Metric]:
        return queue_series([one for one in self._controllers if one is not self._scheduler])

    def statistics(self) -> dict[str, Any]:
        """Each controller's and each informer's counts."""
        return {
            "controllers": [controller.statistics() for controller in self._controllers],
            "informers": self._informers.statistics(),
        }


_running: list[Workloads] = []


async def run_all(client: KubeClient, volumes_dir: Path) -> None:
    """Run all controllers until cancelled."""
    await Workloads(client, volumes_dir).run()


def statistics() -> list[dict[str, Any]]:
    """The statistics of all ``Workloads`` that run in this process."""
    return [workloads.statistics() for workloads in _running]
