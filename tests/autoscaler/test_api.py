"""The decisions API."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from flyball.autoscaler import create_app
from flyball.journal import Journal
from flyball.scaling import Decision, MetricEvaluation


def ask(app: Starlette, path: str, query: str = "", token: str | None = None) -> tuple[int, Any]:
    """One request straight through ASGI."""
    import asyncio
    import json

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": headers,
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body) if body.startswith((b"{", b"[")) else body


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
