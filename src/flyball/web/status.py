"""What the server says of itself: targets, metadata, rules, configuration, statistics; and the admin API."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import re2
import yaml
from prometheus_client import REGISTRY
from starlette.responses import Response

from flyball import __version__, clock
from flyball.errors import NotFoundError, QueryError
from flyball.model.clients import without_password
from flyball.model.labels import Labels, Matcher
from flyball.model.scrapeconfigs import relabel_document, to_document
from flyball.promql import parse_selector
from flyball.relabel import relabel
from flyball.web.answers import UnavailableError, encode, form_client, success
from flyball.web.instance import Admin, Instance, Store
from flyball.web.parameters import (
    TIME_MAX_MS,
    TIME_MIN_MS,
    BadDataError,
    Form,
    choice,
    first,
    matcher_sets,
    switch,
    whole,
    window_ms,
)
from flyball.web.queue import QueryQueue
from flyball.web.telemetry import PROMETHEUS_VERSION

#: ``status/tsdb`` counts at most so many of each kind, whatever is asked.
STATUS_LIMIT_MAX = 10_000
_STATUS_LIMIT = 10
_QUIET = re2.Options()
_QUIET.log_errors = False  # RE2 would also write to stderr

#: The version whose language and API this is; clients look at it.


class StatusHandlers:
    def __init__(self, store: Store, queue: QueryQueue, instance: Instance, timeout_s: float) -> None:
        self.store, self.queue, self.instance, self.timeout_s = store, queue, instance, timeout_s

    async def targets(self, form: Form) -> Response:
        found = self.instance.targets()
        if not isinstance(found, dict):
            found = {"activeTargets": list(found), "droppedTargets": []}
        state, pool = first(form, "state", "any").lower(), first(form, "scrapePool")
        active = [item for item in found.get("activeTargets", []) if not pool or item.get("scrapePool") == pool]
        dropped = [item for item in found.get("droppedTargets", []) if not pool or item.get("scrapePool") == pool]
        data = {
            "activeTargets": active if state != "dropped" else [],
            "droppedTargets": dropped if state != "active" else [],
            "droppedTargetCounts": found.get("droppedTargetCounts", {}),
        }
        return success(encode(data))

    async def scrape_pools(self, form: Form) -> Response:
        return success(encode({"scrapePools": sorted(self.instance.pools())}))

    async def scrape_pool_config(self, form: Form) -> Response:
        config = self.instance.pools().get(first(form, "scrapePool"))
        if config is None:
            raise NotFoundError(f'scrape pool "{first(form, "scrapePool")}" not found')
        document = hidden_secrets(to_document(config))
        return success(encode({"yaml": yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}))

    async def relabel_steps(self, form: Form) -> Response:
        config = self.instance.pools().get(first(form, "scrapePool"))
        if config is None:
            raise NotFoundError(f'scrape pool "{first(form, "scrapePool")}" not found')
        try:
            labels: dict[str, str] | None = msgspec.json.decode(first(form, "labels"), type=dict[str, str])
        except msgspec.MsgspecError as exc:
            raise BadDataError(f'invalid parameter "labels": {exc}') from None
        steps = []
        for rule in config.relabel_configs:
            if labels is None:
                break
            labels = relabel(labels, [rule])
            steps.append({"rule": relabel_document(rule), "output": labels or {}, "keep": labels is not None})
        return success(encode({"steps": steps}))

    async def metadata(self, form: Form) -> Response:
        limit, per_metric = whole(form, "limit"), whole(form, "limit_per_metric")
        wanted = first(form, "metric")
        found: dict[str, list[dict[str, str]]] = {}
        scraped = [one[1:] for one in self.instance.target_metadata()]
        named = {metric for metric, *_ in scraped}
        pushed = [(metric, *said) for metric, said in self.instance.stored_metadata().items() if metric not in named]
        for metric, kind, text, unit in [*scraped, *pushed]:
            if wanted and metric != wanted:
                continue
            if metric not in found and limit and len(found) >= limit:
                continue
            one = {"type": kind, "unit": unit, "help": text}
            entries = found.setdefault(metric, [])
            if one not in entries and (not per_metric or len(entries) < per_metric):
                entries.append(one)
        return success(encode(found))

    async def target_metadata(self, form: Form) -> Response:
        limit, wanted = whole(form, "limit"), first(form, "metric")
        matchers: Sequence[Matcher] = ()
        if first(form, "match_target"):
            try:
                matchers = parse_selector(first(form, "match_target"))
            except QueryError as exc:
                raise BadDataError(f'invalid parameter "match_target": {exc}') from None
        found = []
        for labels, metric, kind, text, unit in self.instance.target_metadata():
            if (wanted and metric != wanted) or not all(m.matches(labels.get(m.name, "")) for m in matchers):
                continue
            one = {"target": labels, "type": kind, "help": text, "unit": unit}
            found.append(one if wanted else one | {"metric": metric})
            if limit and len(found) >= limit:
                break
        if wanted and not found:
            raise NotFoundError("specified metadata not found")
        return success(encode(found))

    async def rules(self, form: Form) -> Response:
        kind = choice(form, "type", ("", "alert", "record"))
        without_alerts = switch(form, "exclude_alerts")
        sets = matcher_sets(form)
        limit, token = whole(form, "group_limit"), first(form, "group_next_token")
        if token and not limit:
            raise BadDataError("group_limit needs to be set when group_next_token is given")
        groups = []
        for group in self.instance.rule_groups():
            if not _wanted(form, "rule_group[]", group["name"]) or not _wanted(form, "file[]", group["file"]):
                continue
            rules = [
                _without_alerts(rule) if without_alerts else rule
                for rule in group["rules"]
                if (not kind or rule["type"] == ("alerting" if kind == "alert" else "recording"))
                and _wanted(form, "rule_name[]", rule["name"])
                and (not sets or any(_fits(matchers, rule.get("labels", {})) for matchers in sets))
            ]
            if rules or not (kind or sets or "rule_name[]" in form):
                groups.append({**group, "rules": rules})
        data: dict[str, Any] = {"groups": groups}
        if limit:
            keys = [f"{group['file']};{group['name']}" for group in groups]
            if token and token not in keys:
                raise BadDataError(f'invalid group_next_token "{token}"; ask again from the first page')
            begin = keys.index(token) if token else 0
            data["groups"] = groups[begin : begin + limit]
            if begin + limit < len(groups):
                data["groupNextToken"] = keys[begin + limit]
        return success(encode(data))

    async def alerts(self, form: Form) -> Response:
        return success(encode({"alerts": self.instance.alerts()}))

    async def alertmanagers(self, form: Form) -> Response:
        active = [{"url": url} for url in self.instance.alertmanagers()]
        return success(encode({"activeAlertmanagers": active, "droppedAlertmanagers": []}))

    async def config(self, form: Form) -> Response:
        return success(encode({"yaml": self.instance.config_yaml()}))

    async def flags(self, form: Form) -> Response:
        return success(encode(dict(self.instance.flags)))

    async def features(self, form: Form) -> Response:
        return success(encode(sorted(self.instance.features)))

    async def notifications(self, form: Form) -> Response:
        return success(encode(self.instance.notifications()))

    async def buildinfo(self, form: Form) -> Response:
        info = dict.fromkeys(("branch", "buildUser", "buildDate", "goVersion"), "")
        return success(encode({"version": PROMETHEUS_VERSION, "revision": f"flyball-{__version__}", **info}))

    async def runtimeinfo(self, form: Form) -> Response:
        worked, at_ms = self.instance.last_reload()
        return success(
            encode(
                {
                    "startTime": clock.rfc3339_micro(self.instance.started_ms),
                    "CWD": os.getcwd(),
                    "hostname": socket.gethostname(),
                    "serverTime": clock.rfc3339_micro(clock.now_ms()),
                    "reloadConfigSuccess": worked,
                    "lastConfigTime": clock.rfc3339_micro(at_ms),
                    "corruptionCount": 0,
                    "goroutineCount": 0,
                    "GOMAXPROCS": os.cpu_count() or 1,
                    "GOMEMLIMIT": 0,
                    "GOGC": "",
                    "GODEBUG": "",
                    "storageRetention": self.instance.retention,
                }
            )
        )

    async def tsdb(self, form: Form) -> Response:
        limit = whole(form, "limit", _STATUS_LIMIT)
        if limit < 1:
            raise BadDataError('invalid parameter "limit": it must be a positive number')
        count = min(limit, STATUS_LIMIT_MAX)

        def work() -> dict[str, Any]:
            return cardinality(self.store.series([], TIME_MIN_MS, TIME_MAX_MS), self._bounds(), count)

        data = await self._in_turn(form, work)
        return success(encode(data), [f"limit reduced to {STATUS_LIMIT_MAX}"] if limit > count else [])

    def _bounds(self) -> tuple[int, int]:
        statistics: dict[str, Any] = getattr(self.store, "statistics", dict)()
        return int(statistics.get("min_time_ms") or 0), int(statistics.get("max_time_ms") or 0)

    async def tsdb_blocks(self, form: Form) -> Response:
        return success(encode({"blocks": self.instance.blocks()}))

    async def walreplay(self, form: Form) -> Response:
        return success(encode({"min": 0, "max": 0, "current": 0}))

    async def self_metrics(self, form: Form) -> Response:
        pattern = first(form, "metric_name_pattern")
        try:
            wanted = re2.compile(f"^(?s:{pattern})$", _QUIET) if pattern else None
        except re2.error:
            raise BadDataError(f'invalid parameter "metric_name_pattern": "{pattern}" does not compile') from None
        families = []
        for family in REGISTRY.collect():
            if wanted is None or wanted.search(family.name) is not None:
                metrics = [
                    {
                        "name": sample.name,
                        "label": [{"name": name, "value": text} for name, text in sample.labels.items()],
                        "value": sample.value,
                    }
                    for sample in family.samples
                ]
                kind = family.type.upper()
                families.append({"name": family.name, "help": family.documentation, "type": kind, "metric": metrics})
        return success(encode(families))

    async def delete_series(self, form: Form) -> Response:
        sets = matcher_sets(form, required=True)
        start, end = window_ms(form)
        await self._admin().delete_series(sets, start, end)
        return success(None)

    async def clean_tombstones(self, form: Form) -> Response:
        await self._admin().clean_tombstones()
        return success(None)

    async def snapshot(self, form: Form) -> Response:
        return success(encode({"name": await self._admin().snapshot(switch(form, "skip_head"))}))

    def _admin(self) -> Admin:
        if self.instance.admin is None:
            raise UnavailableError("admin APIs disabled; start with --web.enable-admin-api")
        return self.instance.admin

    async def _in_turn(self, form: Form, work: Callable[[], Any]) -> Any:
        return await self.queue.run(form_client(form), lambda _: work(), self.timeout_s)


def cardinality(series: Sequence[Labels], bounds: tuple[int, int], count: int) -> dict[str, Any]:
    """The largest names and label pairs, at most ``count`` of each."""
    by_metric: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for labels in series:
        for pair in labels:
            pairs[pair] += 1
            if pair[0] == "__name__":
                by_metric[pair[1]] += 1
    values: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for name, value in pairs:
        values[name] += 1
        memory[name] += len(name) + len(value)

    def top(found: Mapping[Any, int]) -> list[dict[str, Any]]:
        largest = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [
            {"name": name if isinstance(name, str) else f"{name[0]}={name[1]}", "value": value}
            for name, value in largest
        ]

    return {
        "headStats": {
            "numSeries": len(series),
            "numLabelPairs": len(pairs),
            "chunkCount": 0,
            "minTime": bounds[0],
            "maxTime": bounds[1],
        },
        "seriesCountByMetricName": top(by_metric),
        "labelValueCountByLabelName": top(values),
        "memoryInBytesByLabelName": top(memory),
        "seriesCountByLabelValuePair": top(pairs),
    }


_SECRETS = frozenset(
    {"password", "credentials", "bearer_token", "client_secret", "secret_key", "secrets", "key", "token"}
)


def hidden_secrets(document: Any) -> Any:
    """A configuration with ``<secret>`` where a password or token stands."""
    if isinstance(document, Mapping):
        return {name: _hidden(str(name), value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [hidden_secrets(item) for item in document]
    return document


def _hidden(name: str, value: Any) -> Any:
    if name == "proxy_url":
        return without_password(str(value))
    if name == "proxy_connect_header" and isinstance(value, Mapping):
        return {key: ["<secret>"] for key in value}
    return "<secret>" if name in _SECRETS and value and isinstance(value, str | list) else hidden_secrets(value)


def _wanted(form: Form, name: str, value: str) -> bool:
    return name not in form or value in form[name]


def _fits(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> bool:
    return all(matcher.matches(labels.get(matcher.name, "")) for matcher in matchers)


def _without_alerts(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name != "alerts"}
