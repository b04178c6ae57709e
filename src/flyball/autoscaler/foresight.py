"""The forecasts of all Governors: learned demand by demand, kept in the journal, heavier fits made in a thread."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from flyball.autoscaler.gather import ClockLike
from flyball.autoscaler.pods import Key
from flyball.autoscaler.subjects import startup_s
from flyball.errors import FlyballError
from flyball.journal import Journal
from flyball.scaling import Observation
from flyball.scaling.governor import Governor
from flyball.scaling.types import Forecast

if TYPE_CHECKING:
    from flyball.scaling.forecast import Curve, Forecaster, Task

log = logging.getLogger(__name__)


class Foresight:
    """One forecaster for each Governor that wants one. Fits wait for each other in one thread, decisions for none."""

    def __init__(self, journal: Journal, clock: ClockLike) -> None:
        self._journal, self._clock = journal, clock
        self._known: dict[Key, tuple[str, Forecaster]] = {}  # with the uid of its Governor
        self._fitting: dict[Key, asyncio.Task[None]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._fits = self._failures = self._restored = 0
        self._fit_s = 0.0

    def forecast(self, key: Key, uid: str, governor: Governor, seen: Observation) -> Forecast | None:
        """The newest of a Governor, None where there is none yet; what was learned before a restart counts."""
        if governor.forecast is None:
            self._known.pop(key, None)
            return None
        return self._forecaster(key, uid, governor, seen).forecast

    def learn(self, key: Key, uid: str, governor: Governor, seen: Observation, at_ms: int, demand: float) -> None:
        """One demand in replicas.

        Raises:
            StoreError: the journal cannot be written.
        """
        forecaster = self._forecaster(key, uid, governor, seen)
        forecaster.observe(at_ms, demand)
        pieces = forecaster.unsaved()
        if pieces:
            self._journal.save_forecast(*key, uid, pieces, at_ms)
        if key not in self._fitting:
            task = forecaster.task()
            if task is not None:
                self._fitting[key] = asyncio.create_task(self._fit(key, forecaster, task))

    def _forecaster(self, key: Key, uid: str, governor: Governor, seen: Observation) -> "Forecaster":
        from flyball.scaling.forecast import Forecaster  # numpy only where someone wants it

        settings = governor.forecast
        assert settings is not None
        found = self._known.get(key)
        if found is None or found[0] != uid:
            pieces = self._journal.load_forecast(*key, uid)
            if pieces:
                try:
                    found = uid, Forecaster.restored(pieces, self._clock.now_ms())
                    self._restored += 1
                except ValueError as error:
                    log.warning("forecast_not_restored governor=%s/%s error=%s", *key, error)
        if found is not None and found[0] == uid:
            shape = found[1].shape
            if shape.model == settings.model and (not settings.declared or shape.lead_s == settings.startup_s):
                self._known[key] = found
                return found[1]
            self._journal.forget_forecast(*key)  # of other settings
        forecaster = Forecaster(startup_s(governor, seen), model=settings.model)
        self._known[key] = uid, forecaster
        return forecaster

    async def _fit(self, key: Key, forecaster: "Forecaster", task: "Task") -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "forecast")
        began_s = self._clock.monotonic_s()
        try:
            curve = await asyncio.get_running_loop().run_in_executor(self._thread, _fit, task)
        except FlyballError as error:
            self._failures += 1
            log.warning("forecast_fit_failed governor=%s/%s error=%s", *key, error)
            forecaster.failed(str(error))
        except Exception as error:  # of a library: the Governor goes on without it
            self._failures += 1
            log.exception("forecast_fit_failed governor=%s/%s", *key)
            forecaster.failed(f"its fit failed: {type(error).__name__}: {error}")
        else:
            self._fits += 1
            self._fit_s = self._clock.monotonic_s() - began_s
            forecaster.fitted(curve)
        finally:
            del self._fitting[key]

    def forget(self, key: Key) -> None:
        """The Governor is gone."""
        self._known.pop(key, None)

    async def close(self) -> None:
        """Wait for nothing; a fit that is under way ends in its thread."""
        fitting = list(self._fitting.values())
        for task in fitting:
            task.cancel()
        await asyncio.gather(*fitting, return_exceptions=True)
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    def statistics(self) -> dict[str, Any]:
        """What is known, and the fits since the start."""
        return {
            "forecasters": len(self._known),
            "restored": self._restored,
            "fitting": len(self._fitting),
            "fits": self._fits,
            "fit_failures": self._failures,
            "last_fit_s": round(self._fit_s, 3),
        }


def _fit(task: "Task") -> "Curve":
    """In the thread: importing what makes fits takes seconds."""
    from flyball.scaling.holtwinters import fit

    return fit(task)
