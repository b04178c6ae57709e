"""What a container runs on this machine: its command, or the host's program for a well-known image."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.errors import ConfigError

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PYTHON_WORDS = re.compile(r"(?<![\w-])(python[\d.]*|gunicorn|uvicorn|hypercorn|flask|waitress-serve|daphne)(?![\w-])")
_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh")
PULL_FAILED = "ErrImagePull"
"""The waiting reason when an image's program cannot be had, as it is when an image cannot."""
_WRAPPERS = ("env", "nice", "nohup", "timeout", "stdbuf", "tini", "dumb-init", "exec", "setsid")


@dataclass(frozen=True, slots=True)
class Image:
    """``entrypoint`` stands before the arguments; ``arguments`` is used when the manifest gives none."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether a program of ours stands for the image's."""
        return self.entrypoint[: len(OURS)] == OURS


OURS = (sys.executable, "-m", "flyball")
_PAUSE = Image((), ("sleep", "2147483647"))
_NODE_EXPORTER = Image((*OURS, "exporter", "node", "--web.listen-address", ":9100"))
_NGINX_EXPORTER = Image((*OURS, "exporter", "nginx"))
# It must not take over the APIServices of the embedded adapter, which its default Service's name would mean.
_ADAPTER = Image((*OURS, "adapter", "--service", "flyball-system/none"))
_STATE_METRICS = Image((*OURS, "exporter", "kube-state", "--host", "0.0.0.0", "--telemetry-port", "8081"))
# The embedded operator acts; the pod that people look for shows on its own what comes of their objects.
_OPERATOR = Image((*OURS, "operator", "--observe"))
_BLACKBOX_EXPORTER = Image((*OURS, "exporter", "blackbox"))
_RELOAD = Image((*OURS, "sidecar", "reload"))
_RBAC_PROXY = Image((*OURS, "sidecar", "rbac-proxy"))

IMAGES = {
    "python": Image((), ("python3",)),
    "pypy": Image((), ("pypy3",)),
    "busybox": Image((), ("sh",)),
    "alpine": Image((), ("sh",)),
    "debian": Image((), ("bash",)),
    "ubuntu": Image((), ("bash",)),
    "bash": Image(("bash",)),
    "node": Image((), ("node",)),
    "redis": Image((), ("redis-server", "--bind", "$(POD_IP)", "--protected-mode", "no")),
    "valkey/valkey": Image((), ("valkey-server", "--bind", "$(POD_IP)", "--protected-mode", "no")),
    "memcached": Image((), ("memcached", "-l", "$(POD_IP)", "-u", "nobody")),
    "nginx": Image((), ("nginx", "-g", "daemon off;")),
    "nginx/nginx-prometheus-exporter": _NGINX_EXPORTER,
    "httpd": Image((), ("httpd", "-D", "FOREGROUND")),
    "haproxy": Image((), ("haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg")),
    "prom/prometheus": Image(("prometheus",)),
    "prom/node-exporter": _NODE_EXPORTER,
    "quay.io/prometheus/node-exporter": _NODE_EXPORTER,
    "registry.k8s.io/kube-state-metrics/kube-state-metrics": _STATE_METRICS,
    "registry.k8s.io/prometheus-adapter/prometheus-adapter": _ADAPTER,
    "prom/blackbox-exporter": _BLACKBOX_EXPORTER,
    "quay.io/prometheus/blackbox-exporter": _BLACKBOX_EXPORTER,
    "quay.io/prometheus-operator/prometheus-operator": _OPERATOR,
    "ghcr.io/jimmidyson/configmap-reload": _RELOAD,
    "jimmidyson/configmap-reload": _RELOAD,
    "quay.io/brancz/kube-rbac-proxy": _RBAC_PROXY,
    "gcr.io/kubebuilder/kube-rbac-proxy": _RBAC_PROXY,
    "prom/pushgateway": Image(("pushgateway",)),
    "curlimages/curl": Image(("curl",)),
    "ghcr.io/flyball-dev/flyball": Image(OURS),
    "flyball/forwarder": Image((sys.executable, "-I", "-S", str(Path(__file__).with_name("forwarder.py")))),
    "pause": _PAUSE,
    "registry.k8s.io/pause": _PAUSE,
}


def with_own(pairs: Sequence[str]) -> dict[str, Image]:
    """The table with what ``--image NAME=COMMAND`` adds; arguments of a manifest follow the command.

    Raises:
        ConfigError: one of them is not of that form.
    """
    table = dict(IMAGES)
    for pair in pairs:
        name, equals, command = pair.partition("=")
        try:
            words = tuple(shlex.split(command))
        except ValueError as exc:
            raise ConfigError(f'--image "{pair}": {exc}') from exc
        if not name or not equals or not words:
            raise ConfigError(f'--image "{pair}" is not NAME=COMMAND, such as nginx=/usr/local/sbin/nginx')
        table[repository(name)] = Image(words)
    return table


