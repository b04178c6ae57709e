"""The container image's build context: what is in the tree, and that an unprivileged user can run it."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.image import SITE, USER, lay_out, snapshot, wheel

pytestmark = pytest.mark.real
COMMANDS = ("adapter", "autoscaler", "operator", "server", "alertmanager", "exporter")


@pytest.fixture(scope="module")
def context() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flyball-image-") as folder:
        Path(folder).chmod(0o755)  # so that the image's user reaches it
        lay_out(Path(folder))
        yield Path(folder)


def files(tree: Path) -> Iterator[Path]:
    return (path for path in tree.rglob("*") if not path.is_dir())


def test_nobody_but_root_may_write_and_nothing_changes_its_user(context: Path) -> None:
    for path in (context / "tree").rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        assert path.is_symlink() or not mode & (stat.S_IWGRP | stat.S_IWOTH), path


def test_there_is_what_runs_and_no_more(context: Path) -> None:
    tree = context / "tree"
    assert {path.relative_to(tree).parts[0] for path in files(tree)} == {"etc", "opt"}
    names = {path.name for path in (tree / SITE).iterdir()}
    assert {"flyball", "aiohttp", "numpy"} <= names
    assert not names & {"pytest", "mypy", "pip", "setuptools", "numba", "pyarrow", "bin"}
    secret = (".key", ".pem", ".git", ".pyc")
    found = [path for path in files(tree) if path.suffix in secret and path.name != "cacert.pem"]
    assert not found
    assert sum(path.stat().st_size for path in files(tree)) < 200 << 20


def test_it_runs_as_a_user_without_rights(context: Path) -> None:
    """As the image's own user where the tests run as root and a Python lies where others may go."""
    environment = {"PYTHONPATH": str(context / "tree" / SITE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = Path("/usr/bin", version)
    python, user = (system, USER) if system.exists() and os.getuid() == 0 else (Path(sys.executable).resolve(), None)
    for command in COMMANDS:
        done = subprocess.run(
            [python, "-m", "flyball", command, "--help"], env=environment, user=user, cwd="/", capture_output=True
        )
        assert done.returncode == 0 and b"Usage:" in done.stdout, done.stderr.decode()
    assert not list((context / "tree").rglob("__pycache__"))


def test_the_recipe_names_an_unprivileged_user_and_no_floating_base(context: Path) -> None:
    lines = (context / "Containerfile").read_text().splitlines()
    assert f"USER {USER}:{USER}" in lines and "FROM ${BASE}" in lines and "ARG BASE" in lines


def test_two_builds_give_the_same_wheel(tmp_path: Path) -> None:
    source = snapshot(tmp_path)
    one, other = (wheel(tmp_path / name, source) for name in ("one", "other"))
    assert one.name == other.name and one.read_bytes() == other.read_bytes()
