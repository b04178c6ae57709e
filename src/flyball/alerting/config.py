"""alertmanager.yml: the whole configuration, and every error in it.

Unknown fields are refused, as Alertmanager does. What is wrong with one receiver's kind or one template file is a
problem that is named, and does not keep the rest from working.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from flyball.alerting.globals import Globals, read_globals
from flyball.alerting.inhibition import InhibitRule
from flyball.alerting.matchers import Mode, in_order, is_label_name, new_matcher, parse_matchers
from flyball.alerting.receivers.kinds import KINDS, NOT_BUILT_IN
from flyball.alerting.receivers.sending import Integration
from flyball.alerting.routing import Route, key_below
from flyball.alerting.secrets import dump, without_secrets
from flyball.alerting.timeintervals import TimeInterval, read_time_interval
from flyball.errors import ConfigError
from flyball.model.labels import Matcher, MatchType
from flyball.model.prometheusconfig import with_absolute_paths
from flyball.model.reader import Reader, kind_of, mapping_of, text_mapping_of
from flyball.model.yaml_loader import load_yaml

_T = TypeVar("_T")
_SECTIONS = (
    "global",
    "route",
    "inhibit_rules",
    "receivers",
    "templates",
    "mute_time_intervals",
    "time_intervals",
    "tracing",
    "event_recorder",
)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A name and the integrations that are told together; none tells nobody."""

    name: str
    integrations: tuple[Integration, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """Attributes:
    templates: glob patterns of files, absolute.
    text: the document as it was read, without its secrets.
    problems: what was accepted but will not work.
    """

    globals: Globals
    route: Route
    receivers: Mapping[str, Receiver]
    inhibit_rules: tuple[InhibitRule, ...] = ()
    time_intervals: Mapping[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    text: str = ""
    problems: tuple[str, ...] = ()


def parse_config(
    text: str | bytes,
    what: str = "alertmanager.yml",
    *,
    directory: PurePosixPath | None = None,
    mode: Mode = Mode.FALLBACK,
) -> Config:
    """The configuration of a file's text.

    Args:
        what: the file's name, for errors.
        directory: where relative paths begin; None leaves them.

    Raises:
        ConfigError: a line for every error, each with the file, the path in it, the value and the remedy.
    """
    document = mapping_of(load_yaml(text, what) or {}, what)
    if directory is not None:
        document = with_absolute_paths(document, directory)
        patterns = document.get("templates") or []
        document = {**document, "templates": [str(directory / str(one)) for one in patterns]}
    return _Reading(document, what, mode).config()


class _Reading:
    """Collects the errors of one document, section by section."""

    def __init__(self, document: Mapping[str, Any], what: str, mode: Mode) -> None:
        self.document, self.what, self.mode = document, what, mode
        self.errors: list[ConfigError] = []
        self.problems: list[str] = []

    def attempt(self, read: Callable[[], _T], default: _T) -> _T:
        try:
            return read()
        except ConfigError as exc:
            self.errors.append(exc)
            return default

    def config(self) -> Config:
        document, what = self.document, self.what
        for name in document:
            if name not in _SECTIONS:
                self.errors.append(ConfigError(f'{what}: unknown field "{name}"; remove it or check its spelling'))
        reader = Reader(document, what)
        for name in ("tracing", "event_recorder"):
            if reader.take(name):
                self.problems.append(f"{what}: {name} is accepted and has no effect here")
        defaults = self.attempt(lambda: reader.nested("global", read_globals), None) or Globals()
        receivers = self._named(reader, "receivers", lambda one, path: self._receiver(one, path, defaults))
        intervals: dict[str, tuple[TimeInterval, ...]] = {}
        for section in ("mute_time_intervals", "time_intervals"):
            for name, found in self._named(reader, section, self._time_interval).items():
                if name in intervals:
                    self.errors.append(ConfigError(f'{what}: {section}: the name "{name}" is used twice; rename one'))
                intervals[name] = found
        route = self.attempt(lambda: self._root(reader.take("route"), receivers, intervals), Route(""))
        no_rules: tuple[InhibitRule, ...] = ()
        inhibit_rules = self.attempt(lambda: reader.items("inhibit_rules", self._inhibit_rule), no_rules)
        no_templates: tuple[str, ...] = ()
        templates = self.attempt(lambda: reader.texts("templates"), no_templates)
        if self.errors:
            raise ConfigError("\n".join(map(str, self.errors)))
        shown = without_secrets(document)
        return Config(
            defaults, route, receivers, inhibit_rules, intervals, templates, dump(shown), tuple(self.problems)
        )

    def _named(self, reader: Reader, section: str, read: Callable[[object, str], tuple[str, _T]]) -> dict[str, _T]:
        """Entries that have names; one that is wrong does not hide the errors of the others."""
        entries = reader.take(section) or []
        found: dict[str, _T] = {}
        if not isinstance(entries, list):
            self.errors.append(reader.error(section, f"must be a list, not {kind_of(entries)}"))
            return found
        for index, entry in enumerate(entries):
            path = f"{self.what}: {section}[{index}]"
            try:
                name, one = read(entry, path)
                if name in found:
                    raise ConfigError(f'{path}: the name "{name}" is used twice; rename one')
                found[name] = one
            except ConfigError as exc:
                self.errors.append(exc)
        return found

    def _receiver(self, document: object, path: str, defaults: Globals) -> tuple[str, Receiver]:
        reader = Reader(mapping_of(document, path), path)
        name = reader.text("name", "")
        if not name:
            raise reader.error("name", "is missing; routes refer to it")
        integrations: list[Integration] = []
        for section, read in KINDS.items():

            def one(entry: object, where: str, read: Any = read) -> Integration:
                inner = Reader(mapping_of({} if entry is None else entry, where), where)
                found: Integration = read(inner, defaults)
                inner.finish()
                return found

            integrations += reader.items(section, one)
        for section in NOT_BUILT_IN:
            for index, _ in enumerate(reader.take(section) or []):
                kind = section.removesuffix("_configs")
                problem = f"{path}: {section}[{index}]: {kind} is not built in; send to it through webhook_configs"
                self.problems.append(problem)
                integrations.append(Missing(kind, problem))
        labels = text_mapping_of(reader.take("labels") or {}, f"{path}: labels")
        reader.finish()
        return name, Receiver(name, tuple(integrations), {"name": name, **labels})

    def _time_interval(self, document: object, path: str) -> tuple[str, tuple[TimeInterval, ...]]:
        reader = Reader(mapping_of(document, path), path)
        name = reader.text("name", "")
        if not name:
            raise reader.error("name", "is missing; routes refer to it")
        found = reader.items("time_intervals", read_time_interval)
        reader.finish()
        return name, found

    def _inhibit_rule(self, document: object, path: str) -> InhibitRule:
        reader = Reader(mapping_of({} if document is None else document, path), path)
        equal = reader.texts("equal")
        for name in equal:
            if not is_label_name(name, self.mode):
                raise reader.error("equal", f'"{name}" is not a label\'s name')
        found = InhibitRule(
            source_matchers=self._matchers(reader, "source_match", "source_match_re", "source_matchers"),
            target_matchers=self._matchers(reader, "target_match", "target_match_re", "target_matchers"),
            equal=equal,
            name=reader.text("name", ""),
        )
        reader.finish()
        return found

    def _matchers(self, reader: Reader, equal: str, regex: str, texts: str) -> tuple[Matcher, ...]:
        found: list[Matcher] = []
        for field_name, type_ in ((equal, MatchType.EQUAL), (regex, MatchType.REGEX)):
            for name, value in text_mapping_of(reader.take(field_name) or {}, f"{reader.what}: {field_name}").items():
                if not is_label_name(name, Mode.CLASSIC):
                    raise reader.error(field_name, f'"{name}" is not a label\'s name')
                with _located(reader, field_name):
                    found.append(new_matcher(type_, name, value))
        for text in reader.texts(texts):
            with _located(reader, texts):
                found += parse_matchers(text, self.mode)
        return in_order(found)

    def _root(self, document: object, receivers: Mapping[str, Receiver], intervals: Mapping[str, object]) -> Route:
        path = f"{self.what}: route"
        if document is None:
            raise ConfigError(f"{path}: is missing; write at least the receiver that alerts go to")
        mapping = mapping_of(document, path)
        for name in ("match", "match_re", "matchers", "mute_time_intervals", "active_time_intervals", "continue"):
            if mapping.get(name):
                raise ConfigError(f"{path}: {name}: is not for the root route, which every alert takes; remove it")
        if not mapping.get("receiver"):
            raise ConfigError(f"{path}: receiver: is missing; name one of receivers")
        return self._route(mapping, path, Route(""), None, receivers, intervals)

    def _route(
        self,
        document: object,
        path: str,
        above: Route,
        place: int | None,
        receivers: Mapping[str, Receiver],
        intervals: Mapping[str, object],
    ) -> Route:
        reader = Reader(mapping_of(document, path), path)
        matchers = self._matchers(reader, "match", "match_re", "matchers")
        times = {name: reader.texts(name) for name in ("mute_time_intervals", "active_time_intervals")}
        receiver = reader.text("receiver", above.receiver)
        if receiver not in receivers and not self.errors:
            raise reader.error("receiver", f'"{receiver}" is not one of receivers; add it there or mend the name')
        for name, used in times.items():
            for one in used:
                if one not in intervals:
                    raise reader.error(name, f'"{one}" is not one of time_intervals; add it there or mend the name')
        if place is None:
            key = id_ = "{}"
        else:
            key, id_ = key_below(above.key, matchers), f"{key_below(above.id, matchers)}/{place}"
        group_by = self._group_by(reader, above)
        found = Route(
            receiver=receiver,
            matchers=matchers,
            group_by=group_by,
            group_wait_ms=_duration(reader, "group_wait", above.group_wait_ms),
            group_interval_ms=_duration(reader, "group_interval", above.group_interval_ms, zero=False),
            repeat_interval_ms=_duration(reader, "repeat_interval", above.repeat_interval_ms, zero=False),
            mute_time_intervals=times["mute_time_intervals"],
            active_time_intervals=times["active_time_intervals"],
            continues=reader.flag("continue", False),
            key=key,
            id=id_,
        )
        children = reader.take("routes") or []
        if not isinstance(children, list):
            raise reader.error("routes", f"must be a list, not {kind_of(children)}")
        reader.finish()
        below = tuple(
            self._route(child, f"{path}: routes[{index}]", found, index, receivers, intervals)
            for index, child in enumerate(children)
        )
        return replace(found, routes=below)

    def _group_by(self, reader: Reader, above: Route) -> frozenset[str] | None:
        if reader.rest.get("group_by") is None:
            reader.take("group_by")
            return above.group_by
        names = reader.texts("group_by")
        if "..." in names:
            if len(names) > 1:
                raise reader.error("group_by", "'...' is for all labels and stands alone; remove the others")
            return None
        for name in names:
            if not is_label_name(name, self.mode):
                raise reader.error("group_by", f'"{name}" is not a label\'s name')
            if names.count(name) > 1:
                raise reader.error("group_by", f'"{name}" is written twice; remove one')
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class Missing:
    """An integration of a kind that is not built in: every notification fails, and says why."""

    kind: str
    problem: str
    send_resolved: bool = True


def _duration(reader: Reader, name: str, default_ms: int, *, zero: bool = True) -> int:
    found = reader.duration(name)
    if found == 0 and not zero:
        raise reader.error(name, "must be more than zero")
    return default_ms if found is None else found


@contextlib.contextmanager
def _located(reader: Reader, name: str) -> Iterator[None]:
    """Errors say where in the file they are."""
    try:
        yield
    except ConfigError as exc:
        raise reader.error(name, str(exc)) from exc
