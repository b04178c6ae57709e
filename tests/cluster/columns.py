"""Asks a real kube-apiserver for the columns of every kind's table and writes them where the embedded one reads them.

Usage: python -m tests.cluster.columns   (needs the programs of build.py)
"""

import gzip
import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import RealControlPlane
from tests.cluster.recording import RecordingProxy
from tests.cluster.scenarios.manifests import TABLE, deployment

OUT = Path(__file__).parents[2] / "src/flyball/localcluster/schema/columns-1.37.json.gz"


def get(base: str, path: str, accept: str = "application/json") -> Any:
    with urllib.request.urlopen(urllib.request.Request(base + path, headers={"Accept": accept})) as answer:
        return json.load(answer)


def post(base: str, path: str, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(base + path, json.dumps(body).encode(), headers)):
        pass


def columns(base: str) -> dict[str, list[list[Any]]]:
    """GROUP/KIND -> name, type, format, description and priority of each column."""
    paths = ["/api/v1"]
    for group in get(base, "/apis")["groups"]:
        paths += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    found: dict[str, list[list[Any]]] = {}
    for path in paths:
        listing = get(base, path)
        group = listing["groupVersion"].rpartition("/")[0]
        for resource in listing["resources"]:
            key = f"{group}/{resource['kind']}"
            if "/" in resource["name"] or "list" not in resource["verbs"] or key in found:
                continue
            table = get(base, f"{path}/{resource['name']}", TABLE)
            found[key] = rows_of(table)
    scaled = "/apis/apps/v1/namespaces/default/deployments"
    post(base, scaled, deployment("scaled"))
    found["autoscaling/Scale"] = rows_of(get(base, f"{scaled}/scaled/scale", TABLE))
    return found


def rows_of(table: Any) -> list[list[Any]]:
    return [[c["name"], c["type"], c["format"], c["description"], c["priority"]] for c in table["columnDefinitions"]]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="flyball-columns-") as name,
        RealControlPlane(Path(name)) as real,
        RecordingProxy(real.base, real.token, real.ca) as proxy,
    ):
        found = columns(proxy.base)
    text = json.dumps(dict(sorted(found.items())), separators=(",", ":")).encode()
    OUT.write_bytes(gzip.compress(text, mtime=0))
    print(f"{len(found)} kinds, {len(text)} bytes, {OUT.stat().st_size} compressed")


if __name__ == "__main__":
    main()
