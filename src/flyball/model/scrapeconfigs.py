"""Scrape configuration in prometheus.yml's words, and the target groups that discovery hands to scraping."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import re2

from flyball.errors import ConfigError
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, http_client_document, read_http_client, set_fields
from flyball.model.durations import format_duration
from flyball.model.reader import Reader, mapping_of, text_mapping_of
from flyball.model.yaml_loader import load_yaml

#: A response may be this large when ``body_size_limit`` is unset or 0: a limit that is never off.
BODY_SIZE_LIMIT_DEFAULT_BYTES = 10 * 1024 * 1024

#: The other limits where they are unset or 0: far above what is healthy, and never off.
SAMPLE_LIMIT_DEFAULT = 1_000_000
LABEL_LIMIT_DEFAULT = 256
LABEL_NAME_LENGTH_LIMIT_DEFAULT = 4_096
LABEL_VALUE_LENGTH_LIMIT_DEFAULT = 65_536
TARGET_LIMIT_DEFAULT = 50_000

RELABEL_ACTIONS = (
    "replace",
    "keep",
    "drop",
    "keepequal",
    "dropequal",
    "hashmod",
    "labelmap",
    "labeldrop",
    "labelkeep",
    "lowercase",
    "uppercase",
)
KUBERNETES_ROLES = ("node", "pod", "service", "endpoints", "endpointslice", "ingress")

_T = TypeVar("_T")

_QUIET = re2.Options()
_QUIET.log_errors = False  # RE2 would also write to stderr


@dataclass(frozen=True, slots=True)
class RelabelConfig:
    """One relabelling rule; the defaults are Prometheus'."""

    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = "(.*)"
    modulus: int = 0
    target_label: str = ""
    replacement: str = "$1"
    action: str = "replace"


@dataclass(frozen=True, slots=True)
class KubernetesSelector:
    """A label or field selector for one role's objects."""

    role: str
    label: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesSD:
    """Discovery of one role; no namespaces means all of them."""

    role: str
    namespaces: tuple[str, ...] = ()
    own_namespace: bool = False
    selectors: tuple[KubernetesSelector, ...] = ()
    attach_node: bool = False
    attach_namespace: bool = False
    api_server: str = ""
    kubeconfig_file: str = ""


@dataclass(frozen=True, slots=True)
class FileSD:
    """Target groups in JSON or YAML files (glob patterns)."""

    files: tuple[str, ...]
    refresh_interval_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class HttpSD:
    """Target groups as JSON from a URL."""

    url: str
    refresh_interval_ms: int = 60_000
    http: HttpClientConfig = HTTP_DEFAULT


@dataclass(frozen=True, slots=True)
class DnsSD:
    """Targets from DNS names; all types but SRV need a port."""

    names: tuple[str, ...]
    type: str = "SRV"
    port: int = 0
    refresh_interval_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """Targets written down: ``host:port`` each, with common labels."""

    targets: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """What discovery found under one name.

    Attributes:
        source: identifies the group within its job (``pod/default/web-1``); a group without targets is gone.
        labels: labels common to all targets.
        targets: one mapping a target, with ``__address__`` and its own ``__meta_*`` labels.
    """

    source: str
    labels: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ScrapeConfig:
    """One job. A limit of 0 is off; it never comes out of the parser, where 0 is the default limit.

    Attributes:
        params: URL parameters, several values each.
        ignored: fields that were accepted but have no effect here.
    """

    job_name: str
    scrape_interval_ms: int = 60_000
    scrape_timeout_ms: int = 10_000
    metrics_path: str = "/metrics"
    scheme: str = "http"
    params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    honor_labels: bool = False
    honor_timestamps: bool = True
    track_timestamps_staleness: bool = False
    scrape_protocols: tuple[str, ...] = ()
    fallback_scrape_protocol: str = ""
    enable_compression: bool = True
    http: HttpClientConfig = HTTP_DEFAULT
    relabel_configs: tuple[RelabelConfig, ...] = ()
    metric_relabel_configs: tuple[RelabelConfig, ...] = ()
    kubernetes_sd_configs: tuple[KubernetesSD, ...] = ()
    file_sd_configs: tuple[FileSD, ...] = ()
    http_sd_configs: tuple[HttpSD, ...] = ()
    dns_sd_configs: tuple[DnsSD, ...] = ()
    static_configs: tuple[StaticConfig, ...] = ()
    sample_limit: int = SAMPLE_LIMIT_DEFAULT
    label_limit: int = LABEL_LIMIT_DEFAULT
    label_name_length_limit: int = LABEL_NAME_LENGTH_LIMIT_DEFAULT
    label_value_length_limit: int = LABEL_VALUE_LENGTH_LIMIT_DEFAULT
    target_limit: int = TARGET_LIMIT_DEFAULT
    keep_dropped_targets: int = 0
    body_size_limit_bytes: int = BODY_SIZE_LIMIT_DEFAULT_BYTES
    scrape_native_histograms: bool = False
    always_scrape_classic_histograms: bool = False
    convert_classic_histograms_to_nhcb: bool = False
    native_histogram_bucket_limit: int = 0
    native_histogram_min_bucket_factor: float = 0.0
    ignored: tuple[str, ...] = ()

    def static_groups(self) -> list[TargetGroup]:
        """The static configs as target groups, sources ``0``, ``1``... as Prometheus names them."""
        return [
            TargetGroup(
                source=str(index),
                labels=dict(static.labels),
                targets=tuple({"__address__": address} for address in static.targets),
            )
            for index, static in enumerate(self.static_configs)
        ]


