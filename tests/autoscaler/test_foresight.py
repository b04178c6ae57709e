"""Forecasts of the controller: learned, kept over kill -9, fitted in a thread, and saying why they fell back."""

import asyncio
import math
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.autoscaler.cluster import FakeCluster
from tests.autoscaler.test_autoscaler import QUEUE, Clock, external, go, journal, queue_items, scale, until

from flyball.autoscaler import Autoscaler
from flyball.cli.explain import render
from flyball.errors import ConfigError
from flyball.journal import Journal
from flyball.kube import KubeClient
from flyball.scaling import Observation, holtwinters
from flyball.scaling.forecast import Forecaster, Task
from flyball.scaling.governor import Governor, governor_from_object

__all__ = ["journal"]
LEAD_S = 30
BEATS = 200  # of three seconds


def governor(uid: str = "u", **forecast: Any) -> dict[str, Any]:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": ref, "maxReplicas": 90, "metrics": [external()], "profile": "fast"}
    meta = {"namespace": "shop", "name": "web", "uid": uid, "generation": 1}
    return {"metadata": meta, "spec": {**spec, "forecast": {"startupSeconds": LEAD_S, **forecast}}}


def decoded(**forecast: Any) -> Governor:
    return governor_from_object(governor(**forecast))


def load(beat: int) -> int:
    return round(10 * (12 + 8 * math.sin(beat / 20) + beat % 3))


class World:
    """The controller over one service, at a beat of three seconds by its own clock."""

    def __init__(self, journal: Journal, beat: int = 0) -> None:
        self.journal, self.clock, self.beats = journal, Clock(), beat
        self.clock.ms += 3000 * beat
        self.fake = FakeCluster()
        self.fake.put("governors", governor())
        self.fake.scales["web"] = scale("web", 40)
        self.scaler = Autoscaler(cast(KubeClient, self.fake), journal, clock=self.clock, sync_period_s=3600)

    async def go_on(self, until_beat: int) -> None:
        informer = asyncio.create_task(self.scaler._governors.run())
        await self.scaler._governors.wait_synced()
        while self.beats < until_beat:
            self.clock.ms += 3000
            self.beats += 1
            self.fake.answers[QUEUE] = queue_items(str(load(self.beats)))
            await self.scaler.evaluate("shop", "governor/web")
        informer.cancel()
        await asyncio.gather(informer, return_exceptions=True)

    def decided(self) -> Any:
        return self.journal.decisions("shop", "governor/web", limit=1)[0].decision


def _until_killed(path: Path) -> None:
    asyncio.run(World(Journal(path)).go_on(BEATS))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_autoscaler_foresees_as_one_that_was_not(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_until_killed, args=(tmp_path / "killed.db",))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    killed, never = World(Journal(tmp_path / "killed.db"), BEATS), World(Journal(tmp_path / "never.db"))

    async def test() -> None:
        await never.go_on(BEATS + 1)
        await killed.go_on(BEATS + 1)
        first, wanted = killed.decided().governed.forecast, never.decided().governed.forecast
        assert first is not None and first.by_model and first == wanted  # with the first decision after the start
        assert killed.scaler.statistics()["forecasts"]["restored"] == 1
        for world in (killed, never):
            await world.go_on(BEATS + 20)
        assert killed.decided().governed.forecast == never.decided().governed.forecast
        assert killed.decided().desired == never.decided().desired

    go(test())


def test_another_governor_of_that_name_and_another_lead_start_anew(journal: Journal) -> None:
    async def test() -> None:
        world = World(journal)
        await world.go_on(200)
        assert journal.load_forecast("shop", "governor/web", "u") and not journal.load_forecast("shop", "web", "u")
        seen = Observation()

        def known(uid: str, **forecast: Any) -> Any:
            one = Autoscaler(cast(KubeClient, world.fake), journal, clock=world.clock)._foresight
            return one.forecast(("shop", "governor/web"), uid, decoded(**forecast), seen)

        assert known("u") is not None
        assert known("other") is None
        assert known("u", startupSeconds=45) is None
        assert journal.load_forecast("shop", "governor/web", "u") == {}  # of no use any more
        await world.go_on(250)
        assert journal.load_forecast("shop", "governor/web", "u")
        journal.forget("shop", "governor/web")
        assert journal.load_forecast("shop", "governor/web", "u") == {}

    go(test())


def test_a_fit_is_made_in_a_thread_and_delays_no_decision(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    began, allowed = threading.Event(), threading.Event()

    def fit(task: Task) -> Any:
        began.set()
        assert allowed.wait(20)
        if len(task.levels) > 2 * task.day:
            raise ConfigError(holtwinters.MISSING)
        return task.curve(np.array(task.levels[-task.day :])[np.arange(task.ahead) % task.day])

    monkeypatch.setattr(holtwinters, "fit", fit)

    async def test() -> None:
        foresight = Autoscaler(cast(KubeClient, FakeCluster()), journal, clock=Clock())._foresight
        key, one, seen = ("shop", "governor/web"), decoded(model="holt-winters", startupSeconds=3600), Observation()
        at_ms, step_ms = 0, 360_000

        def learn(steps: int) -> None:
            nonlocal at_ms
            for _ in range(steps):
                foresight.learn(key, "u", one, seen, at_ms, 10 + 5 * math.sin(2 * math.pi * at_ms / 86_400_000))
                at_ms += step_ms

        day = Forecaster(3600, model="holt-winters").shape.day
        learn(2 * 2 * day)  # two days of levels of two steps
        await until(began.is_set)
        learn(3)  # while the fit hangs
        known = foresight.forecast(key, "u", one, seen)
        assert known is not None and known.at_ms == at_ms - step_ms and known.trouble == "it needs two days of demand"
        assert foresight.statistics()["fitting"] == 1
        allowed.set()
        await until(lambda: foresight.statistics()["fits"] == 1)
        learn(1)
        assert foresight._known[key][1]._curve is not None
        learn(2 * 12)
        await until(lambda: foresight.statistics()["fit_failures"] == 1)
        await foresight.close()

    go(test())


def test_explain_of_a_refusal_names_no_size() -> None:
    item = {"at_ms": 0, "current": 0, "desired": 0, "failed": True, "error": "also the target of another"}
    text = render(item | {"min_replicas": 1, "max_replicas": 9, "profile": "1.37"})
    assert "decides nothing" in text and "hold at" not in text and "error: also the target of another" in text


def test_explain_says_why_another_model_counts() -> None:
    forecast = {"at_ms": 0, "for_ms": 30_000, "expected": 4.0, "spread": 0.05, "by_model": True, "model": "linear"}
    forecast["trouble"] = holtwinters.MISSING
    governed = {"profile": "fast", "demand": 3.0, "forecast": forecast}
    item = {"namespace": "shop", "name": "governor/web", "at_ms": 0, "current": 3, "desired": 4, "governed": governed}
    text = render(item | {"min_replicas": 1, "max_replicas": 9, "profile": "1.37"})
    assert "forecast 4.00 in 30 s, typical error 5.0% by linear" in text
    assert "does not count: statsmodels is not installed: pip install 'flyball[forecast]'" in text
