"""What a real kube-apiserver answered (golden/, recorded by tests/cluster/golden.py), asked of the embedded one.

A difference that tests/cluster/differences.yaml does not list, with its reason, fails.
"""

import asyncio
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from tests.cluster.compare import Difference, known_differences, sort_out
from tests.cluster.golden import Replayer, read, recorded_scenarios

from flyball.http.client import client_tls
from flyball.localcluster import ApiServer, pki

KNOWN = known_differences()


Replay = Callable[[str], list[Difference]]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """Replays a scenario on one embedded server; client and server share an event loop."""
    directory = tmp_path_factory.mktemp("golden")
    server = ApiServer(directory, port=0)

    async def open_session() -> aiohttp.ClientSession:
        await server.start()
        connector = aiohttp.TCPConnector(ssl=client_tls(ca_file=directory / "pki" / "ca.crt"))
        return aiohttp.ClientSession(connector=connector)

    with asyncio.Runner() as runner:
        session = runner.run(open_session())
        replayer = Replayer(session, f"https://127.0.0.1:{server.port}", pki.token(directory))
        yield lambda scenario: runner.run(replayer.replay(scenario))
        runner.run(session.close())
        runner.run(server.close())


@pytest.mark.parametrize("scenario", recorded_scenarios())
def test_every_answer_is_the_real_servers(scenario: str, replay: Replay) -> None:
    new, seen = sort_out(replay(scenario), KNOWN)
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
