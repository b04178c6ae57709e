"""Lays out a container image's build context in a directory: the Containerfile and the tree that it copies.

Usage: python tools/image.py DIRECTORY

No container engine is needed. The wheel is built from this tree, its dependencies come as wheels from the package
index; files are root's and read-only for all, so that user 65532 runs them and changes none.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
USER = 65532
SITE = Path("opt/flyball")


def snapshot(directory: Path) -> Path:
    """A copy of what the wheel is built from, which nobody edits meanwhile."""
    source = directory / "source"
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


def wheel(directory: Path, source: Path = ROOT) -> Path:
    """Builds the wheel; the same sources give the same bytes."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1577836800"}
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(source)]
    subprocess.run(command, check=True, env=environment)
    return next(directory.glob("flyball-*.whl"))


def lay_out(directory: Path) -> None:
    """Writes the build context."""
    tree = directory / "tree"
    site = tree / SITE
    site.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary", ":all:"]
        subprocess.run([*install, "--target", str(site), str(wheel(Path(folder)))], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)  # scripts that name this machine's Python
    (tree / "etc").mkdir()
    (tree / "etc" / "passwd").write_text(
        f"root:x:0:0:root:/root:/sbin/nologin\nflyball:x:{USER}:{USER}::/tmp:/sbin/nologin\n"
    )
    (tree / "etc" / "group").write_text(f"root:x:0:\nflyball:x:{USER}:\n")
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.copy(ROOT / "deploy" / "image" / "Containerfile", directory / "Containerfile")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lay_out(Path(sys.argv[1]))
    print(Path(sys.argv[1]) / "Containerfile")
