"""What a real kube-apiserver answered (golden/, recorded by tests/cluster/golden.py), asked of the embedded one.

A difference that tests/cluster/differences.yaml does not list, with its reason, fails.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from flyball.http.client import client_tls
from tests.cluster.compare import Difference, known_differences, sort_out
from tests.cluster.control_plane import EmbeddedControlPlane
from tests.cluster.golden import Replayer, read, recorded_scenarios

KNOWN = known_differences()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedControlPlane]:
    with EmbeddedControlPlane(tmp_path_factory.mktemp("golden")) as cluster:
        yield cluster


async def replay(cluster: EmbeddedControlPlane, scenario: str) -> list[Difference]:
    connector = aiohttp.TCPConnector(ssl=client_tls(ca_file=cluster.ca))
    async with aiohttp.ClientSession(connector=connector) as session:
        return await Replayer(session, cluster.base, cluster.token).replay(scenario)


@pytest.mark.parametrize("scenario", recorded_scenarios())
def test_every_answer_is_the_real_servers(scenario: str, embedded: EmbeddedControlPlane) -> None:
    new, seen = sort_out(asyncio.run(replay(embedded, scenario)), KNOWN)
    for known, times in seen.items():
        print(f"known ({times}): {known.step} {known.path}: {known.reason}")
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))


def test_the_recording_holds_every_verb_and_media_type() -> None:
    exchanges = [exchange for scenario in recorded_scenarios() for exchange in read(scenario)]
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= {e["method"] for e in exchanges}
    assert {
        "application/json",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    } <= {e["headers"].get("content-type", "") for e in exchanges}