@dataclass(frozen=True, slots=True)
class GlobalDefaults:
    """What prometheus.yml's ``global`` section sets for every job."""

    scrape_interval_ms: int = 60_000
    scrape_timeout_ms: int | None = None
    body_size_limit_bytes: int = BODY_SIZE_LIMIT_DEFAULT_BYTES
    sample_limit: int = SAMPLE_LIMIT_DEFAULT
    target_limit: int = TARGET_LIMIT_DEFAULT
    label_limit: int = LABEL_LIMIT_DEFAULT
    label_name_length_limit: int = LABEL_NAME_LENGTH_LIMIT_DEFAULT
    label_value_length_limit: int = LABEL_VALUE_LENGTH_LIMIT_DEFAULT
    keep_dropped_targets: int = 0
    scrape_protocols: tuple[str, ...] = ()
    external_labels: Mapping[str, str] = field(default_factory=dict)
    evaluation_interval_ms: int = 60_000
    scrape_native_histograms: bool = False
    always_scrape_classic_histograms: bool = False
    convert_classic_histograms_to_nhcb: bool = False


_LIMITS = (
    "sample_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "target_limit",
    "keep_dropped_targets",
)
_IGNORED_JOB_FIELDS = frozenset(
    {
        "scrape_failure_log_file",
        "scrape_classic_histograms",
        "metric_name_validation_scheme",
        "metric_name_escaping_scheme",
        "extra_scrape_metrics",
        "enable_http2",
    }
)
TOP_LEVEL_FIELDS = frozenset(
    {
        "global",
        "runtime",
        "scrape_configs",
        "scrape_config_files",
        "rule_files",
        "alerting",
        "storage",
        "tracing",
        "remote_write",
        "remote_read",
        "otlp",
    }
)


def parse_scrape_configs(document: Mapping[str, Any] | str) -> tuple[list[ScrapeConfig], list[ConfigError]]:
    """The jobs of a prometheus.yml, and one error for each job that was left out.

    Raises:
        ConfigError: the document as a whole is not usable: not YAML, not a mapping, a bad ``global`` section
            or an unknown top-level field.
    """
    if isinstance(document, str):
        loaded = load_yaml(document, "prometheus.yml")
        document = {} if loaded is None else mapping_of(loaded, "prometheus.yml")
    unknown = [name for name in document if name not in TOP_LEVEL_FIELDS]
    if unknown:
        raise ConfigError(f'prometheus.yml: unknown field "{unknown[0]}"; remove it or check its spelling')
    return parse_scrape_jobs(document.get("scrape_configs") or [], parse_global(document.get("global") or {}))


