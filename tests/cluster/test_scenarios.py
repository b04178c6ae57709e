"""Every scenario done against a real kube-apiserver and against the embedded one: the same words, the same objects."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.compare import Difference, compare, compare_exchange, compare_output, known_differences, sort_out
from tests.cluster.control_plane import ControlPlane, EmbeddedControlPlane
from tests.cluster.fixtures import real_control_plane
from tests.cluster.golden import comparable, exchanges_of
from tests.cluster.recording import Exchange, RecordingProxy
from tests.cluster.scenarios import SCENARIOS
from tests.cluster.steps import Outcome, Runner
from tools.kubectl import find

pytestmark = pytest.mark.cluster
KNOWN = known_differences()


def runner_of(cluster: ControlPlane, directory: Path) -> Iterator[Runner]:
    with cluster, RecordingProxy(cluster.base, cluster.token, cluster.ca) as proxy:
        yield Runner(proxy, find(), directory / "kubectl")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    directory = tmp_path_factory.mktemp("real")
    yield from runner_of(real_control_plane(directory), directory)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    directory = tmp_path_factory.mktemp("embedded")
    yield from runner_of(EmbeddedControlPlane(directory), directory)


def differences(scenario: str, real: list[Outcome], ours: list[Outcome]) -> Iterator[Difference]:
    for one, other in zip(real, ours, strict=True):
        theirs, mine = (list(comparable(scenario, exchanges_of([outcome]))) for outcome in (one, other))
        if one.exit is not None:
            yield from compare(one.step, one.exit, other.exit, "exit")
            yield from compare_output(one.step, "out", one.stdout, other.stdout)
            yield from compare_output(one.step, "err", one.stderr, other.stderr)
            yield from compare(one.step, [_request(e) for e in theirs], [_request(e) for e in mine], "requests")
        for first, second in zip(theirs, mine, strict=False):
            if one.exit is None or _request(first) == _request(second):
                yield from compare_exchange(first["step"], first, second)


def _request(exchange: Exchange) -> str:
    return f"{exchange['method']} {exchange['target'].partition('?')[0]}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_embedded_server_answers_as_the_real_one(scenario: str, real: Runner, embedded: Runner) -> None:
    steps = SCENARIOS[scenario]
    found = list(differences(scenario, real.run(scenario, steps), embedded.run(scenario, steps)))
    new, seen = sort_out(found, KNOWN)
    for known, times in seen.items():
        print(f"known ({times}): {known.step} {known.path}: {known.reason}")
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))
