"""Builds upstream's HorizontalController as a filter of JSON lines: ``python -m tests.parity.build [DIR]``.

Takes pkg/controller/podautoscaler of the module k8s.io/kubernetes, replaces its clock by the case's own time, adds
go/harness.go and compiles one program for each version profile. Needs Go 1.26; nothing of upstream is kept here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: version profile of flyball.scaling -> (release that judges it, its set-up file)
RELEASES = {
    "<=1.32": ("v1.32.13", "setup_1_32.go"),
    "1.33-1.36": ("v1.36.3", "setup_1_36.go"),
    "1.37": ("v1.37.1", "setup_1_37.go"),
}
MAIN = 'package main\n\nimport "parity/podautoscaler"\n\nfunc main() { podautoscaler.Filter() }\n'


def default_dir() -> Path:
    """Where the programs are kept between runs."""
    return Path(tempfile.gettempdir()) / "flyball-parity"


def build(profile: str, into: Path | None = None) -> Path:
    """The program that judges a profile, built when it is not there."""
    release, setup = RELEASES[profile]
    into = into or default_dir()
    program = into / f"judge-{release}"
    sources = [HERE / "go" / "harness.go", HERE / "go" / setup]
    if program.exists() and all(program.stat().st_mtime > source.stat().st_mtime for source in sources):
        return program
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flyball-parity-") as name:
        work = Path(name)
        upstream = module_dir(f"k8s.io/kubernetes@{release}", work)
        package = work / "podautoscaler"
        package.mkdir()
        for source in (upstream / "pkg/controller/podautoscaler").glob("*.go"):
            if not source.name.endswith("_test.go"):
                text = source.read_text().replace("time.Now()", "harnessNow()")
                (package / source.name).write_text(text.replace("metav1.Now()", "metav1.NewTime(harnessNow())"))
        for source in sources:
            shutil.copy(source, package)
        (work / "main.go").write_text(MAIN)
        (work / "go.mod").write_text(go_mod((upstream / "go.mod").read_text(), release))
        shutil.copy(upstream / "go.sum", work / "go.sum")
        run_go("mod", "tidy", cwd=work)
        run_go("build", "-o", str(program), ".", cwd=work)
    return program


def go_mod(upstream: str, release: str) -> str:
    """Upstream's requirements, with its staging modules as published instead of as folders of its tree."""
    staging = re.findall(r"^\s*(k8s\.io/\S+) => \./staging", upstream, re.MULTILINE)
    go = re.search(r"^go .*$", upstream, re.MULTILINE)
    assert go is not None
    lines = ["module parity", "", go.group(0), "", f"require k8s.io/kubernetes {release}", "", "replace ("]
    lines += [f"\t{module} => {module} {release.replace('v1.', 'v0.', 1)}" for module in staging]
    return "\n".join([*lines, ")", ""])


def module_dir(module: str, work: Path) -> Path:
    found = json.loads(run_go("mod", "download", "-json", module, cwd=work))
    return Path(found["Dir"])


def run_go(*arguments: str, cwd: Path) -> str:
    go = shutil.which("go")
    if go is None:
        raise SystemExit("go is not on the PATH; install Go 1.26 or newer to build the judges")
    done = subprocess.run([go, *arguments], cwd=cwd, capture_output=True, text=True, env={**os.environ, "GOFLAGS": ""})
    if done.returncode:
        raise SystemExit(f"go {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for name in reversed(RELEASES):
        print(build(name, target))
