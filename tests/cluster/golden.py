"""Golden exchanges: what a real API server answered, recorded as data, and sent again to the embedded one.

Usage: python -m tests.cluster.golden [SCENARIO ...]   (records; needs the programs of build.py)
"""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from tests.cluster.compare import TIME, UID, Difference, compare_exchange
from tests.cluster.recording import Exchange, decoded, encoded
from tests.cluster.steps import USER_AGENT, Outcome, preparation
from yarl import URL

GOLDEN = Path(__file__).parents[1] / "localcluster_apiserver" / "golden"
# managedFields would be half of all data; one scenario is about them.
MANAGED_FIELDS_IN = frozenset({"serverside"})
_RESOURCE_VERSION = re.compile(r'("resourceVersion": "|resourceVersion=|/metadata/resourceVersion", "value": ")(\d+)')
_WRITTEN_VERSIONS = frozenset({"0", "1", "99999999"})  # by the scenarios themselves
ANSWER_S = 20.0


def exchanges_of(outcomes: Iterable[Outcome]) -> Iterator[Exchange]:
    """Every exchange under its step's name; a kubectl watch ends when kubectl pleases, so it is left out."""
    for outcome in outcomes:
        for exchange in outcome.exchanges:
            by_kubectl = outcome.exit is not None
            if by_kubectl and "watch=" in exchange["target"]:
                continue
            step = outcome.step + (f" > {exchange['method']} {exchange['target']}" if by_kubectl else "")
            yield {"step": step, **exchange}


def canonical(scenario: str, exchanges: list[Exchange]) -> list[Exchange]:
    """The same exchanges with ids, versions and times that are equal from one recording to the next."""
    text = json.dumps(comparable(scenario, exchanges))
    uids: dict[str, str] = {}
    text = UID.sub(lambda m: uids.setdefault(m[0], f"00000000-0000-4000-8000-{len(uids) + 1:012d}"), text)
    numbers = sorted({int(number) for _, number in _RESOURCE_VERSION.findall(text) if number not in _WRITTEN_VERSIONS})
    ranks = {str(number): str(1001 + rank) for rank, number in enumerate(numbers)}
    text = _RESOURCE_VERSION.sub(lambda m: m[1] + ranks.get(m[2], m[2]), text)
    found: list[Exchange] = json.loads(TIME.sub("2026-01-01T00:00:00Z", text))
    return found