def parse_scrape_jobs(jobs: object, defaults: GlobalDefaults) -> tuple[list[ScrapeConfig], list[ConfigError]]:
    """The entries of ``scrape_configs``, and one error for each that was left out.

    Raises:
        ConfigError: it is not a list.
    """
    configs: list[ScrapeConfig] = []
    errors: list[ConfigError] = []
    names: set[str] = set()
    if not isinstance(jobs, list | tuple):
        raise ConfigError("prometheus.yml: scrape_configs must be a list of jobs")
    for index, job in enumerate(jobs):
        try:
            config = parse_scrape_config(job, defaults, what=f"scrape_configs[{index}]")
            if config.job_name in names:
                raise ConfigError(f'job "{config.job_name}": the job_name is used twice; rename one')
        except ConfigError as exc:
            errors.append(exc)
            continue
        names.add(config.job_name)
        configs.append(config)
    return configs, errors


def parse_global(section: Mapping[str, Any]) -> GlobalDefaults:
    """The ``global`` section.

    Raises:
        ConfigError: a field is unknown or has a bad value.
    """
    reader = Reader(mapping_of(section, "global"), "global")
    interval_ms = reader.duration("scrape_interval") or 60_000
    timeout_ms = reader.duration("scrape_timeout")
    if timeout_ms is not None and timeout_ms > interval_ms:
        raise ConfigError(
            f"global: scrape_timeout {format_duration(timeout_ms)} is longer than "
            f"scrape_interval {format_duration(interval_ms)}; make it at most the interval"
        )
    external = text_mapping_of(reader.take("external_labels") or {}, "global: external_labels")
    defaults = GlobalDefaults(
        scrape_interval_ms=interval_ms,
        scrape_timeout_ms=timeout_ms,
        body_size_limit_bytes=reader.size("body_size_limit") or BODY_SIZE_LIMIT_DEFAULT_BYTES,
        scrape_protocols=reader.texts("scrape_protocols"),
        external_labels=external,
        evaluation_interval_ms=reader.duration("evaluation_interval") or 60_000,
        sample_limit=reader.count("sample_limit") or SAMPLE_LIMIT_DEFAULT,
        target_limit=reader.count("target_limit") or TARGET_LIMIT_DEFAULT,
        label_limit=reader.count("label_limit") or LABEL_LIMIT_DEFAULT,
        label_name_length_limit=reader.count("label_name_length_limit") or LABEL_NAME_LENGTH_LIMIT_DEFAULT,
        label_value_length_limit=reader.count("label_value_length_limit") or LABEL_VALUE_LENGTH_LIMIT_DEFAULT,
        keep_dropped_targets=reader.count("keep_dropped_targets"),
        scrape_native_histograms=reader.flag("scrape_native_histograms", False),
        always_scrape_classic_histograms=reader.flag("always_scrape_classic_histograms", False),
        convert_classic_histograms_to_nhcb=reader.flag("convert_classic_histograms_to_nhcb", False),
    )
    for name in ("rule_query_offset", "query_log_file", "scrape_failure_log_file"):
        reader.take(name)
    for name in ("metric_name_validation_scheme", "metric_name_escaping_scheme"):
        reader.take(name)
    reader.take("extra_scrape_metrics")
    reader.finish()
    return defaults


