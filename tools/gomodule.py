"""Builds a program from a Go module that is fetched through Go's module proxy; built once, outside the tree."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball"


def binary(
    name: str,
    module: str,
    version: str,
    package: str,
    flags: Sequence[str] = (),
    files: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """The program's path; needs Go and its module proxy at the first call.

    Args:
        module: with its version, as ``example.com/m@v1.2.3``.
        version: the program's, part of the path.
        package: below the module, as ``./cmd/m``.
        files: texts by path that the module has only once its web page is built, and are not asked for here.
    """
    home = CACHE / f"{name}-{version}"
    path = home / name
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        # not `go install`: the proxy may refuse the list of versions that it asks for
        found = subprocess.run(
            ["go", "mod", "download", "-json", module], check=True, capture_output=True, text=True, cwd=home
        )
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / name  # the module cache is read-only, and its go.work is not for us
            shutil.copytree(json.loads(found.stdout)["Dir"], source)
            subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
            (source / "go.work").unlink(missing_ok=True)
            for file, text in files.items():
                (source / file).parent.mkdir(parents=True, exist_ok=True)
                (source / file).write_text(text)
            build = ["nice", "-n", "19", "go", "build", "-p", "2", *flags, "-o", str(path), package]
            subprocess.run(build, check=True, env={**os.environ, "CGO_ENABLED": "0"}, cwd=source)
    return path