def comparable(scenario: str, exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Without managedFields, but in the scenarios that are about them."""
    if scenario in MANAGED_FIELDS_IN:
        return list(exchanges)
    return [{**exchange, "response": without_managed_fields(exchange.get("response"))} for exchange in exchanges]


def without_managed_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_managed_fields(v) for k, v in value.items() if k != "managedFields"}
    return [without_managed_fields(item) for item in value] if isinstance(value, list) else value


def write(scenario: str, exchanges: list[Exchange]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    lines = [json.dumps(exchange, separators=(",", ":")) for exchange in canonical(scenario, exchanges)]
    (GOLDEN / f"{scenario}.jsonl").write_text("\n".join(lines) + "\n")


def recorded_scenarios() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("*.jsonl"))


def read(scenario: str) -> list[Exchange]:
    return [json.loads(line) for line in (GOLDEN / f"{scenario}.jsonl").read_text().splitlines()]


_PREPARING: Exchange = {"method": "POST", "headers": {"content-type": "application/json", "user-agent": USER_AGENT}}


class Bindings:
    """What the recorded server chose -> what the other one chose: uids, versions, names, addresses, pages."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._versions: dict[str, str] = {}

    def learn(self, recorded: Any, given: Any) -> None:
        if isinstance(recorded, dict) and isinstance(given, dict):
            for key, value in recorded.items():
                other = given.get(key)
                if not (isinstance(value, str) and isinstance(other, str)):
                    self.learn(value, other)
                elif key == "resourceVersion":
                    self._versions[value] = other
                elif (
                    key in ("uid", "continue")
                    or (key == "clusterIP" and value != "None")
                    or self._is_generated(recorded, key)
                ) and value:
                    self._texts[value] = other
        elif isinstance(recorded, list) and isinstance(given, list):
            for value, other in zip(recorded, given, strict=False):
                self.learn(value, other)

    @staticmethod
    def _is_generated(metadata: dict[str, Any], key: str) -> bool:
        return key == "name" and bool(metadata.get("generateName"))

    def _fill(self, text: str) -> str:
        for recorded, given in self._texts.items():
            text = text.replace(recorded, given).replace(quote(recorded, safe=""), quote(given, safe=""))
        return _RESOURCE_VERSION.sub(lambda m: m[1] + self._versions.get(m[2], m[2]), text)

    def target(self, exchange: Exchange) -> str:
        return self._fill(exchange["target"])

    def body(self, exchange: Exchange) -> bytes:
        body = exchange["body"]
        if body is None or (isinstance(body, dict) and set(body) == {"base64"}):
            return encoded(body)
        if isinstance(body, str):
            return self._fill(body).encode()
        return self._fill(json.dumps(body)).encode()


class Replayer:
    """Sends recorded exchanges to another server and compares its answers."""

    def __init__(self, session: aiohttp.ClientSession, base: str, token: str) -> None:
        self._session, self._base, self._token = session, base, token

    async def replay(self, scenario: str) -> list[Difference]:
        for path, body in preparation(scenario):
            await self._send(_PREPARING, path, encoded(body))
        bindings = Bindings()
        found: list[Difference] = []
        for recorded in read(scenario):
            given = await self._send(recorded, bindings.target(recorded), bindings.body(recorded))
            (given,) = comparable(scenario, [given])
            bindings.learn(recorded["response"], given["response"])
            found += compare_exchange(recorded["step"], recorded, given)
        return found

    async def _send(self, recorded: Exchange, target: str, body: bytes) -> Exchange:
        headers = {**recorded["headers"], "Authorization": f"Bearer {self._token}"}
        watching = "watch=" in target
        async with self._session.request(
            recorded["method"],
            URL(self._base + target, encoded=True),
            headers=headers,
            data=body or None,
            skip_auto_headers=("Content-Type", "Accept"),
        ) as answer:
            if watching and answer.status == 200 and isinstance(recorded.get("response"), list):
                content = await _lines(answer, len(recorded["response"]))
            else:
                content = await asyncio.wait_for(answer.read(), ANSWER_S)
            content_type = answer.headers.get("Content-Type", "")
            given: Exchange = {"status": answer.status, "type": content_type}
            if "Warning" in answer.headers:
                given["warnings"] = answer.headers.getall("Warning")
            given["response"] = decoded(content, content_type, watching)
            return given


async def _lines(answer: aiohttp.ClientResponse, count: int) -> bytes:
    """As many events as were recorded; a missing one ends with the watch itself."""
    content = b""
    for _ in range(count):
        content += await asyncio.wait_for(answer.content.readline(), ANSWER_S)
    return content


def main() -> None:
    from tests.cluster.control_plane import RealControlPlane
    from tests.cluster.recording import RecordingProxy
    from tests.cluster.scenarios import SCENARIOS
    from tests.cluster.steps import Runner
    from tools.kubectl import find

    with tempfile.TemporaryDirectory(prefix="flyball-golden-") as name:
        directory = Path(name)
        with RealControlPlane(directory / "real") as real, RecordingProxy(real.base, real.token, real.ca) as proxy:
            runner = Runner(proxy, find(), directory / "kubectl")
            for scenario in sys.argv[1:] or SCENARIOS:
                exchanges = list(exchanges_of(runner.run(scenario, SCENARIOS[scenario])))
                write(scenario, exchanges)
                print(f"{scenario}: {len(exchanges)} exchanges", flush=True)


if __name__ == "__main__":
    main()
