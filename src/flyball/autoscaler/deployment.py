"""The autoscaler as a deployment of its own: any cluster, several replicas, one writer."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from flyball.autoscaler.api import create_app
from flyball.autoscaler.controller import Autoscaler
from flyball.autoscaler.definition import governor_definition
from flyball.errors import FlyballError
from flyball.http.server import serve
from flyball.journal import Journal
from flyball.kube import KubeClient
from flyball.kube.applying import apply
from flyball.kube.leases import LeaderElection

log = logging.getLogger(__name__)


class Flags(msgspec.Struct, frozen=True):
    """What ``flyball autoscaler`` was given; names as kube-controller-manager's where it has them."""

    kubeconfig: str | None
    journal: Path
    act_on_hpas: bool = False
    sync_period_s: float = 15.0
    downscale_stabilization_s: int = 300
    tolerance: float = 0.1
    cpu_initialization_period_s: int = 300
    initial_readiness_delay_s: int = 30
    profile: str = "1.37"
    leader_elect: bool = True
    lease: tuple[str, str] = ("flyball-system", "flyball-autoscaler")
    bind_address: str = "127.0.0.1"
    port: int = 8090
    token: str = ""
    apply_definition: bool = True


async def run(flags: Flags, stopping: asyncio.Event, ready: Callable[[int], None]) -> None:
    """Until ``stopping``; the lease is given back at the end.

    Raises:
        FlyballError: the cluster, the journal or the port cannot be used.
    """
    client = await KubeClient.from_environment(flags.kubeconfig)
    journal = Journal(flags.journal)
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    election = LeaderElection(client, *flags.lease, identity) if flags.leader_elect else None
    autoscaler = Autoscaler(
        client,
        journal,
        sync_period_s=flags.sync_period_s,
        downscale_stabilization_s=flags.downscale_stabilization_s,
        tolerance=flags.tolerance,
        cpu_initialization_period_s=flags.cpu_initialization_period_s,
        initial_readiness_delay_s=flags.initial_readiness_delay_s,
        profile=flags.profile,
        act_on_hpas=flags.act_on_hpas,
        may_write=election.leads if election is not None else lambda: True,
    )

    def statistics() -> dict[str, Any]:
        leader = {"election": election.statistics()} if election is not None else {}
        return autoscaler.statistics() | leader

    log.info("hpas=%s", "acted on" if flags.act_on_hpas else "observed: kube-controller-manager acts on them")
    app = create_app(journal, flags.token or None, statistics, client=client, wakes=autoscaler)
    hosts = None if flags.token else ("localhost", "127.0.0.1")
    server = await serve(app, port=flags.port, host=flags.bind_address, allowed_hosts=hosts, name="autoscaler API")
    try:
        if flags.apply_definition:
            try:
                await apply(client, governor_definition())
            except FlyballError as error:
                log.warning("definition_not_applied error=%s remedy=%s", error, "flyball autoscaler --print-definition")
        ready(server.port)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(autoscaler.run())]
            if election is not None:
                tasks.append(group.create_task(election.run()))
            await stopping.wait()
            for task in tasks:
                task.cancel()
    finally:
        await server.close()
        await client.close()
        journal.close()
