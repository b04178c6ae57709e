"""prometheus-adapter's configuration file. A wrong rule is refused alone; the others stay.

Unlike upstream, which stops at the first error, every error is collected; unknown and duplicate keys are
errors as upstream. Our own fields: ``compatibility`` and ``sources`` at the top, ``source``, ``notFinite`` and
``maxAge`` in a rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import re2

from flyball.errors import ConfigError
from flyball.metricrules import fields
from flyball.metricrules.compatibility import SWITCHES
from flyball.metricrules.naming import NameFilter, Namer
from flyball.metricrules.resources import QUIET, ResourceMapping
from flyball.metricrules.sourceconfig import SourceConfig, parse_source
from flyball.model.durations import parse_duration_ms
from flyball.model.gotemplate import Template, TemplateError
from flyball.model.yaml_loader import load_yaml

_OPTIONS = ("source", "notFinite", "maxAge")


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """What a rule may say beyond upstream.

    Attributes:
        source: the name of an entry of ``sources``; "" is the adapter's own.
        not_finite: NaN and infinity are left out (``omit``), or fail the request (``error``).
        max_age_ms: values whose newest sample is older are not served; None is the adapter's bound.
    """

    source: str = ""
    not_finite: str = "omit"
    max_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MetricRule:
    """One entry of ``rules``. ``where`` names it in messages (``base: rules[3]``).

    Attributes:
        namespace: of a MetricRule object: its queries see this namespace's series (by ``namespace_label``), and its
            metrics are served there only. "" for the adapter's own rules.
    """

    where: str
    series_query: str
    namer: Namer
    resources: ResourceMapping
    metrics_query: Template
    options: RuleOptions = RuleOptions()
    namespace: str = ""
    namespace_label: str = "namespace"


@dataclass(frozen=True, slots=True)
class ExternalRule(MetricRule):
    """One entry of ``externalRules``."""


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """``cpu`` or ``memory`` of ``resourceRules``."""

    where: str
    container_query: Template
    node_query: Template
    resources: ResourceMapping
    container_label: str


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """``resourceRules``; the window is only reported."""

    cpu: ResourceRule
    memory: ResourceRule
    window_ms: int
    options: RuleOptions = RuleOptions()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that is not in force, and why."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A parsed file: the good rules, and the refused ones."""

    rules: tuple[MetricRule, ...] = ()
    external_rules: tuple[ExternalRule, ...] = ()
    resource_rules: ResourceRules | None = None
    refusals: tuple[Refusal, ...] = ()
    compatibility: frozenset[str] = frozenset()
    sources: tuple[SourceConfig, ...] = ()


def parse_config(text: str, what: str = "config") -> AdapterConfig:
    """Reads a configuration file.

    Args:
        what: names the file in messages.

    Raises:
        ConfigError: the text is not YAML, has a duplicate or an unknown top-level key, or a section has the
            wrong type. A wrong rule is no error: it is in ``refusals``.
    """
    document = load_yaml(text, what)
    top = fields.mapping({} if document is None else document, what)
    fields.known(top, what, "rules", "externalRules", "resourceRules", "compatibility", "sources")
    switches = _switches(top.get("compatibility"), f"{what}: compatibility")
    refusals: list[Refusal] = []
    sources = []
    for index, item in fields.items(top, "sources", what):
        where = f"{what}: sources[{index}]"
        try:
            sources.append(parse_source(item, where))
        except ConfigError as exc:
            refusals.append(Refusal(where, str(exc)))
    rules, external = [], []
    for index, item in fields.items(top, "rules", what):
        where = f"{what}: rules[{index}]"
        try:
            rules.append(MetricRule(where, *_rule(item, where)))
        except ConfigError as exc:
            refusals.append(Refusal(where, str(exc)))
    for index, item in fields.items(top, "externalRules", what):
        where = f"{what}: externalRules[{index}]"
        try:
            external.append(ExternalRule(where, *_rule(item, where)))
        except ConfigError as exc:
            refusals.append(Refusal(where, str(exc)))
    resource_rules = None
    if top.get("resourceRules") is not None:
        where = f"{what}: resourceRules"
        try:
            resource_rules = _resource_rules(top["resourceRules"], where)
        except ConfigError as exc:
            refusals.append(Refusal(where, str(exc)))
    return AdapterConfig(tuple(rules), tuple(external), resource_rules, tuple(refusals), switches, tuple(sources))


def parse_metric_rule(spec: Mapping[str, Any], where: str, namespace: str, namespace_label: str) -> MetricRule:
    """The spec of a MetricRule object: the fields of a rule, and ``type`` (Custom or External).

    Raises:
        ConfigError: a field is unknown or wrong, or not a tenant's to set.
    """
    kind = fields.text(spec, "type", where) or "Custom"
    if kind not in ("Custom", "External"):
        raise ConfigError(f'{where}: type: "{kind}" is not known; write Custom or External')
    if "source" in spec:
        raise ConfigError(f"{where}: source: is set in the adapter's own file only")
    parts = _rule({name: value for name, value in spec.items() if name != "type"}, where)
    resources = replace(parts[2], namespaced=False) if kind == "External" else parts[2]
    make = ExternalRule if kind == "External" else MetricRule
    return make(where, *parts[:2], resources, *parts[3:], namespace, namespace_label)


def _switches(value: object, where: str) -> frozenset[str]:
    section = fields.mapping(value or {}, where)
    fields.known(section, where, *SWITCHES)
    for name, on in section.items():
        if not isinstance(on, bool):
            raise ConfigError(f'{where}.{name}: "{on}" is not true or false')
    return frozenset(name for name, on in section.items() if on)


