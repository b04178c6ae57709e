"""Builds the programs of a real control plane from their Go modules (go/go.mod) and prints where they are.

Usage: python tests/cluster/build.py [PROGRAM ...]

They are cached outside the tree, under $XDG_CACHE_HOME/flyball, by their versions; the first build takes some
minutes of two cores, at the lowest priority.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "go"
KUBERNETES = "k8s.io/kubernetes"
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": f"{KUBERNETES}/cmd/kube-apiserver",
    "kube-controller-manager": f"{KUBERNETES}/cmd/kube-controller-manager",
    "kube-scheduler": f"{KUBERNETES}/cmd/kube-scheduler",
}


class BuildError(Exception):
    """A program could not be built; the message says what failed and what to do."""


def required() -> dict[str, str]:
    """Module -> version, from go.mod."""
    return dict(re.findall(r"^\s+(\S+) (v\S+)", (SOURCE / "go.mod").read_text(), re.MULTILINE))


def version_of(program: str) -> str:
    modules = required()
    return modules[KUBERNETES if PROGRAMS[program].startswith(KUBERNETES) else PROGRAMS[program]]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball"


def path_of(program: str) -> Path:
    return cache() / f"{program}-{version_of(program)}"


def _stamp(program: str) -> list[str]:
    """Linker flags that make a Kubernetes program know its version; etcd's is a constant."""
    version = version_of(program)
    if not PROGRAMS[program].startswith(KUBERNETES):
        return ["-ldflags", "-s -w"]
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamp = "-X k8s.io/component-base/version."
    return [
        "-ldflags",
        f"-s -w {stamp}gitVersion={version} {stamp}gitMajor={major} {stamp}gitMinor={minor} {stamp}gitTreeState=clean",
    ]


def build(program: str) -> Path:
    """The cached program, built first where it is missing.

    Raises:
        BuildError: no Go, a failed build, or a program that does not name its version.
    """
    path = path_of(program)
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            f"{program} {version_of(program)} is not built yet and Go, which builds it, is not on the PATH"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    print(f"building {program} {version_of(program)} (some minutes, once) ...", file=sys.stderr, flush=True)
    command = ["nice", "-n", "19", go, "build", *_stamp(program), "-o", str(partial), PROGRAMS[program]]
    answer = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True)
    if answer.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{answer.stderr[-4000:]}")
    said = subprocess.run([partial, "--version"], capture_output=True, text=True).stdout
    if version_of(program).removeprefix("v") not in said:
        raise BuildError(f"{program} should be {version_of(program)} but says {said.strip()!r}")
    partial.rename(path)
    return path


def missing(*programs: str) -> list[str]:
    return [program for program in programs or PROGRAMS if not path_of(program).exists()]


def main() -> None:
    try:
        for program in sys.argv[1:] or PROGRAMS:
            print(f"{program}={build(program)}", flush=True)
    except (BuildError, KeyError) as exc:
        sys.exit(f"build.py: {exc}")


if __name__ == "__main__":
    main()
