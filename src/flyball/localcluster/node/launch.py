"""What a container runs on this machine: program, environment, directory and paths."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.localcluster.node import environment, images, volumes

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """``argv[0]`` is a real file; ``mounts`` are ``(mountPath, real path)``."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str
    mounts: list[tuple[str, str]]
    has_own_address: bool
    """Whether it will listen on the pod's address only; otherwise it takes its ports on the whole machine."""


def prepare(
    pod: Object,
    container: Object,
    pod_dir: Path,
    base: Mapping[str, str],
    lookup: environment.Lookup,
    directories: Mapping[str, Path],
    shim_dir: Path,
    *,
    pod_ip: str,
    capacity: Mapping[str, str],
) -> Launch:
    """All that is needed to start a container.

    Args:
        base: the environment that every container of the pod has.
        directories: the pod's volumes.

    Raises:
        MissingReferenceError: an object that the environment names does not exist (yet).
        NotRunnableError: there is no such program, image or working directory on this machine.
        ConfigError: the manifest asks for something unknown.
    """
    mounts = volumes.mounts(container, directories)
    for folder in ("home", "tmp", "work"):
        (pod_dir / folder).mkdir(parents=True, exist_ok=True)
    own = {**base, "HOME": str(pod_dir / "home"), "TMPDIR": str(pod_dir / "tmp")}
    env = environment.container_environment(pod, container, own, lookup, pod_ip=pod_ip, capacity=capacity)
    image, command, args = container.get("image") or "", container.get("command") or [], container.get("args") or []
    words = images.command_line(image, command, args)
    expanded = [environment.expand(str(word), env) for word in words]
    # Values such as PYTHONPATH=/app name the image's paths; here they mean the volume's directory.
    env = environment.rewrite_environment(env, mounts)
    if not pod["spec"].get("hostNetwork"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(shim_dir), env.get("PYTHONPATH"))))
    cwd = container.get("workingDir") or ""
    cwd = environment.rewrite_path(cwd, mounts) if cwd else str(pod_dir / "work")
    if not os.path.isdir(cwd):
        raise images.NotRunnableError(
            "CreateContainerError",
            f'workingDir "{cwd}" is not on this machine (no image is pulled); mount a volume there or leave it out',
        )
    env.setdefault("PATH", os.defpath)
    argv = [environment.rewrite_argument(word, mounts) for word in expanded]
    argv = images.resolve(argv, env["PATH"], cwd)
    alone = images.takes_bind_shim(argv) or images.listens_on_pod_ip(argv, pod_ip, [str(word) for word in words])
    return Launch(argv, env, cwd, mounts, alone)