def _options(section: Mapping[str, Any], where: str) -> RuleOptions:
    not_finite = fields.text(section, "notFinite", where) or "omit"
    if not_finite not in ("omit", "error"):
        raise ConfigError(f'{where}: notFinite: "{not_finite}" is not known; write omit or error')
    max_age = fields.text(section, "maxAge", where)
    try:
        max_age_ms = parse_duration_ms(max_age) if max_age else None
    except ConfigError as exc:
        raise ConfigError(f"{where}: maxAge: {exc}") from exc
    return RuleOptions(fields.text(section, "source", where), not_finite, max_age_ms)


def _rule(item: object, where: str) -> tuple[str, Namer, ResourceMapping, Template, RuleOptions]:
    rule = fields.mapping(item, where)
    fields.known(rule, where, "seriesQuery", "seriesFilters", "resources", "name", "metricsQuery", *_OPTIONS)
    series_query = fields.text(rule, "seriesQuery", where)
    if not series_query.strip():
        raise ConfigError(f'{where}: seriesQuery: is empty; write a selector such as {{__name__=~"^http_.*"}}')
    query = _template(rule, "metricsQuery", where)
    return series_query, _namer(rule, where), _resources(rule.get("resources"), where), query, _options(rule, where)


def _namer(rule: Mapping[str, Any], where: str) -> Namer:
    filters = []
    for index, item in fields.items(rule, "seriesFilters", where):
        here = f"{where}: seriesFilters[{index}]"
        entry = fields.mapping(item, here)
        fields.known(entry, here, "is", "isNot")
        given = {name: text for name in ("is", "isNot") if (text := fields.text(entry, name, here))}
        if len(given) != 1:
            raise ConfigError(f'{here}: has {len(given)} of "is" and "isNot"; give exactly one')
        name, pattern = next(iter(given.items()))
        filters.append(NameFilter(_regex(pattern, f"{here}: {name}"), name == "isNot"))
    section = fields.mapping(rule.get("name") or {}, f"{where}: name")
    fields.known(section, f"{where}: name", "matches", "as")
    matches, as_text = fields.text(section, "matches", f"{where}: name"), fields.text(section, "as", f"{where}: name")
    regex = _regex(matches or ".*", f"{where}: name.matches")
    if not as_text:
        if regex.groups > 1:
            raise ConfigError(
                f'{where}: name.matches: "{matches}" has {regex.groups} capture groups and "as" is not set; '
                'set name.as, for example "${1}_${2}"'
            )
        as_text = "$1" if regex.groups == 1 else "$0"
    return Namer(tuple(filters), regex, as_text)


def _resources(value: object, where: str) -> ResourceMapping:
    here = f"{where}: resources"
    section = fields.mapping(value or {}, here)
    fields.known(section, here, "template", "overrides", "namespaced")
    overrides = []
    for label, target in fields.mapping(section.get("overrides") or {}, f"{here}.overrides").items():
        entry = fields.mapping(target, f"{here}.overrides.{label}")
        fields.known(entry, f"{here}.overrides.{label}", "group", "resource")
        resource = fields.text(entry, "resource", f"{here}.overrides.{label}")
        if not resource:
            raise ConfigError(f'{here}.overrides.{label}: resource is missing; write one such as "pod"')
        overrides.append((str(label), fields.text(entry, "group", f"{here}.overrides.{label}"), resource))
    template = None
    text = fields.text(section, "template", here)
    if text:
        template = _template(section, "template", here)
        if ".Resource" not in text:
            raise ConfigError(
                f'{here}.template: "{text}" does not use <<.Resource>>; write one such as kube_<<.Resource>>'
            )
    namespaced = section.get("namespaced")
    if namespaced is not None and not isinstance(namespaced, bool):
        raise ConfigError(f'{here}.namespaced: "{namespaced}" is not true or false')
    return ResourceMapping(tuple(overrides), template, namespaced is not False)


def _resource_rules(value: object, where: str) -> ResourceRules:
    section = fields.mapping(value, where)
    fields.known(section, where, "cpu", "memory", "window", *_OPTIONS)
    window = section.get("window")
    try:
        window_ms = parse_duration_ms(str(window)) if window else 0
    except ConfigError as exc:
        raise ConfigError(f"{where}: window: {exc}") from exc
    return ResourceRules(
        _resource_rule(section.get("cpu"), f"{where}: cpu"),
        _resource_rule(section.get("memory"), f"{where}: memory"),
        window_ms,
        _options(section, where),
    )


def _resource_rule(value: object, where: str) -> ResourceRule:
    section = fields.mapping(value or {}, where)
    fields.known(section, where, "containerQuery", "nodeQuery", "resources", "containerLabel")
    label = fields.text(section, "containerLabel", where)
    if not label:
        raise ConfigError(f'{where}: containerLabel: is missing; write one such as "container"')
    return ResourceRule(
        where,
        _template(section, "containerQuery", where),
        _template(section, "nodeQuery", where),
        _resources(section.get("resources"), where),
        label,
    )


def _template(section: Mapping[str, Any], name: str, where: str) -> Template:
    text = fields.text(section, name, where)
    if not text.strip():
        raise ConfigError(
            f"{where}: {name}: is missing; write one such as sum(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)"
        )
    try:
        return Template(text)
    except TemplateError as exc:
        raise ConfigError(f"{where}: {name}: {exc}") from exc


def _regex(pattern: str, where: str) -> Any:
    try:
        return re2.compile(pattern, QUIET)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else exc
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ConfigError(f'{where}: "{pattern}" is not an RE2 regular expression: {text}') from exc
