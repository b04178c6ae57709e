"""The real control plane as a test sees it: there, or a skip that says why not."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.cluster import build
from tests.cluster.control_plane import RealControlPlane


def real_control_plane(directory: Path, *, controllers: bool = False, **flags: Sequence[str]) -> RealControlPlane:
    programs = ["etcd", "kube-apiserver"]
    if controllers:
        programs += ["kube-controller-manager", "kube-scheduler"]
    try:
        for program in programs:
            build.build(program)
    except build.BuildError as exc:
        pytest.skip(f"no real control plane: {exc}")
    return RealControlPlane(directory, controllers=controllers, **flags)