def parse_scrape_config(
    job: object, defaults: GlobalDefaults | None = None, *, what: str = "scrape config"
) -> ScrapeConfig:
    """One entry of ``scrape_configs``.

    Raises:
        ConfigError: names the job, the field and the remedy.
    """
    defaults = defaults if defaults is not None else GlobalDefaults()
    mapping = mapping_of(job, what)
    name = mapping.get("job_name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{what}: job_name is missing or empty; give the job a name")
    reader = Reader(mapping, f'job "{name}"')
    reader.take("job_name")
    interval_ms = reader.duration("scrape_interval") or defaults.scrape_interval_ms
    timeout_ms = reader.duration("scrape_timeout")
    if timeout_ms is None or timeout_ms == 0:
        timeout_ms = min(defaults.scrape_timeout_ms or 10_000, interval_ms)
    elif timeout_ms > interval_ms:
        raise reader.error(
            "scrape_timeout",
            f"{format_duration(timeout_ms)} is longer than scrape_interval {format_duration(interval_ms)}; "
            "make it at most the interval",
        )
    scheme = reader.text("scheme", "http")
    if scheme not in ("http", "https"):
        raise reader.error("scheme", f'"{scheme}" is not a scheme; write http or https')
    ignored = tuple(sorted(field_name for field_name in mapping if field_name in _IGNORED_JOB_FIELDS))
    for field_name in ignored:
        reader.take(field_name)
    config = ScrapeConfig(
        job_name=name,
        scrape_interval_ms=interval_ms,
        scrape_timeout_ms=timeout_ms,
        metrics_path=reader.text("metrics_path", "/metrics") or "/metrics",
        scheme=scheme,
        params=reader.text_lists("params"),
        honor_labels=reader.flag("honor_labels", False),
        honor_timestamps=reader.flag("honor_timestamps", True),
        track_timestamps_staleness=reader.flag("track_timestamps_staleness", False),
        scrape_protocols=reader.texts("scrape_protocols") or defaults.scrape_protocols,
        fallback_scrape_protocol=reader.text("fallback_scrape_protocol", ""),
        enable_compression=reader.flag("enable_compression", True),
        http=read_http_client(reader),
        relabel_configs=reader.items("relabel_configs", parse_relabel_config),
        metric_relabel_configs=reader.items("metric_relabel_configs", parse_relabel_config),
        kubernetes_sd_configs=reader.items("kubernetes_sd_configs", _kubernetes_sd),
        file_sd_configs=reader.items("file_sd_configs", _file_sd),
        http_sd_configs=reader.items("http_sd_configs", _http_sd),
        dns_sd_configs=reader.items("dns_sd_configs", _dns_sd),
        static_configs=reader.items("static_configs", _static_config),
        body_size_limit_bytes=reader.size("body_size_limit") or defaults.body_size_limit_bytes,
        scrape_native_histograms=reader.flag("scrape_native_histograms", defaults.scrape_native_histograms),
        always_scrape_classic_histograms=reader.flag(
            "always_scrape_classic_histograms", defaults.always_scrape_classic_histograms
        ),
        convert_classic_histograms_to_nhcb=reader.flag(
            "convert_classic_histograms_to_nhcb", defaults.convert_classic_histograms_to_nhcb
        ),
        native_histogram_bucket_limit=reader.count("native_histogram_bucket_limit"),
        native_histogram_min_bucket_factor=reader.number("native_histogram_min_bucket_factor"),
        ignored=ignored,
        **{limit: reader.count(limit) or getattr(defaults, limit) for limit in _LIMITS},
    )
    reader.finish()
    if not config.relabel_configs:  # which may make an address of a URL, as every job of probes does
        for index, static in enumerate(config.static_configs):
            for target in static.targets:
                if "/" in target:
                    at = f"static_configs[{index}]: targets"
                    raise reader.error(at, f'"{target}" is not a host:port; leave out the scheme and the path')
    return config


def parse_relabel_config(document: object, what: str = "relabel config") -> RelabelConfig:
    """One relabelling rule, checked as Prometheus checks it.

    Raises:
        ConfigError: an unknown field or action, a regular expression that does not compile, or a field that
            the action needs or does not take.
    """
    reader = Reader(mapping_of(document, what), what)
    given = frozenset(reader.rest)
    config = RelabelConfig(
        source_labels=reader.texts("source_labels"),
        separator=reader.text("separator", ";"),
        regex=reader.text("regex", "(.*)"),
        modulus=reader.count("modulus"),
        target_label=reader.text("target_label", ""),
        replacement=reader.text("replacement", "$1"),
        action=reader.text("action", "replace").lower(),
    )
    reader.finish()
    action = config.action
    if action not in RELABEL_ACTIONS:
        raise reader.error("action", f'"{action}" is not an action; write one of {", ".join(RELABEL_ACTIONS)}')
    try:
        re2.compile(config.regex, _QUIET)
    except re2.error as exc:
        raise reader.error(
            "regex", f'"{config.regex}" does not compile: {_re2_text(exc)}; mend the expression'
        ) from exc
    needs_target = ("replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal")
    if action in needs_target and not config.target_label:
        raise reader.error("target_label", f"is missing; the action {action} needs one")
    if action == "hashmod" and config.modulus == 0:
        raise reader.error("modulus", "is missing or 0; the action hashmod needs one")
    if action in ("labeldrop", "labelkeep"):
        extra = given - {"action", "regex"}
    elif action in ("keepequal", "dropequal"):
        extra = given - {"action", "source_labels", "target_label"}
    else:
        extra = frozenset()
    if extra:
        raise reader.error(min(extra), f"has no meaning for the action {action}; remove it")
    return config