class NotRunnableError(Exception):
    """The container cannot run on this machine. ``reason`` is the container's waiting reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def repository(image: str) -> str:
    """``docker.io/library/python:3.13-slim@sha256:...`` -> ``python``."""
    name = image.partition("@")[0]
    head, _, tail = name.rpartition("/")
    name = f"{head}/{tail.partition(':')[0]}" if head else tail.partition(":")[0]
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/", "library/"):
        name = name.removeprefix(prefix)
    return name


def command_line(
    image: str, command: Sequence[str], args: Sequence[str], table: Mapping[str, Image] = IMAGES
) -> list[str]:
    """What the container would run, by the rules of Kubernetes for command, args and the image's own.

    Raises:
        NotRunnableError: there is no command, and the image is not one whose program is known.
    """
    if command:
        return [*command, *args]
    known = table.get(repository(image))
    if known is None:
        raise NotRunnableError(
            PULL_FAILED,
            f'image "{image}" is not pulled: in the embedded cluster a pod is a process of this machine, '
            f"so set command: in the manifest, or use flyball up --image {repository(image)}=COMMAND",
        )
    if not args:
        return [*known.entrypoint, *known.arguments]
    # An image of a program takes options as arguments to that program, as its entrypoint script would.
    if not known.entrypoint and args[0].startswith("-") and known.arguments:
        return [known.arguments[0], *args]
    return [*known.entrypoint, *args]


def is_stand_in(image: str, command: Sequence[str], table: Mapping[str, Image] = IMAGES) -> bool:
    """Whether one of our programs runs in place of the image's own."""
    known = table.get(repository(image))
    return not command and known is not None and known.is_ours


def resolve(argv: Sequence[str], path: str, cwd: str) -> list[str]:
    """``argv`` with its program as a real file; any ``python`` is the interpreter that runs Flyball.

    Raises:
        NotRunnableError: there is no such program on this machine.
    """
    program = argv[0]
    if _PYTHON.fullmatch(os.path.basename(program)) and not _is_user_python(program):
        return [sys.executable, *argv[1:]]
    if "/" in program:
        full = os.path.join(cwd, program)
        if os.path.isfile(full) and os.access(full, os.X_OK):
            return [full, *argv[1:]]
        # An image keeps it elsewhere: /usr/local/bin/redis-server is /usr/bin/redis-server here.
        found = None if os.path.isfile(full) else shutil.which(os.path.basename(program), path=path)
        if found is None and os.path.isfile(full):
            raise NotRunnableError(
                "CreateContainerError", f'"{program}" is not executable; run it through its interpreter'
            )
    else:
        found = shutil.which(program, path=path)
    if found is None:
        raise NotRunnableError(
            PULL_FAILED,
            f'program "{program}" is not on this machine: images are not pulled, a pod is a process of the host; '
            f"install {os.path.basename(program)} or change the command",
        )
    return [found, *argv[1:]]


def _is_user_python(program: str) -> bool:
    """A python of the user's own virtual environment is meant, not the one of an image."""
    return (Path(program).parent.parent / "pyvenv.cfg").is_file()


def takes_bind_shim(argv: Sequence[str]) -> bool:
    """Whether the program is Python, so that the shim gives it an address of its own."""
    words = list(argv)
    while words and (os.path.basename(words[0]) in _WRAPPERS or "=" in words[0].partition("/")[0]):
        words.pop(0)
        while words and (words[0].startswith("-") or words[0][:1].isdigit()):
            words.pop(0)
    if not words:
        return False
    name = os.path.basename(words[0])
    if _PYTHON.fullmatch(name):
        flags = [word for word in words[1:2] if re.fullmatch(r"-[A-Za-z]*[IES][A-Za-z]*", word)]
        return not flags
    if name in _SHELLS:
        return bool(_PYTHON_WORDS.search(" ".join(words[1:])))
    try:
        with open(words[0], "rb") as file:
            first = file.readline(256)
    except OSError:
        return False
    return first.startswith(b"#!") and b"python" in first


def listens_on_pod_ip(argv: Sequence[str], pod_ip: str, manifest_words: Sequence[str]) -> bool:
    """Whether the program was told the pod's address, so that it does not listen on every one."""
    return any(pod_ip in word for word in argv) or any("POD_IP" in word for word in manifest_words)
