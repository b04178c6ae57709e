"""Least privilege and hardening: permissions are the calls, every route asks who, pods pass the restricted standard.

On a real control plane: what the adapter's service account asked for in all tests there is what its manifests grant.
Its routes are listed from its own discovery. Nothing here enforces NetworkPolicies: that ours is taken by the API
server is all that is seen of it. A database of vulnerabilities is not to be had here, nor the digest of a base image:
the Containerfile takes none without one.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.adapter.on_cluster import granted
from tests.adapter.world import World
from tools.image import snapshot, wheel

from flyball.adapter.api import OPEN_PATHS, RULES_PATH
from flyball.adapter.documents import GROUPS
from flyball.adapter.manifests import Installation, manifests
from gate.adapter_world import LOAD, QUEUE, USAGE, in_world, names
from gate.report import demand

ROOT = Path(__file__).parents[1]
#: What is seen of each, as the tests are called.
SEEN = {
    "tests/cluster/test_adapter.py": "permissions used are those granted; pods pass the restricted standard",
    "tests/cluster/test_adapter_chart.py": "the chart and the kustomization come and go, NetworkPolicy included",
    "tests/adapter/test_image.py": "the image's tree runs as user 65532 and has nothing that others may write",
}

#: The API server lets everybody see it: its default role system:public-info-viewer.
PUBLIC = ("/version",)


def run(*, quick: bool = False) -> list[str]:
    lines = in_world(_routes, names(2))
    calls = granted(manifests(Installation(resource_metrics=True)))
    wide = [call for call in calls if "*" in call or (call[1] == "secrets" and call[2] in ("list", "watch"))]
    demand(not wide, f"the manifests grant {wide}")
    if not quick:
        lines += [_passed(path, what) for path, what in SEEN.items()]
    lines.append(f"{len(calls)} permissions granted, 0 of them '*' or the cluster's Secrets")
    return [*lines, _wheels(), *_pinned()]


async def _routes(found: World) -> list[str]:
    """Every path that the adapter's own discovery names, and those of its code, asked without a name."""
    token = {"Authorization": f"Bearer {found.pki('token').read_text().strip()}"}

    async def get(path: str) -> dict[str, object]:
        status, body = await found.ask(path, token)
        demand(status == 200, f"{path} answers {status} to an administrator")
        read: dict[str, object] = json.loads(body)
        return read

    await found.until(lambda: found.get(LOAD))
    paths = [
        "/",
        "/apis",
        "/metrics",
        "/version",
        "/openapi/v2",
        "/openapi/v3",
        RULES_PATH,
        "/nothing",
        "/api/flyball/",
    ]
    for group, versions in GROUPS.items():
        paths.append(f"/apis/{group}")
        for version in versions:
            base = f"/apis/{group}/{version}"
            listed = (await get(base))["resources"]
            assert isinstance(listed, list)
            for item in listed:
                resource, _, metric = item["name"].partition("/")
                where = "/namespaces/default" if item["namespaced"] else ""
                paths.append(f"{base}{where}/{resource}" + (f"/*/{metric}" if metric else ""))
            paths.append(base)
    for path in (*paths, LOAD, QUEUE, USAGE):
        for headers in ({}, {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}):
            status, body = await found.ask(path, headers)
            demand(status == (200 if path in PUBLIC else 403), f"{path} answers {status} to nobody: {body[:200]!r}")
        status, _ = await found.ask(path, {"Authorization": "Bearer wrong"})
        demand(status == 401, f"{path} answers {status} to a wrong token")
    for path in OPEN_PATHS:
        demand((await found.ask(path))[0] == 200, f"{path} is closed")
    return [
        f"{len(paths) + 3 - len(PUBLIC)} routes refuse who has no name; {', '.join(PUBLIC)} is for all by their role, "
        f"{len(OPEN_PATHS)} answer unasked: {', '.join(sorted(OPEN_PATHS))}"
    ]


def _passed(path: str, what: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"(\d+) passed", done.stdout) or re.search(r"^(\.+) +\[100%\]", done.stdout, re.MULTILINE)
    demand(
        done.returncode == 0 and found is not None and "skipped" not in done.stdout, f"{path}: {done.stdout[-2000:]}"
    )
    assert found is not None
    return f"{path}: {found[1] if found[1].isdigit() else len(found[1])} passed: {what}"


def _wheels() -> str:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        source = snapshot(Path(folder))
        one, other = (wheel(Path(folder, name), source) for name in ("one", "other"))
        demand(one.read_bytes() == other.read_bytes(), "two builds give different wheels")
        return f"two builds give the same wheel, {one.stat().st_size:,} bytes"


def _pinned() -> list[str]:
    actions = list(ROOT.glob(".github/workflows/*"))
    floating = [
        f"{path.name}: {line.strip()}"
        for path in actions
        for line in path.read_text().splitlines()
        if "uses:" in line and not re.search(r"@[0-9a-f]{40}\b", line)
    ]
    demand(not floating, f"not pinned: {floating}")
    recipe = (ROOT / "deploy" / "image" / "Containerfile").read_text()
    demand(re.findall(r"^FROM (.*)$", recipe, re.MULTILINE) == ["${BASE}"], "a base image is named without its digest")
    return [f"{len(actions)} workflows; 1 base image, given by digest when it is built; vulnerabilities: not seen here"]
