"""The suite's vocabulary: steps of kubectl and of plain HTTP, and a runner that does them against one server."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.recording import Exchange, RecordingProxy, encoded

KUBECTL_TIMEOUT_S = 60
USER_AGENT = "suite/1"
_REFERENCE = re.compile(r"\$\{([\w.-]+)\}")
# Documents that every command asks for; a scenario that is about them asks with Http steps.
_DOCUMENTS = re.compile(r"^/(api|apis|version)(\?.*)?$|^/openapi/")


@dataclass(frozen=True)
class Kubectl:
    """``kubectl ARGS``; ``stdin`` is an object, a list of objects, or a text. ``quiet``: its requests do not count.

    ``editor`` is the command that kubectl edit runs on its file.
    """

    args: str | Sequence[str]
    stdin: Any = None
    quiet: bool = False
    editor: str = "cat"

    @property
    def label(self) -> str:
        return f"kubectl {' '.join(self.words)}"

    @property
    def words(self) -> list[str]:
        return self.args.split() if isinstance(self.args, str) else list(self.args)


@dataclass(frozen=True)
class Http:
    """One request. ``${saved.field.path}`` in target or body is taken from the answer saved under that name.

    ``user`` and ``group`` are those in whose name it is sent, the administrator's own where they are empty.
    """

    method: str
    target: str
    body: Any = None
    type: str = "application/json"
    accept: str = "application/json"
    save: str = ""
    user: str = ""
    group: str = ""

    @property
    def label(self) -> str:
        text = f"{self.method} {self.target}" + ("" if self.accept == "application/json" else f" as {self.accept}")
        return f"{text} by {self.user}" if self.user else text

    def impersonating(self, filled: Callable[[str], str]) -> dict[str, str]:
        names = {"Impersonate-User": self.user, "Impersonate-Group": self.group}
        return {name: filled(value) for name, value in names.items() if value}


Step = Kubectl | Http


@dataclass
class Outcome:
    """What a step brought: kubectl's words and exit code (None for an Http step), and the exchanges."""

    step: str
    exit: int | None = None
    stdout: str = ""
    stderr: str = ""
    exchanges: list[Exchange] = field(default_factory=list)


class Runner:
    """Does scenarios one after another against the server behind ``proxy``; each has a namespace of its own name."""

    def __init__(self, proxy: RecordingProxy, kubectl: str, directory: Path) -> None:
        self._proxy, self._kubectl, self._directory = proxy, kubectl, directory
        directory.mkdir(parents=True, exist_ok=True)
        write_kubeconfig(directory / "kubeconfig", proxy.base)

    def run(self, name: str, steps: Sequence[Step]) -> list[Outcome]:
        self._prepare(name)
        saved: dict[str, Any] = {}
        outcomes = []
        for number, step in enumerate(steps, 1):
            outcome = Outcome(f"{name}/{number} {step.label.replace('$NS', name)}")
            if isinstance(step, Kubectl):
                self._run_kubectl(name, step, outcome)
            else:
                self._run_http(name, step, outcome, saved)
            taken = self._proxy.take()
            if isinstance(step, Kubectl):
                taken = [] if step.quiet else [e for e in taken if not _DOCUMENTS.match(e["target"])]
            outcome.exchanges = taken
            outcomes.append(outcome)
        return outcomes

    def _prepare(self, namespace: str) -> None:
        """The namespace, and what kube-controller-manager would put into it."""
        for path, body in preparation(namespace):
            self._request("POST", path, body)
        self._proxy.take()

    def _run_kubectl(self, namespace: str, step: Kubectl, outcome: Outcome) -> None:
        words = [word.replace("$NS", namespace) for word in step.words]
        stdin = step.stdin
        if isinstance(stdin, list):
            stdin = {"apiVersion": "v1", "kind": "List", "items": stdin}
        if stdin is not None and not isinstance(stdin, str):
            stdin = json.dumps(stdin)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory),
            "KUBECONFIG": str(self._directory / "kubeconfig"),
            "TZ": "UTC",
            "EDITOR": step.editor,
        }
        answer = subprocess.run(
            [self._kubectl, "--namespace", namespace, *words],
            input=None if stdin is None else stdin.replace("$NS", namespace),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
            env=environment,
        )
        outcome.exit = answer.returncode
        outcome.stdout = answer.stdout.replace(self._proxy.base, "<server>")
        outcome.stderr = answer.stderr.replace(self._proxy.base, "<server>")

    def _run_http(self, namespace: str, step: Http, outcome: Outcome, saved: dict[str, Any]) -> None:
        def filled(text: str) -> str:
            return _REFERENCE.sub(lambda m: str(_look_up(saved, m[1])), text.replace("$NS", namespace))

        body = step.body
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            body = filled(text)
        more = step.impersonating(filled)
        self._request(step.method, filled(step.target), body, step.type, step.accept, more)
        if step.save and self._proxy.exchanges:
            saved[step.save] = self._proxy.exchanges[-1].get("response")

    def _request(
        self,
        method: str,
        target: str,
        body: Any,
        content_type: str = "application/json",
        accept: str = "application/json",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        data = encoded(body) or None
        headers = {
            "Accept": accept,
            "User-Agent": USER_AGENT,
            **more,
            **({"Content-Type": content_type} if data is not None else {}),
        }
        request = urllib.request.Request(self._proxy.base + target, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as exc:
            exc.read()


def preparation(namespace: str) -> list[tuple[str, Any]]:
    """POST paths and bodies that make a namespace as a whole cluster would."""
    return [
        ("/api/v1/namespaces", {"metadata": {"name": namespace}}),
        (f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}}),
        (
            f"/api/v1/namespaces/{namespace}/configmaps",
            {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}},
        ),
    ]


def _look_up(saved: Any, path: str) -> Any:
    for part in path.split("."):
        saved = saved[int(part)] if isinstance(saved, list) else saved[part]
    return saved
