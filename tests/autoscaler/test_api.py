"""The decisions API."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from flyball.autoscaler import create_app
from flyball.clock import parse_rfc3339_ms
from flyball.errors import KubeApiError
from flyball.journal import Journal
from flyball.scaling import Decision, MetricEvaluation


def ask(
    app: Starlette, path: str, query: str = "", token: str | None = None, method: str = "GET", body: Any = None
) -> tuple[int, Any]:
    """One request straight through ASGI."""
    import asyncio
    import json

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        given = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return {"type": "http.request", "body": given, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": headers,
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(answer) if answer.startswith((b"{", b"[")) else answer


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.db")
    for at_ms in (1, 2):
        metrics = (MetricEvaluation("Pods", "rps", ratio=1.5),)
        journal.append_decision(Decision("shop", "web", at_ms, 1, 1 + at_ms, 1, 9, rescale=True, metrics=metrics))
    journal.append_decision(Decision("shop", "api", 3, 1, 1, 1, 9))
    return journal


def test_decisions(journal: Journal) -> None:
    app = create_app(journal)
    code, body = ask(app, "/api/flyball/v1/decisions")
    assert (code, [item["at_ms"] for item in body["items"]]) == (200, [3, 2, 1])
    _, body = ask(app, "/api/flyball/v1/decisions", "namespace=shop&name=web&limit=1")
    (item,) = body["items"]
    assert (item["desired"], item["count"], item["metrics"][0]["ratio"], item["outcome"]) == (3, 1, 1.5, None)


@pytest.mark.parametrize("limit", ["0", "x", "-1", "1001", ""])
def test_a_wrong_limit_is_named(journal: Journal, limit: str) -> None:
    code, body = ask(create_app(journal), "/api/flyball/v1/decisions", f"limit={limit}")
    assert code == 400 and "limit" in body["error"]


def test_the_token_is_asked_for(journal: Journal) -> None:
    app = create_app(journal, "secret")
    for path in ("/api/flyball/v1/decisions", "/api/flyball/v1/status"):
        assert ask(app, path)[0] == 401
        assert ask(app, path, token="wrong")[0] == 401
        assert ask(app, path, token="secret")[0] == 200


def test_status(journal: Journal) -> None:
    assert ask(create_app(journal, statistics=lambda: {"hpas": 3}), "/api/flyball/v1/status")[1] == {
        "autoscaler": {"hpas": 3}
    }
    assert ask(create_app(journal), "/api/flyball/v1/status")[1]["autoscaler"]["journal"]["decisions"] == 3


class Governors:
    """Takes patches of Governors and remembers the wakes."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = {}
        self.woken: list[tuple[str, str]] = []

    async def patch(self, _resource: Any, name: str, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        if name != "web":
            raise KubeApiError(404, "NotFound", f'governors.flyball.dev "{name}" not found')
        self.spec |= body["spec"]
        return {"spec": {key: value for key, value in self.spec.items() if value is not None}}

    def wake(self, namespace: str, name: str) -> None:
        self.woken.append((namespace, name))

    def wake_metrics(self, namespace: str, names: frozenset[str]) -> None:
        self.woken.extend((namespace, name) for name in sorted(names))


WEB = "/api/flyball/v1/namespaces/shop/governors/web"


def test_a_person_holds_a_number_and_lets_go(journal: Journal) -> None:
    governors = Governors()
    app = create_app(journal, client=governors, wakes=governors)  # type: ignore[arg-type]
    code, body = ask(app, f"{WEB}/override", method="POST", body={"replicas": 7, "seconds": 60})
    assert (code, body["override"]["replicas"], body["pause"]) == (200, 7, False)
    assert parse_rfc3339_ms(body["override"]["until"]) > 0
    assert ask(app, f"{WEB}/override", method="POST", body={"replicas": 9})[1]["override"] == {
        "replicas": 9,
        "until": None,
    }
    assert ask(app, f"{WEB}/pause", method="POST")[1]["pause"] is True
    assert ask(app, f"{WEB}/pause", method="DELETE")[1]["pause"] is False
    assert ask(app, f"{WEB}/override", method="DELETE")[1]["override"] is None
    assert governors.woken == [("shop", "governor/web")] * 5


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        (f"{WEB}/override", {}, 400, "replicas"),
        (f"{WEB}/override", b"{", 400, "body"),
        (f"{WEB}/override", {"replicas": "7"}, 400, "replicas"),
        (f"{WEB}/override", {"replicas": 7, "minutes": 3}, 400, "minutes"),
        (f"{WEB}/override", {"replicas": 7, "seconds": 0}, 400, "seconds 0"),
        (WEB.replace("web", "none") + "/override", {"replicas": 7}, 404, "not found"),
        ("/api/flyball/v1/wake", {"governors": "all"}, 400, "governors"),
    ],
)
def test_what_is_wrong_is_named(journal: Journal, path: str, body: Any, code: int, words: str) -> None:
    governors = Governors()
    app = create_app(journal, client=governors, wakes=governors)  # type: ignore[arg-type]
    answer = ask(app, path, method="POST", body=body)
    assert answer[0] == code and words in answer[1]["error"]
    assert ask(create_app(journal, "secret", client=governors), path, method="POST", body=body)[0] == 401  # type: ignore[arg-type]
    assert not governors.woken


def test_a_wake_names_governors_and_series(journal: Journal) -> None:
    governors = Governors()
    app = create_app(
        journal,
        wakes=governors,
        metrics_of=lambda series: frozenset({series.removesuffix("_total")}),
    )
    body = {"governors": [["shop", "web"]], "series": [["shop", "hits_total"]]}
    assert ask(app, "/api/flyball/v1/wake", method="POST", body=body)[0] == 204
    assert governors.woken == [("shop", "governor/web"), ("shop", "hits")]
    assert ask(create_app(journal), "/api/flyball/v1/wake", method="POST", body=body)[0] == 503
    assert ask(create_app(journal), f"{WEB}/pause", method="POST")[0] == 503
