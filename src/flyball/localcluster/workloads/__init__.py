"""The workload controllers of the embedded cluster. They know the API server only through its API."""

import asyncio
from pathlib import Path
from typing import Any

from flyball.kube import KubeClient
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
from flyball.localcluster.workloads.volumeprotection import VolumeProtectionController

__all__ = ["Workloads", "run_all", "statistics"]


class Workloads:
    """All controllers over one client.

    Args:
        volumes_dir: where volumes provisioned for claims live.
    """

    def __init__(self, client: KubeClient, volumes_dir: Path) -> None:
        self._informers = Informers(client)
        self._controllers: list[Controller] = [
            NamespaceController(client, self._informers),
            DeploymentController(client, self._informers),
            ReplicaSetController(client, self._informers),
            StatefulSetController(client, self._informers),
            DaemonSetController(client, self._informers),
            JobController(client, self._informers),
            CronJobController(client, self._informers),
            DisruptionController(client, self._informers),
            PersistentVolumeController(client, self._informers, volumes_dir),
            VolumeProtectionController(client, self._informers),
            EndpointsController(client, self._informers),
            Scheduler(client, self._informers),
            NodeLifecycleController(client, self._informers),
            GarbageCollector(client),
        ]

    async def run(self) -> None:
        """Work until cancelled. A server that is not there yet is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informers.run(), name="workload informers")
            # A controller on half a cache would take what it cannot see for missing.
            await self._informers.wait_synced()
            for controller in self._controllers:
                group.create_task(controller.run(), name=controller.name)

    def statistics(self) -> dict[str, Any]:
        """Each controller's and each informer's counts."""
        return {
            "controllers": [controller.statistics() for controller in self._controllers],
            "informers": self._informers.statistics(),
        }


_running: list[Workloads] = []


async def run_all(client: KubeClient, volumes_dir: Path) -> None:
    """Run all controllers until cancelled."""
    workloads = Workloads(client, volumes_dir)
    _running.append(workloads)
    try:
        await workloads.run()
    finally:
        _running.remove(workloads)


def statistics() -> list[dict[str, Any]]:
    """The statistics of every ``run_all`` of this process."""
    return [workloads.statistics() for workloads in _running]
