"""What a container runs on this machine: program, environment, directory and paths."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flyball
from flyball.localcluster.node import environment, images, volumes
from flyball.localcluster.node.process import Loopback, Root
from flyball.localcluster.node.status import HOST_IP

Object = dict[str, Any]
PACKAGES = str(Path(flyball.__file__).parents[1])
# Kubernetes' default. Nothing is mounted there: it would cost a mount for every device of the machine.
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class Launch:
    """``argv[0]`` is a real file; ``mounts`` are ``(mountPath, real path)``."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str
    mounts: list[tuple[str, str]]
    has_own_address: bool
    """Whether it will listen on the pod's address only; otherwise it takes its ports on the whole machine."""
    loopback: Loopback | None
    """Its view of the loopback; None where it has the machine's."""
    limits: Mapping[str, str]
    """What it is held to: nothing for a program of ours in another's place, for which the limits were not meant."""
    stdin: str
    """Its input, as ``process.start`` takes it."""
    root: Root | None
    """Its view of the file system; None where mount paths are rewritten to the volumes' real ones instead."""


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
    isolated: bool,
    addressed: bool,
    capacity: Mapping[str, str],
    table: Mapping[str, images.Image] = images.IMAGES,
) -> Launch:
    """All that is needed to start a container.

    Args:
        base: the environment that every container of the pod has.
        directories: the pod's volumes.
        table: the program of each well-known image.
        isolated: whether it gets a mount namespace of its own.
        addressed: whether any program can be given the pod's address.

    Raises:
        MissingReferenceError: an object that the environment names does not exist (yet).
        NotRunnableError: there is no such program, image or working directory on this machine.
        ConfigError: the manifest asks for something unknown.
    """
    for folder in ("home", "tmp", "work"):
        (pod_dir / folder).mkdir(parents=True, exist_ok=True)
    own = {**base, "HOME": str(pod_dir / "home"), "TMPDIR": str(pod_dir / "tmp")}
    env = environment.container_environment(pod, container, own, lookup, pod_ip=pod_ip, capacity=capacity)
    mounts = volumes.mounts(container, directories, env)
    image, command, args = container.get("image") or "", container.get("command") or [], container.get("args") or []
    words = images.command_line(image, command, args, table)
    expanded = [environment.expand(str(word), env) for word in words]
    cwd = container.get("workingDir") or str(pod_dir / "work")
    if not isolated:
        # Values such as PYTHONPATH=/app name the image's paths; here they mean the volume's directory.
        env, cwd = environment.rewrite_environment(env, mounts), environment.rewrite_path(cwd, mounts)
    is_ours = images.is_stand_in(image, command, table)
    found_in = [env.get("PYTHONPATH")]
    if pod_ip != HOST_IP:
        found_in.insert(0, str(shim_dir))
    if is_ours:  # it is this very Flyball, wherever that was started from
        found_in += [PACKAGES, os.environ.get("PYTHONPATH")]
    if any(found_in):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, found_in))
    env.setdefault("PATH", os.defpath)
    root = None
    if isolated:
        root = _root(pod_dir, shim_dir, container, mounts, cwd)
        argv = program_of(expanded, mounts, env["PATH"], cwd)
    elif not os.path.isdir(cwd):
        raise images.NotRunnableError(
            "CreateContainerError",
            f'workingDir "{cwd}" is not on this machine (no image is pulled); mount a volume there or leave it out',
        )
    else:
        argv = images.resolve([environment.rewrite_argument(word, mounts) for word in expanded], env["PATH"], cwd)
    seen = [environment.rewrite_path(argv[0], mounts), *argv[1:]]
    loopback = _loopback(pod, pod_dir, pod_ip) if addressed and pod_ip != HOST_IP else None
    alone = loopback is not None or images.takes_bind_shim(seen)
    alone = alone or images.listens_on_pod_ip(argv, pod_ip, [str(word) for word in words])
    held = {} if is_ours else (container.get("resources") or {}).get("limits") or {}
    return Launch(argv, env, cwd, mounts, alone, loopback, held, _stdin(container), root)


def _stdin(container: Object) -> str:
    if not (container.get("stdin") or container.get("tty")):
        return ""
    return ("tty" if container.get("tty") else "pipe") + (" once" if container.get("stdinOnce") else "")


def _loopback(pod: Object, pod_dir: Path, pod_ip: str) -> Loopback:
    if pod["spec"].get("hostNetwork"):  # the node's own, which its pods share
        directory = pod_dir.parents[1] / "ports" / str(pod["spec"].get("nodeName"))
        directory.mkdir(parents=True, exist_ok=True)
        return Loopback(pod_ip, directory, shared=True)
    directory = pod_dir / "ports"
    directory.mkdir(exist_ok=True)
    sidecars = [one for one in pod["spec"].get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    return Loopback(pod_ip, directory, len(pod["spec"]["containers"]) + len(sidecars) > 1)


def _root(pod_dir: Path, shim_dir: Path, container: Object, mounts: Sequence[tuple[str, str]], cwd: str) -> Root:
    directory = pod_dir / "root"
    directory.mkdir(exist_ok=True)
    fixed = volumes.read_only(container)
    binds = [("ro" if target in fixed else "rw", real, target) for target, real in mounts]
    for name in ("hosts", "resolv.conf"):
        if (pod_dir / name).exists():
            binds.append(("rw", str(pod_dir / name), f"/etc/{name}"))
    said = container.get("terminationMessagePath") or TERMINATION_LOG
    if said != TERMINATION_LOG:
        file = pod_dir / "containers" / container["name"] / "termination-log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        binds.append(("rw", str(file), said))
    if not os.path.isdir(environment.rewrite_path(cwd, mounts)):
        binds.append(("rw", str(pod_dir / "work"), cwd))  # an image would have it
    # A volume at /tmp must not hide what the container needs of ours: its files, and the interpreter with its packages.
    ours = [("rw", str(path)) for path in (pod_dir, pod_dir.parents[1] / "bin", shim_dir)]
    ours += [("ro", path) for path in dict.fromkeys((sys.prefix, sys.base_prefix, PACKAGES))]
    for kind, path in ours:
        if os.path.isdir(path) and any(path.startswith(target.rstrip("/") + "/") for target, _ in mounts):
            binds.append((kind, path, path))
    return Root(str(directory), tuple(binds))


def program_of(argv: Sequence[str], mounts: Sequence[tuple[str, str]], path: str, cwd: str) -> list[str]:
    """``argv`` with its program as the container sees it: in one of its volumes, or a program of the machine.

    Raises:
        NotRunnableError: there is no such program.
    """
    program = argv[0] if "/" not in argv[0] else os.path.join(cwd, argv[0])
    real = environment.rewrite_path(program, mounts)
    if real != program:
        images.resolve([real], path, "/")
        return [program, *argv[1:]]
    return images.resolve([program, *argv[1:]], path, "/")
