"""The unmodified kube-prometheus manifests on both servers: the same words, the same objects, twice unchanged."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.compare import Difference, compare, compare_output, known_differences, normal, sort_out
from tests.cluster.control_plane import ControlPlane, EmbeddedControlPlane, write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.cluster.golden import without_managed_fields
from tools.kubectl import find

pytestmark = pytest.mark.cluster
KNOWN = known_differences()


@dataclass(frozen=True)
class Kubectl:
    kubeconfig: Path

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.kubeconfig.parent), "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run([find(), *arguments], capture_output=True, text=True, env=environment, timeout=300)


def kubectl_of(cluster: ControlPlane, directory: Path) -> Kubectl:
    write_kubeconfig(directory / "kubeconfig", cluster.base, cluster.token, cluster.ca)
    return Kubectl(directory / "kubeconfig")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    directory = tmp_path_factory.mktemp("real")
    with real_control_plane(directory) as cluster:
        yield kubectl_of(cluster, directory)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    directory = tmp_path_factory.mktemp("embedded")
    with EmbeddedControlPlane(directory) as cluster:
        yield kubectl_of(cluster, directory)


@pytest.fixture(scope="module")
def manifests(shared: Path) -> Path:
    return next(path.parent for path in sorted(shared.glob("kube-prometheus/**/setup")))


def both(real: Kubectl, embedded: Kubectl, *arguments: str) -> list[Difference]:
    step = f"kube-prometheus kubectl {' '.join(word.rpartition('/')[2] for word in arguments)}"
    one, other = real(*arguments), embedded(*arguments)
    return [
        *compare(step, one.returncode, other.returncode, "exit"),
        *compare_output(step, "out", one.stdout, other.stdout),
        *compare_output(step, "err", one.stderr, other.stderr),
    ]


def assert_known(found: list[Difference]) -> None:
    new, _ = sort_out(found, KNOWN)
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))


def objects(kubectl: Kubectl, manifests: Path) -> dict[str, object]:
    listed = json.loads(kubectl("get", "-f", str(manifests), "-o", "json").stdout)["items"]
    return {
        f"{item['kind']} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}": normal(
            without_managed_fields(item)
        )
        for item in listed
    }


def test_setup_client_side_fails_on_long_definitions_as_upstream(
    real: Kubectl, embedded: Kubectl, manifests: Path
) -> None:
    assert_known(both(real, embedded, "apply", "--dry-run=server", "-f", str(manifests / "setup")))


def test_setup_server_side_then_the_rest_twice(real: Kubectl, embedded: Kubectl, manifests: Path) -> None:
    found = both(real, embedded, "apply", "--server-side", "-f", str(manifests / "setup"))
    found += both(real, embedded, "wait", "--for=condition=Established", "--all", "crd", "--timeout=60s")
    for _ in range(2):
        found += both(real, embedded, "apply", "-f", str(manifests))
    again = real("apply", "-f", str(manifests)).stdout.splitlines()
    # Upstream itself says "configured" for what it stores in another form than it was written in.
    assert sum(line.endswith(" unchanged") for line in again) > 0.9 * len(again)
    found += both(real, embedded, "apply", "--server-side", "--force-conflicts", "-f", str(manifests))
    found += both(real, embedded, "diff", "--server-side", "--force-conflicts", "-f", str(manifests))
    theirs, ours = objects(real, manifests), objects(embedded, manifests)
    assert len(theirs) > 100 and set(theirs) == set(ours)
    for name, item in theirs.items():
        found += compare(f"kube-prometheus {name}", item, ours[name])
    assert_known(found)
