"""What series there are (``/series``, ``/labels``, ``/search``) and their newest samples (``/federate``)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from flyball import clock
from flyball.exposition.writing import write_samples
from flyball.model.frames import Frame, is_absent, is_stale
from flyball.model.labels import METRIC_NAME, Labels, labels_of
from flyball.web.answers import client_of, encode, form_client, success, truncated
from flyball.web.instance import Instance, MatcherSets, Store
from flyball.web.parameters import (
    BadDataError,
    Form,
    choice,
    matcher_sets,
    read_form,
    switch,
    unescape_label,
    whole,
    window_ms,
)
from flyball.web.queue import QueryQueue

FEDERATE_LOOKBACK_MS = 300_000
_SEARCH_LIMIT = 100
_SEARCH_TERMS_MAX = 100


class CatalogueHandlers:
    """All of them run in the queue of queries: a scan over a million series is a query too."""

    def __init__(self, store: Store, queue: QueryQueue, instance: Instance, timeout_s: float) -> None:
        self.store, self.queue, self.instance, self.timeout_s = store, queue, instance, timeout_s

    async def _in_turn(self, form: Form, work: Callable[[], Any]) -> Any:
        return await self.queue.run(form_client(form), lambda _: work(), self.timeout_s)

    async def series(self, form: Form) -> Response:
        sets, limit = matcher_sets(form, required=True), whole(form, "limit")
        start, end = window_ms(form)

        def work() -> tuple[bytes, list[str]]:
            found = sorted(self.store.series(sets, start, end))
            shown = found[:limit] if limit else found
            return b"[" + b",".join([encode(dict(labels)) for labels in shown]) + b"]", truncated(found, limit)

        data, warnings = await self._in_turn(form, work)
        return success(data, warnings)

    async def names(self, form: Form) -> Response:
        sets, limit = matcher_sets(form), whole(form, "limit")
        start, end = window_ms(form)
        found = await self._in_turn(form, lambda: sorted(self.store.label_names(sets, start, end)))
        return success(encode(found[:limit] if limit else found), truncated(found, limit))

    async def label_values(self, form: Form, name: str) -> Response:
        name = unescape_label(name)
        if not name:
            raise BadDataError(f'invalid label name: "{name}"')
        sets, limit = matcher_sets(form), whole(form, "limit")
        start, end = window_ms(form)
        found = await self._in_turn(form, lambda: sorted(self.store.label_values(name, sets, start, end)))
        return success(encode(found[:limit] if limit else found), truncated(found, limit))

    async def search_metric_names(self, form: Form) -> Response:
        found = await self._search(form, "name", lambda *window: self.store.label_values(METRIC_NAME, *window))
        if switch(form, "include_metadata"):
            known = {metric: (kind, text) for _, metric, kind, text, _ in self.instance.target_metadata()}
            for item in found:
                kind, text = known.get(item["name"], ("", ""))
                item |= {"type": kind, "help": text} if kind else {}
        return _stream(form, found)

    async def search_label_names(self, form: Form) -> Response:
        return _stream(form, await self._search(form, "name", self.store.label_names))

    async def search_label_values(self, form: Form) -> Response:
        label = form.get("label", [""])[0]
        if not label:
            raise BadDataError('invalid parameter "label": it is missing; name the label whose values are wanted')
        return _stream(form, await self._search(form, "value", lambda *window: self.store.label_values(label, *window)))

    async def _search(
        self, form: Form, key: str, find: Callable[[MatcherSets, int, int], Iterable[str]]
    ) -> list[dict[str, Any]]:
        sets = matcher_sets(form)
        start, end = window_ms(form)
        terms = form.get("search[]", [])[:_SEARCH_TERMS_MAX]
        threshold = whole(form, "fuzz_threshold")
        if threshold > 100:
            raise BadDataError(f'invalid parameter "fuzz_threshold": {threshold} is not from 0 to 100')
        choice(form, "fuzz_alg", ("subsequence", "jarowinkler"))
        order, descending = (
            choice(form, "sort_by", ("", "alpha", "score")),
            choice(form, "sort_dir", ("", "asc", "dsc")),
        )
        if descending and order != "alpha":
            raise BadDataError('invalid parameter "sort_dir": it needs sort_by=alpha')
        exact_case, with_score = switch(form, "case_sensitive", True), switch(form, "include_score")

        def work() -> list[tuple[str, float]]:
            found = []
            for text in sorted(find(sets, start, end)):
                score = max((match_score(term, text, exact_case) for term in terms), default=1.0)
                if score > 0 and score * 100 >= threshold:
                    found.append((text, score))
            if order == "score":
                found.sort(key=lambda item: -item[1])
            return found[::-1] if descending == "dsc" else found

        found = await self._in_turn(form, work)
        return [{key: text, "score": round(score, 4)} if with_score else {key: text} for text, score in found]

    async def federate(self, request: Request) -> Response:
        form = await read_form(request)
        form["client"] = [client_of(request)]
        sets = matcher_sets(form, required=True)
        now = clock.now_ms()
        external = self.instance.external_labels()

        def work() -> bytes:
            newest: dict[Labels, tuple[float, int]] = {}
            for matchers in sets:
                for frame in self.store.select(matchers, now - FEDERATE_LOOKBACK_MS, now):
                    for labels, value, at_ms in newest_samples(frame, now - FEDERATE_LOOKBACK_MS, now):
                        newest[labels_of({**external, **dict(labels)}) if external else labels] = value, at_ms
            ordered = sorted(newest.items(), key=lambda item: (dict(item[0]).get(METRIC_NAME, ""), item[0]))
            return write_samples(
                ((labels, value, at_ms) for labels, (value, at_ms) in ordered),
                utf8_names="allow-utf-8" in request.headers.get("accept", ""),
            )

        body = await self._in_turn(form, work)
        return PlainTextResponse(body, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


def newest_samples(frame: Frame, start_ms: int, end_ms: int) -> Iterator[tuple[Labels, float, int]]:
    """The last sample of each series in start < t <= end, unless it is a staleness marker."""
    times = frame.times_ms[:, frame.target]
    inside = (times > start_ms) & (times <= end_ms) & ~is_absent(frame.values)
    stale = is_stale(frame.values)
    rows = len(times)
    last = rows - 1 - np.argmax(inside[::-1], axis=0)
    for column in np.flatnonzero(inside.any(axis=0)).tolist():
        row = int(last[column])
        if not stale[row, column]:
            yield frame.labels[column], float(frame.values[row, column]), int(times[row, column])


def match_score(term: str, text: str, exact_case: bool) -> float:
    """How well a term fits: 1 for equal, less for a part, less still for its letters in order; 0 for none."""
    if not exact_case:
        term, text = term.lower(), text.lower()
    if not term or term == text:
        return 1.0
    if term in text:
        return 0.5 + 0.5 * len(term) / len(text)
    rest = iter(text)
    return 0.5 * len(term) / len(text) if all(letter in rest for letter in term) else 0.0


def _stream(form: Form, found: Sequence[dict[str, Any]]) -> Response:
    """Batches of results, then a line that says how it ended."""
    limit = whole(form, "limit", _SEARCH_LIMIT) or _SEARCH_LIMIT
    batch = whole(form, "batch_size", _SEARCH_LIMIT) or _SEARCH_LIMIT
    shown = found[:limit]
    lines = [encode({"results": shown[at : at + batch]}) for at in range(0, len(shown), batch)]
    lines.append(encode({"status": "success", "has_more": len(found) > len(shown)}))
    return Response(b"\n".join(lines) + b"\n", media_type="application/x-ndjson")
