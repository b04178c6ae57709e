"""Classic histograms as native ones with custom buckets: ``convert_classic_histograms_to_nhcb``.

A histogram's ``_bucket``, ``_sum`` and ``_count`` series become one series. Which belong together is worked out once
for a page; from scrape to scrape only their values are put together anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flyball.exposition.parsed import Exposition, Metadata, Samples
from flyball.exposition.series import parse_series
from flyball.exposition.writing import series_text
from flyball.model.frames import Floats
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram
from flyball.model.labels import METRIC_NAME, labels_of

_SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass(slots=True)
class _Classic:
    """One histogram: the indexes of its parts among a page's samples."""

    text: bytes
    buckets: dict[float, int] = field(default_factory=dict)
    sum: int | None = None
    count: int | None = None

    def parts(self) -> list[int]:
        return [index for index in (*self.buckets.values(), self.sum, self.count) if index is not None]

    def converted(self, values: Floats) -> Histogram | None:
        """None when its numbers contradict each other."""
        bounds = sorted(self.buckets)
        counts = [float(values[self.buckets[bound]]) for bound in bounds]
        count = float(values[self.count]) if self.count is not None else counts[-1] if counts else 0.0
        if not bounds or bounds[-1] != math.inf:
            bounds, counts = [*bounds, math.inf], [*counts, count]
        each = np.diff(counts, prepend=0.0)
        if not (each >= 0).all() or counts[-1] != count or not math.isfinite(count):
            return None
        return Histogram(
            schema=CUSTOM_BUCKETS,
            count=count,
            sum=float(values[self.sum]) if self.sum is not None else 0.0,
            positive={index: value for index, value in enumerate(each.tolist()) if value},
            custom_values=tuple(bounds[:-1]),
        )


def with_custom_buckets(found: Exposition, *, classic: bool) -> Exposition:
    """The page with its classic histograms converted; where there is a native one of the same labels it stands.

    Args:
        classic: the classic series stay beside them.

    Raises:
        ScrapeError: a series of a histogram is malformed.
    """
    classics = _classics(found)
    if not classics:
        return found
    parts = {index for one in classics for index in one.parts()}
    kept = [index for index in range(len(found.series)) if classic or index not in parts]
    converting = _Conversion(classics, kept)
    return Exposition(
        series=[found.series[index] for index in kept] + [one.text for one in classics],
        types=[found.types[index] for index in kept] + ["histogram"] * len(classics),
        samples=converting.apply(found.samples),
        metadata=found.metadata,
        layout=replace(found.layout, reshape=converting.apply) if found.layout is not None else None,
        natives=frozenset(range(len(kept), len(kept) + len(classics))),
    )


def _classics(found: Exposition) -> list[_Classic]:
    native = {found.series[index] for index, _ in found.samples.histograms}
    classics: dict[bytes, _Classic] = {}
    for index, (text, type_) in enumerate(zip(found.series, found.types, strict=True)):
        if type_ != "histogram" or text in native:
            continue
        labels = parse_series(text, type_)
        base, suffix = _base(labels.pop(METRIC_NAME))
        bound = _bound(labels.pop("le", "")) if suffix == "_bucket" else 0.0
        if not suffix or found.metadata.get(base, Metadata()).type != "histogram" or math.isnan(bound):
            continue
        own = series_text(base, labels_of(labels), utf8_names=True).encode()
        if own in native:
            continue
        one = classics.setdefault(own, _Classic(own))
        if suffix == "_bucket":
            one.buckets.setdefault(bound, index)
        elif suffix == "_sum":
            one.sum = index
        else:
            one.count = index
    return list(classics.values())


def _base(name: str) -> tuple[str, str]:
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


class _Conversion:
    """Samples of a page as written into those of the page as converted."""

    def __init__(self, classics: Sequence[_Classic], kept: Sequence[int]) -> None:
        self._classics = classics
        self._kept = np.array(kept, np.intp)
        self._place = {index: place for place, index in enumerate(kept)}
        self._exemplar_place = self._place | {
            index: len(kept) + number for number, one in enumerate(classics) for index in one.parts()
        }
        self._firsts = np.array([min(one.parts()) for one in classics], np.intp)

    def apply(self, samples: Samples) -> Samples:
        """Exemplars of the parts are those of the histogram."""
        histograms = [(self._place[index], histogram) for index, histogram in samples.histograms]
        counts = np.full(len(self._classics), np.nan)
        for number, one in enumerate(self._classics):
            histogram = one.converted(samples.values)
            if histogram is not None:
                counts[number] = histogram.count
                histograms.append((len(self._kept) + number, histogram))
        times = samples.times_ms
        return Samples(
            values=np.concatenate([samples.values[self._kept], counts]),
            times_ms=np.concatenate([times[self._kept], times[self._firsts]]) if times is not None else None,
            exemplars=[(self._exemplar_place[index], exemplar) for index, exemplar in samples.exemplars],
            histograms=histograms,
        )
