"""Exchanges recorded from a real prometheus-adapter 0.12.0, replayed: the same bytes, or a difference on purpose.

A failure is the same when its code and reason are: our messages name the rule and the cause, upstream's do not.
"""

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest
from yarl import URL

from .record import FILE, binary, recorded
from .scenario import CONFIG, REQUESTS, comparable, objects, series
from .world import World, world

EXCHANGES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]

#: (what, of which requests, our status): where we differ on purpose.
DIFFERENCES = [
    ("NaN is left out of a list", r"/pods/\*/bad$", 200),
    ("NaN is no value of an object", r"/pods/web-1/bad$", 404),
    ("the metric selector's != works; upstream cannot print it", r"metricLabelSelector=code!%3D200$", 200),
    ("an operator that PromQL lacks is the caller's fault", r"elector=(code|queue)%3E1$", 400),
    ("both versions are listed; upstream serves v1beta2 and does not say so", r"^/apis/custom\.metrics\.k8s\.io$", 200),
    ("a metric selector that cannot be read is the caller's fault", r"metricLabelSelector=%3D%3D$", 400),
    ("a template that fails is the rule's fault, not an unknown metric", r"/broken_template$", 500),
    ("a query of a wrong type is an internal error with its reason", r"/a_matrix$", 500),
    ("a scalar has no labels; upstream writes null", r"/a_scalar$", 200),
    (
        "cpu is finer than a milli-core",
        r"^/apis/metrics\.k8s\.io/v1beta1(/namespaces/default)?/pods(\?labelSelector=app.*|/web-1)?$",
        200,
    ),
]
_WINDOW = re.compile(r'"window(Seconds)?":\d+,')  # a custom metric tells the window of its rate; upstream's never does


def _known(line: dict[str, Any]) -> tuple[str, int] | None:
    found = [(what, status) for what, path, status in DIFFERENCES if re.search(path, line["path"])]
    return found[0] if found else None


def _same(line: dict[str, Any], status: int, body: str) -> bool:
    if status != line["status"]:
        return False
    if status == 200:
        is_custom = line["path"].startswith("/apis/custom.")
        return (_WINDOW.sub("", body) if is_custom else body) == line["body"]
    theirs = json.loads(line["body"])
    return "reason" in theirs and theirs["reason"] == json.loads(body)["reason"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Ours, to each recorded request."""

    async def ask_all(found: World) -> list[tuple[int, str]]:
        token = {"Authorization": f"Bearer {found.pki('token').read_text().strip()}"}

        async def listed() -> bool:
            return (await found.ask("/readyz"))[1] == b"ok"

        await found.until(listed)
        got = []
        base, connector = f"https://127.0.0.1:{found.adapter_port}", aiohttp.TCPConnector(ssl=found.tls())
        async with aiohttp.ClientSession(connector=connector) as session:
            for line in EXCHANGES:
                headers = token | ({"Accept": line["accept"]} if "accept" in line else {})
                async with session.get(URL(base + line["path"], encoded=True), headers=headers) as response:
                    got.append((response.status, comparable(await response.read(), line["path"])))
        return got

    async def main() -> list[tuple[int, str]]:
        async with world(tmp_path_factory.mktemp("golden"), CONFIG, objects=objects(), series=series) as found:
            return await ask_all(found)

    return asyncio.run(main())


def test_the_recording_is_of_these_requests() -> None:
    assert [(line["path"], line.get("accept", "")) for line in EXCHANGES] == REQUESTS


def test_what_agrees_agrees_byte_for_byte(answers: list[tuple[int, str]]) -> None:
    different = [
        f"{line['path']} {line.get('accept', '')}\n  theirs {line['status']} {line['body']}\n  ours   {status} {body}"
        for line, (status, body) in zip(EXCHANGES, answers, strict=True)
        if _known(line) is None and not _same(line, status, body)
    ]
    assert not different, "\n".join(different)


def test_each_difference_is_one_and_is_as_listed(answers: list[tuple[int, str]]) -> None:
    seen = set()
    for line, (status, body) in zip(EXCHANGES, answers, strict=True):
        if (known := _known(line)) is not None:
            what, wanted = known
            assert status == wanted, (line["path"], what, body)
            if not _same(line, status, body):
                seen.add(what)
    assert seen == {what for what, _, _ in DIFFERENCES}


@pytest.mark.peer
def test_the_real_adapter_still_answers_so() -> None:
    assert asyncio.run(recorded(binary())) == FILE.read_text().splitlines()
