"""All that a decision was made from, so that it can be made again."""

import msgspec

from flyball.scaling.decide import decide
from flyball.scaling.governor import Governor, decide_governor
from flyball.scaling.types import Decision, Forecast, History, Observation, Spec


class Inputs(msgspec.Struct, frozen=True, omit_defaults=True):
    """``spec`` of an HPA or ``governor``; what was seen, what was remembered before, what was foreseen."""

    seen: Observation
    history: History
    spec: Spec | None = None
    governor: Governor | None = None
    forecast: Forecast | None = None

    def decide(self, at_ms: int) -> tuple[Decision, History]:
        """The decision, and the history after it: the same inputs give the same."""
        if self.governor is not None:
            return decide_governor(self.governor, self.seen, self.history, at_ms, self.forecast)
        assert self.spec is not None
        return decide(self.spec, self.seen, self.history, at_ms)