def to_document(config: ScrapeConfig) -> dict[str, Any]:
    """The job in prometheus.yml's form; ``parse_scrape_config(to_document(c)) == c``. Secrets are in it."""
    default = ScrapeConfig(job_name="")
    document: dict[str, Any] = {
        "job_name": config.job_name,
        "scrape_interval": format_duration(config.scrape_interval_ms),
        "scrape_timeout": format_duration(config.scrape_timeout_ms),
    }
    plain = (
        "metrics_path",
        "scheme",
        "honor_labels",
        "honor_timestamps",
        "track_timestamps_staleness",
        "fallback_scrape_protocol",
        "enable_compression",
        *_LIMITS,
    )
    for name in plain:
        if getattr(config, name) != getattr(default, name):
            document[name] = getattr(config, name)
    if config.body_size_limit_bytes != BODY_SIZE_LIMIT_DEFAULT_BYTES:
        document["body_size_limit"] = f"{config.body_size_limit_bytes}B"
    if config.scrape_protocols:
        document["scrape_protocols"] = list(config.scrape_protocols)
    if config.params:
        document["params"] = {name: list(values) for name, values in config.params.items()}
    document |= http_client_document(config.http)
    for name in ("relabel_configs", "metric_relabel_configs"):
        rules = getattr(config, name)
        if rules:
            document[name] = [relabel_document(rule) for rule in rules]
    if config.kubernetes_sd_configs:
        document["kubernetes_sd_configs"] = [_kubernetes_sd_document(sd) for sd in config.kubernetes_sd_configs]
    if config.file_sd_configs:
        document["file_sd_configs"] = [
            {"files": list(sd.files), "refresh_interval": format_duration(sd.refresh_interval_ms)}
            for sd in config.file_sd_configs
        ]
    if config.http_sd_configs:
        document["http_sd_configs"] = [_http_sd_document(sd) for sd in config.http_sd_configs]
    if config.dns_sd_configs:
        document["dns_sd_configs"] = [
            {"names": list(sd.names), "type": sd.type, "refresh_interval": format_duration(sd.refresh_interval_ms)}
            | ({"port": sd.port} if sd.port else {})
            for sd in config.dns_sd_configs
        ]
    if config.static_configs:
        document["static_configs"] = [
            {"targets": list(static.targets)} | ({"labels": dict(static.labels)} if static.labels else {})
            for static in config.static_configs
        ]
    return document


def relabel_document(rule: RelabelConfig) -> dict[str, Any]:
    """A relabelling rule in prometheus.yml's form, fields at their default left out."""
    document = {name: value for name, value in set_fields(rule).items() if name != "action"}
    if rule.action != "replace" or not document:
        document["action"] = rule.action
    return document


def _kubernetes_sd(document: object, what: str) -> KubernetesSD:
    reader = Reader(mapping_of(document, what), what)
    role = reader.text("role", "").lower()
    if role not in KUBERNETES_ROLES:
        raise reader.error("role", f'"{role}" is not a role; write one of {", ".join(KUBERNETES_ROLES)}')
    names: tuple[str, ...] = ()
    own = False
    namespaces = reader.take("namespaces")
    if namespaces is not None:
        inner = Reader(mapping_of(namespaces, f"{what}: namespaces"), f"{what}: namespaces")
        names, own = inner.texts("names"), inner.flag("own_namespace", False)
        inner.finish()
    attach_node = attach_namespace = False
    attach = reader.take("attach_metadata")
    if attach is not None:
        inner = Reader(mapping_of(attach, f"{what}: attach_metadata"), f"{what}: attach_metadata")
        attach_node, attach_namespace = inner.flag("node", False), inner.flag("namespace", False)
        inner.finish()
    found = KubernetesSD(
        role=role,
        namespaces=names,
        own_namespace=own,
        selectors=reader.items("selectors", _kubernetes_selector),
        attach_node=attach_node,
        attach_namespace=attach_namespace,
        api_server=reader.text("api_server", ""),
        kubeconfig_file=reader.text("kubeconfig_file", ""),
    )
    for name in ("follow_redirects", "enable_http2"):
        reader.take(name)
    reader.finish()
    return found


