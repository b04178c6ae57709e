"""Extract the OpenAPI definitions that the embedded cluster ships, from the PyPI package ``kubernetes-validate``.

    python tools/schema/definitions.py kubernetes_validate-1.37.0-py3-none-any.whl

Fetch the wheel with ``pip download --no-deps kubernetes-validate==1.37.0`` (Apache-2.0). Development time only: the
package is 100 MB, the extract about 100 KB. Types ``["string", "null"]`` become ``string`` (a null is always accepted
by Kubernetes' decoder), descriptions keep their first sentence (for ``kubectl explain``), and ``$ref`` holds the bare
definition name. Only what the kind table reaches is kept.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import sys
import zipfile
from typing import Any

MINOR = "1.37"
ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "src/flyball/localcluster/schema" / f"definitions-{MINOR}.json.gz"
EXTRA = (
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.authentication.v1.TokenRequest",
)
KEEP = (
    "type",
    "format",
    "required",
    "enum",
    "default",
    "properties",
    "items",
    "additionalProperties",
    "oneOf",
    "anyOf",
)
LIMIT = 200


def short(text: str) -> str:
    """The first sentence, at most LIMIT characters."""
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n\n", text.strip(), maxsplit=1)[0].replace("\n", " ")
    return first if len(first) <= LIMIT else first[: LIMIT - 1].rsplit(" ", 1)[0] + "…"


def normal(node: Any) -> Any:
    """One schema node without nulls, long texts and keys nobody reads."""
    if not isinstance(node, dict):
        return node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key == "type":
            out[key] = next((t for t in value if t != "null"), "object") if isinstance(value, list) else value
        elif key == "$ref":
            out[key] = value.rsplit("/", 1)[1]
        elif key == "description":
            out[key] = short(value)
        elif key == "properties":
            out[key] = {name: normal(value[name]) for name in sorted(value)}
        elif key in ("items", "additionalProperties"):
            out[key] = normal(value)
        elif key in ("oneOf", "anyOf"):
            out[key] = [normal(one) for one in value]
        elif key in KEEP or (key.startswith("x-kubernetes-") and key != "x-kubernetes-validations"):
            out[key] = value
    if isinstance(out.get("enum"), list):
        out["enum"] = [one for one in out["enum"] if one is not None]
    return out


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        for value in node.values():
            found |= references(value)
        return found
    if isinstance(node, list):
        return set().union(*(references(one) for one in node)) if node else set()
    return set()


def main(wheel: str) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    from flyball.localcluster.schema.kinds import KINDS

    with zipfile.ZipFile(wheel) as archive:
        path = f"kubernetes_validate/kubernetes-json-schema/v{MINOR}.0-local/_definitions.json"
        raw = json.loads(archive.read(path))["$defs"]
    definitions = {name: normal(node) for name, node in raw.items()}
    for node in definitions.values():
        if "x-kubernetes-group-version-kind" in node:
            for field in ("apiVersion", "kind"):  # the package pins these; upstream does not
                node.get("properties", {}).get(field, {}).pop("enum", None)
    wanted = {(kind.group, kind.version, kind.kind) for kind in KINDS}
    wanted |= {(group, version, kind + "List") for group, version, kind in wanted}
    queue = list(EXTRA)
    for name, node in definitions.items():
        for gvk in node.get("x-kubernetes-group-version-kind", ()):
            if (gvk["group"], gvk["version"], gvk["kind"]) in wanted:
                queue.append(name)
    kept: dict[str, Any] = {}
    while queue:
        name = queue.pop()
        if name not in kept:
            kept[name] = definitions[name]
            queue.extend(references(definitions[name]))
    text = json.dumps(dict(sorted(kept.items())), separators=(",", ":"), ensure_ascii=False).encode()
    with OUT.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)
    print(f"{OUT.name}: {len(kept)} definitions, {len(text)} bytes, {OUT.stat().st_size} compressed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
