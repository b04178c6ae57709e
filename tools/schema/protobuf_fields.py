"""Extract the table of Go's fields: by it the embedded cluster reads protobuf, and writes the zero values that Go does.

    mkdir /tmp/schema-go && cd /tmp/schema-go && go mod init x
    for m in api apimachinery apiextensions-apiserver kube-aggregator; do go mod download k8s.io/$m@v0.37.2; done
    python tools/schema/protobuf_fields.py $(go env GOMODCACHE)/k8s.io v0.37.2

Development time only. Structure and numbers come from the ``generated.proto`` files (Apache-2.0, the Kubernetes
Authors); which fields Go inlines or omits when empty comes from the struct tags beside them, since protobuf does not
know it. Only messages reachable from the kind table are kept.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "src/flyball/localcluster/schema/protobuf-1.37.json.gz"
META = "k8s.io.apimachinery.pkg.apis.meta.v1"
EXTRA = {META: ("DeleteOptions", "Status", "CreateOptions", "UpdateOptions", "PatchOptions")}
ALSO = {"autoscaling/v1": ("Scale",), "policy/v1": ("Eviction",), "authentication.k8s.io/v1": ("TokenRequest",)}
FIELD = re.compile(r"^\s*(optional|repeated)?\s*(map<\s*(\S+)\s*,\s*(\S+)\s*>|\S+)\s+(\w+)\s*=\s*(\d+)\s*(?:\[.*\])?;")
STRUCT = re.compile(r"^type (\w+) struct \{")
TAGGED = re.compile(r"^\s*(?:\w+\s+)?(\S+)\s+`(.*)`")
SCALARS = {"string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "double", "float"}

# [json name, type or "key,value" of a map, flags]; flags: r repeated, m map, i inlined, p pointer, o omitempty (which
# Go ignores for a struct), z omitzero
Field = list[str]


def messages(path: pathlib.Path) -> tuple[str, dict[str, dict[str, Field]]]:
    """One generated.proto -> (package, message name -> field number -> field)."""
    package, current = "", ""
    found: dict[str, dict[str, Field]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("package "):
            package = line.split()[1].rstrip(";")
        elif line.startswith("message "):
            current = line.split()[1]
            found[current] = {}
        elif line.startswith("}"):
            current = ""
        elif current and (match := FIELD.match(line)) and not line.lstrip().startswith("//"):
            label, whole, key, value, name, number = match.groups()

            def full(text: str, package: str = package) -> str:
                text = text.lstrip(".")
                return text if text in SCALARS or "." in text else f"{package}.{text}"

            if key:
                found[current][number] = [name, f"{full(key)},{full(value)}", "m"]
            else:
                found[current][number] = [name, full(whole), "r" if label == "repeated" else ""]
    return package, found


def tags(folder: pathlib.Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(struct, protobuf name) -> JSON name and flags from the Go struct tags of one package."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(folder.glob("*.go")):
        if path.name.startswith(("generated", "zz_")) or path.name.endswith("_test.go"):
            continue
        struct = ""
        for line in path.read_text().splitlines():
            if match := STRUCT.match(line):
                struct = match[1]
            elif line.startswith("}"):
                struct = ""
            elif struct and (match := TAGGED.match(line)):
                go_type, tag = match.groups()
                name = re.search(r"\bname=(\w+)", tag)
                json_tag = re.search(r'json:"([^"]*)"', tag)
                if json_tag and "protobuf:" in tag:
                    # An embedded struct may go by its type's name.
                    field = name[1] if name else go_type[:1].lower() + go_type[1:]
                    flags = "" if json_tag[1].split(",")[0] else "i"  # an embedded struct has no JSON name
                    if go_type.startswith("*"):
                        flags += "p"
                    else:
                        flags += "o" if ",omitempty" in json_tag[1] else ""
                        flags += "z" if ",omitzero" in json_tag[1] else ""
                    found[struct, field] = json_tag[1].split(",")[0] or field, flags
    return found


def group_of(folder: pathlib.Path) -> str | None:
    register = folder / "register.go"
    match = re.search(r'GroupName\s*=\s*"([^"]*)"', register.read_text()) if register.exists() else None
    return match[1] if match else None


def main(cache: str, version: str) -> None:
    sys.path.insert(0, str(ROOT / "src"))
    from flyball.localcluster.schema.kinds import KINDS

    served = {kind.api_version for kind in KINDS} | set(ALSO)
    everything: dict[str, dict[str, Field]] = {}
    packages: dict[str, str] = {}
    for module in ("api", "apimachinery", "apiextensions-apiserver", "kube-aggregator"):
        for path in sorted((pathlib.Path(cache) / f"{module}@{version}").glob("**/generated.proto")):
            package, found = messages(path)
            flags = tags(path.parent)
            for message, fields in found.items():
                for field in fields.values():
                    name, more = flags.get((message, field[0]), (field[0], ""))
                    field[0], field[2] = name, field[2] + more
                everything[f"{package}.{message}"] = fields
            group = group_of(path.parent)
            api_version = f"{group}/{path.parent.name}" if group else path.parent.name
            if group is not None and api_version in served and package != META:
                packages[api_version] = package
    queue = [f"{package}.{name}" for package, names in EXTRA.items() for name in names]
    for api_version, package in packages.items():
        names = [kind.kind for kind in KINDS if kind.api_version == api_version]
        names += [name + "List" for name in names] + list(ALSO.get(api_version, ()))
        queue += [f"{package}.{name}" for name in names if f"{package}.{name}" in everything]
    kept: dict[str, dict[str, Field]] = {}
    while queue:
        name = queue.pop()
        if name in kept or name not in everything:
            continue
        kept[name] = everything[name]
        for _, kind, _ in everything[name].values():
            queue += [one for one in kind.split(",") if one not in SCALARS]
    table = {"packages": dict(sorted(packages.items())), "messages": dict(sorted(kept.items()))}
    text = json.dumps(table, separators=(",", ":")).encode()
    with OUT.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)
    print(f"{OUT.name}: {len(kept)} messages of {len(packages)} versions, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
