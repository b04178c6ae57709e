"""Prints the path of a kubectl 1.31 or newer: $FLYBALL_KUBECTL, the PATH's, or one built from tools/kubectl.

The build needs Go; it is cached outside the tree, under $XDG_CACHE_HOME/flyball.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MINOR_MIN = 31
SOURCE = Path(__file__).parent / "kubectl"


def minor_version(kubectl: str) -> int:
    try:
        answer = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, check=True)
        return int(json.loads(answer.stdout)["clientVersion"]["minor"].rstrip("+") or 0)
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
        return 0


def build() -> str:
    go = shutil.which("go")
    if go is None:
        sys.exit("kubectl 1.31 or newer is not on the PATH, and Go, which could build it, is not either; install one")
    pinned = hashlib.sha256((SOURCE / "go.sum").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball"
    kubectl = cache / f"kubectl-{pinned}"
    if not kubectl.exists():
        print("building kubectl from its Go modules (a few minutes, once) ...", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        partial = kubectl.with_suffix(f".{os.getpid()}")
        version = next(
            line.split()[1] for line in (SOURCE / "go.mod").read_text().splitlines() if "k8s.io/kubectl v" in line
        )
        major_minor = version.split(".")
        stamp = "k8s.io/component-base/version"
        flags = (
            f"-s -w -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={major_minor[1]} "
            f"-X {stamp}.gitVersion=v1.{major_minor[1]}.{major_minor[2]}"
        )
        subprocess.run([go, "build", "-ldflags", flags, "-o", str(partial), "."], cwd=SOURCE, check=True)
        partial.rename(kubectl)
    return str(kubectl)


def find() -> str:
    for candidate in (os.environ.get("FLYBALL_KUBECTL"), shutil.which("kubectl")):
        if candidate and minor_version(candidate) >= MINOR_MIN:
            return candidate
    return build()


def main() -> None:
    print(find())


if __name__ == "__main__":
    main()
