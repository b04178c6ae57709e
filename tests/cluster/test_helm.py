"""A real helm installs its own starter chart on both servers: the same words, the same objects, the same releases."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.compare import Difference, compare, compare_output, known_differences, normal, sort_out
from tests.cluster.control_plane import ControlPlane, EmbeddedControlPlane, write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.cluster.golden import without_managed_fields
from tools.kubectl import find

pytestmark = pytest.mark.cluster
KNOWN = known_differences()
NAMESPACE = "charts"
KINDS = "deployments,services,serviceaccounts,hpa,ingresses,pods"
# Helm's own rendering of its times (LAST DEPLOYED, the UPDATED column) is a Go format.
_TIMES = re.compile(
    r"(LAST DEPLOYED: ).*|\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4} UTC|(Mon|Tue|Wed|Thu|Fri|Sat|Sun) .*2\d{3}"
)


@dataclass(frozen=True)
class Programs:
    """helm and kubectl against one server."""

    helm: Path
    kubeconfig: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.helm) if program == "helm" else find(), "--namespace", NAMESPACE]
        home = str(self.kubeconfig.parent)
        environment = {**os.environ, "HOME": home, "KUBECONFIG": str(self.kubeconfig), "HELM_CACHE_HOME": home}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=120)

    def objects(self) -> dict[str, Any]:
        listed = json.loads(self.run("kubectl", "get", KINDS, "-o", "json").stdout)["items"]
        return {f"{one['kind']} {one['metadata']['name']}": normal(without_managed_fields(one)) for one in listed}


@pytest.fixture(scope="module")
def helm() -> Path:
    tool = Path(__file__).parents[2] / "tools" / "helm.py"
    answer = subprocess.run([sys.executable, str(tool)], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(f"no helm: {answer.stderr[-400:]}")
    return Path(answer.stdout.strip())


def programs_of(cluster: ControlPlane, helm: Path, directory: Path) -> Programs:
    write_kubeconfig(directory / "kubeconfig", cluster.base, cluster.token, cluster.ca)
    return Programs(helm, directory / "kubeconfig")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, helm: Path) -> Iterator[tuple[Programs, Programs]]:
    theirs, ours = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("embedded")
    with real_control_plane(theirs) as real, EmbeddedControlPlane(ours) as embedded:
        yield programs_of(real, helm, theirs), programs_of(embedded, helm, ours)


def test_install_upgrade_roll_back_and_uninstall(both: tuple[Programs, Programs], tmp_path: Path) -> None:
    real, embedded = both
    for each in both:  # what kube-controller-manager would do is done by hand
        each.run("kubectl", "create", "namespace", NAMESPACE)
        each.run("kubectl", "create", "serviceaccount", "default")
    chart = tmp_path / "web"
    real.run("helm", "create", str(chart))
    scaled = ("--set", "autoscaling.enabled=true", "--set", "ingress.enabled=true")
    steps = [
        ("helm", "install", "web", str(chart)),
        ("helm", "install", "web", str(chart)),
        ("helm", "upgrade", "web", str(chart), *scaled),
        ("helm", "upgrade", "web", str(chart), "--set", "replicaCount=lots"),
        ("helm", "upgrade", "--install", "web", str(chart), "--set", "replicaCount=3", "--dry-run=server"),
        ("helm", "history", "web", "-o", "json"),
        ("helm", "rollback", "web", "1"),
        ("helm", "list"),
        ("helm", "get", "manifest", "web"),
        ("helm", "get", "values", "web"),
        ("helm", "test", "web", "--timeout=1s"),
        ("helm", "uninstall", "web"),
        ("helm", "list"),
    ]
    found: list[Difference] = []
    for number, step in enumerate(steps, 1):
        name = f"helm/{number} {' '.join(step[:3])}"
        one, other = real.run(*step), embedded.run(*step)
        found += compare(name, one.returncode, other.returncode, "exit")
        found += compare_output(name, "out", _TIMES.sub(r"\1", one.stdout), _TIMES.sub(r"\1", other.stdout))
        found += compare_output(name, "err", one.stderr, other.stderr)
        found += compare(name, real.objects(), embedded.objects(), "objects")
        if number == 1:
            assert one.returncode == 0 and "STATUS: deployed" in one.stdout and len(real.objects()) >= 3
    new, _ = sort_out(found, KNOWN)
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))