def _kubernetes_selector(document: object, what: str) -> KubernetesSelector:
    reader = Reader(mapping_of(document, what), what)
    role = reader.text("role", "").lower()
    if role not in KUBERNETES_ROLES:
        raise reader.error("role", f'"{role}" is not a role; write one of {", ".join(KUBERNETES_ROLES)}')
    found = KubernetesSelector(role=role, label=reader.text("label", ""), field=reader.text("field", ""))
    reader.finish()
    return found


def _kubernetes_sd_document(sd: KubernetesSD) -> dict[str, Any]:
    document: dict[str, Any] = {"role": sd.role}
    if sd.namespaces or sd.own_namespace:
        document["namespaces"] = ({"names": list(sd.namespaces)} if sd.namespaces else {}) | (
            {"own_namespace": True} if sd.own_namespace else {}
        )
    if sd.selectors:
        document["selectors"] = [set_fields(selector) | {"role": selector.role} for selector in sd.selectors]
    attach = {"node": sd.attach_node, "namespace": sd.attach_namespace}
    if any(attach.values()):
        document["attach_metadata"] = {name: True for name, on in attach.items() if on}
    for name in ("api_server", "kubeconfig_file"):
        if getattr(sd, name):
            document[name] = getattr(sd, name)
    return document


def _file_sd(document: object, what: str) -> FileSD:
    reader = Reader(mapping_of(document, what), what)
    files = reader.texts("files")
    if not files:
        raise reader.error("files", "is missing or empty; name at least one file")
    found = FileSD(files=files, refresh_interval_ms=reader.duration("refresh_interval") or 300_000)
    reader.finish()
    return found


def _http_sd(document: object, what: str) -> HttpSD:
    reader = Reader(mapping_of(document, what), what)
    url = reader.text("url", "")
    if not url.startswith(("http://", "https://")):
        raise reader.error("url", f'"{url}" is not an http or https URL')
    found = HttpSD(
        url=url,
        refresh_interval_ms=reader.duration("refresh_interval") or 60_000,
        http=read_http_client(reader),
    )
    reader.finish()
    return found


def _http_sd_document(sd: HttpSD) -> dict[str, Any]:
    document: dict[str, Any] = {"url": sd.url, "refresh_interval": format_duration(sd.refresh_interval_ms)}
    return document | http_client_document(sd.http)


DNS_TYPES = ("SRV", "A", "AAAA", "MX", "NS")


def _dns_sd(document: object, what: str) -> DnsSD:
    reader = Reader(mapping_of(document, what), what)
    found = DnsSD(
        names=reader.texts("names"),
        type=reader.text("type", "SRV").upper(),
        port=reader.count("port"),
        refresh_interval_ms=reader.duration("refresh_interval") or 30_000,
    )
    if not found.names:
        raise reader.error("names", "is missing or empty; name at least one DNS name")
    if found.type not in DNS_TYPES:
        raise reader.error("type", f'"{found.type}" is not a type; write one of {", ".join(DNS_TYPES)}')
    if found.type != "SRV" and not 0 < found.port < 65536:
        raise reader.error("port", f"{found.port} is not a port; a lookup of type {found.type} needs one")
    reader.finish()
    return found


def _static_config(document: object, what: str) -> StaticConfig:
    reader = Reader(mapping_of(document, what), what)
    targets, labels = reader.texts("targets"), text_mapping_of(reader.take("labels") or {}, f"{what}: labels")
    reader.finish()
    return StaticConfig(targets=targets, labels=labels)


def _re2_text(exc: BaseException) -> str:
    text: object = exc.args[0] if exc.args else exc
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
