"""Every scenario done against a real kube-apiserver and against the embedded one: the same words, the same objects."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import build
from tests.cluster.compare import Difference, compare, compare_exchange, known_differences, normal_output, sort_out
from tests.cluster.control_plane import ControlPlane, EmbeddedControlPlane, RealControlPlane
from tests.cluster.golden import exchanges_of
from tests.cluster.recording import RecordingProxy
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
    try:
        for program in ("etcd", "kube-apiserver"):
            build.build(program)
    except build.BuildError as exc:
        pytest.skip(f"no real control plane: {exc}")
    directory = tmp_path_factory.mktemp("real")
    yield from runner_of(RealControlPlane(directory), directory)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    directory = tmp_path_factory.mktemp("embedded")
    yield from runner_of(EmbeddedControlPlane(directory), directory)


def differences(real: list[Outcome], ours: list[Outcome]) -> Iterator[Difference]:
    for one, other in zip(real, ours, strict=True):
        if one.exit is not None:
            said = {"exit": one.exit, "out": normal_output(one.stdout), "err": normal_output(one.stderr)}
            given = {"exit": other.exit, "out": normal_output(other.stdout), "err": normal_output(other.stderr)}
            yield from compare(one.step, said, given)
        theirs, mine = list(exchanges_of([one])), list(exchanges_of([other]))
        for first, second in zip(theirs, mine, strict=False):
            if (first["method"], first["target"].partition("?")[0]) == (
                second["method"],
                second["target"].partition("?")[0],
            ):
                yield from compare_exchange(first["step"], first, second)
        yield from compare(
            one.step,
            {"requests": [f"{e['method']} {e['target'].partition('?')[0]}" for e in theirs]},
            {"requests": [f"{e['method']} {e['target'].partition('?')[0]}" for e in mine]},
        )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_embedded_server_answers_as_the_real_one(scenario: str, real: Runner, embedded: Runner) -> None:
    steps = SCENARIOS[scenario]
    found = list(differences(real.run(scenario, steps), embedded.run(scenario, steps)))
    new, seen = sort_out(found, KNOWN)
    for known, times in seen.items():
        print(f"known ({times}): {known.step} {known.path}: {known.reason}")
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))
