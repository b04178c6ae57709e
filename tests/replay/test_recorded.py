"""Load that a server or a store recorded."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from flyball.cli.replay import command
from flyball.errors import ConfigError, QueryError, UpstreamError
from flyball.http.server import serve
from flyball.model.labels import labels_of
from flyball.replay import recorded
from flyball.replay.recorded import read_prometheus, read_store
from flyball.store import Database, Plan
from flyball.web.prometheus_api import create_app

START_MS = 1_700_000_000_000
SUM = "sum(rate(requests_total[1m]))"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Two pods, each scraped every 10 s for an hour; ten minutes of it are missing."""
    database = Database(tmp_path_factory.mktemp("recorded"))
    for pod in range(2):
        writer = database.head.writer("web", 10_000, pod)
        plan = Plan(writer.refs([labels_of({"__name__": "requests_total", "pod": f"p{pod}"})]))
        for round_ in range(360):
            if not 120 <= round_ < 180:
                assert writer.commit(START_MS + round_ * 10_000, plan, np.array([round_ * round_ * 10.0]))
    yield database
    database.close()


def asking(database: Database, work: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            server = await serve(create_app(database, list, executor), port=0, name="test")
            try:
                await work(f"http://127.0.0.1:{server.port}")
            finally:
                await server.close()

    asyncio.run(main())


def test_a_server_and_the_store_behind_it_give_the_same_load(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_STEPS_AT_ONCE", 50)
    end_ms = START_MS + 3_590_000

    async def work(url: str) -> None:
        shares: list[float] = []
        asked = await read_prometheus(url, SUM, START_MS, end_ms, progress=shares.append)
        assert shares == sorted(shares) and len(shares) == 5 and shares[-1] == pytest.approx(1, abs=0.01)
        held = read_store(store.directory, SUM)
        assert np.array_equal(asked.rate, held.rate) and asked.start_ms == held.start_ms == START_MS + 15_000
        assert len(held) == 3585
        # both pods count round * round * 10: 2 * 2 * round requests a second, a minute's mean
        assert held.rate[985] == pytest.approx(2 * (100 + 94.5), rel=0.05)
        assert 0 < held.rate[1500] < held.rate[2000]  # bridged, never zero
        assert held.notes[0] == f"{SUM} is the load in units a second, asked every 15 s"
        assert held.notes[1].startswith("1 gap in the trace (15.")
        quick = await read_prometheus(url, SUM, START_MS, end_ms, compress=10)
        assert len(quick) == len(held) // 10

    asking(store, work)


def test_what_is_no_load_says_so(store: Database) -> None:
    end_ms = START_MS + 3_600_000

    async def work(url: str) -> None:
        for expr, error, wanted in (
            ("requests_total", ConfigError, "several series, as .*p0.* and .*p1.*; make it one, as with sum"),
            ("sum(request_total)", ConfigError, "0 points from 2023-11-14T22:13:20Z.*check the names"),
            ("-sum(requests_total)", ConfigError, "a load is finite and not negative: ask for a rate"),
            ("sum(", QueryError, "parse error"),
        ):
            with pytest.raises(error, match=wanted):
                await read_prometheus(url, expr, START_MS, end_ms)
            with pytest.raises(error, match=wanted):
                read_store(store.directory, expr, START_MS, end_ms)
        with pytest.raises(ConfigError, match="not after its start"):
            await read_prometheus(url, SUM, end_ms, START_MS)

    asking(store, work)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        asyncio.run(read_prometheus("http://127.0.0.1:1", SUM, START_MS, end_ms))


def test_replay_takes_its_load_from_a_store(store: Database, tmp_path: Path) -> None:
    target = {"type": "Utilization", "averageUtilization": 70}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 99,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec}
    path = tmp_path / "hpa.yaml"
    path.write_text(yaml.safe_dump(hpa))
    where = ["--store", str(store.directory), "--query", SUM, "--from", "2023-11-14T22:30:00Z", "--capacity", "24"]
    printed = CliRunner().invoke(command, [str(path), *where, "-o", "json"], catch_exceptions=False).output
    (scores,) = json.loads(printed)["policies"]
    assert scores["policy"] == "web" and scores["changes"] > 10 and 0.5 < scores["cost"] < 2
