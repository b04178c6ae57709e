"""A whole prometheus.yml: what scraping, rules, alerting and remote write take from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from flyball.errors import ConfigError
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, read_http_client
from flyball.model.reader import Reader, mapping_of
from flyball.model.scrapeconfigs import (
    TOP_LEVEL_FIELDS,
    GlobalDefaults,
    RelabelConfig,
    ScrapeConfig,
    parse_global,
    parse_relabel_config,
    parse_scrape_jobs,
)
from flyball.model.yaml_loader import load_yaml


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """How remote write batches and retries."""

    capacity: int = 10_000
    max_shards: int = 50
    min_shards: int = 1
    max_samples_per_send: int = 2_000
    batch_send_deadline_ms: int = 5_000
    min_backoff_ms: int = 30
    max_backoff_ms: int = 5_000
    retry_on_http_429: bool = False
    sample_age_limit_ms: int = 0


@dataclass(frozen=True, slots=True)
class RemoteWriteConfig:
    """One receiver of all samples."""

    url: str
    name: str = ""
    remote_timeout_ms: int = 30_000
    headers: Mapping[str, str] = field(default_factory=dict)
    http: HttpClientConfig = HTTP_DEFAULT
    write_relabel_configs: tuple[RelabelConfig, ...] = ()
    send_exemplars: bool = False
    send_native_histograms: bool = False
    send_metadata: bool = True
    queue: QueueConfig = QueueConfig()


@dataclass(frozen=True, slots=True)
class AlertmanagerConfig:
    """Alertmanagers that are written down; ``path_prefix`` comes before ``/api/v2/alerts``.

    ``ignored`` are fields that were accepted but have no effect here.
    """

    targets: tuple[str, ...] = ()
    scheme: str = "http"
    path_prefix: str = ""
    timeout_ms: int = 10_000
    http: HttpClientConfig = HTTP_DEFAULT
    ignored: tuple[str, ...] = ()

    def urls(self) -> list[str]:
        prefix = "/" + self.path_prefix.strip("/") if self.path_prefix.strip("/") else ""
        return [f"{self.scheme}://{target}{prefix}/api/v2/alerts" for target in self.targets]


@dataclass(frozen=True, slots=True)
class PrometheusConfig:
    """Attributes:
    rule_files, scrape_config_files: glob patterns, made absolute by ``with_absolute_paths``.
    ignored: sections that were accepted but have no effect here.
    """

    defaults: GlobalDefaults = field(default_factory=GlobalDefaults)
    jobs: tuple[ScrapeConfig, ...] = ()
    rule_files: tuple[str, ...] = ()
    scrape_config_files: tuple[str, ...] = ()
    remote_write: tuple[RemoteWriteConfig, ...] = ()
    alertmanagers: tuple[AlertmanagerConfig, ...] = ()
    alert_relabel_configs: tuple[RelabelConfig, ...] = ()
    exemplars_max: int = 100_000
    out_of_order_ms: int = 0
    ignored: tuple[str, ...] = ()

    @property
    def external_labels(self) -> Mapping[str, str]:
        return self.defaults.external_labels


def parse_prometheus_config(
    document: Mapping[str, Any] | str, what: str = "prometheus.yml"
) -> tuple[PrometheusConfig, list[ConfigError]]:
    """The configuration and every error in it, field by field; nothing is in force unless there are none.

    Args:
        what: the file's name, for errors.
    """
    errors: list[ConfigError] = []

    def attempt(read: Callable[[], Any], default: Any) -> Any:
        try:
            return read()
        except ConfigError as exc:
            errors.append(exc)
            return default

    if isinstance(document, str):
        text = document
        loaded = attempt(lambda: load_yaml(text, what), {})
        document = attempt(lambda: mapping_of({} if loaded is None else loaded, what), {})
    assert isinstance(document, Mapping)
    for name in document:
        if name not in TOP_LEVEL_FIELDS:
            errors.append(ConfigError(f'unknown field "{name}"; remove it or check its spelling'))
    reader = Reader(document, "")
    section = reader.take("global") or {}
    defaults = attempt(lambda: parse_global(mapping_of(section, "global")), GlobalDefaults())
    jobs_section = reader.take("scrape_configs") or []
    jobs, job_errors = attempt(lambda: parse_scrape_jobs(jobs_section, defaults), ([], []))
    errors.extend(job_errors)
    alerting = attempt(lambda: _alerting(reader.take("alerting") or {}), ((), ()))
    storage = attempt(lambda: _storage(reader.take("storage") or {}), (100_000, 0))
    config = PrometheusConfig(
        defaults=defaults,
        jobs=tuple(jobs),
        rule_files=attempt(lambda: reader.texts("rule_files"), ()),
        scrape_config_files=attempt(lambda: reader.texts("scrape_config_files"), ()),
        remote_write=_unique_names(attempt(lambda: reader.items("remote_write", _remote_write), ()), errors),
        alertmanagers=alerting[0],
        alert_relabel_configs=alerting[1],
        exemplars_max=storage[0],
        out_of_order_ms=storage[1],
        ignored=(
            *(name for name in _SECTIONS_IGNORED if document.get(name)),
            *(
                f"alerting.alertmanagers[{index}].{name}"
                for index, one in enumerate(alerting[0])
                for name in one.ignored
            ),
        ),
    )
    # A message that already begins with the file's name (the YAML loader's) keeps it once.
    return config, [exc if str(exc).startswith(what) else ConfigError(f"{what}: {_tidy(str(exc))}") for exc in errors]


def with_absolute_paths(document: Any, directory: PurePosixPath, field_name: str = "") -> Any:
    """The document with every path that it names taken from ``directory``, as Prometheus does."""
    if field_name in ("labels", "external_labels", "params", "headers"):
        return document
    if isinstance(document, Mapping):
        return {name: with_absolute_paths(value, directory, str(name)) for name, value in document.items()}
    if isinstance(document, list):
        return [with_absolute_paths(item, directory, field_name) for item in document]
    is_path = field_name.endswith("_file") or field_name in ("files", "rule_files", "scrape_config_files")
    return str(directory / document) if is_path and isinstance(document, str) and document else document


_SECTIONS_IGNORED = ("remote_read", "tracing", "runtime", "otlp")


def _tidy(message: str) -> str:
    return message.removeprefix("prometheus.yml: ").removeprefix(": ")


def _alerting(section: object) -> tuple[tuple[AlertmanagerConfig, ...], tuple[RelabelConfig, ...]]:
    reader = Reader(mapping_of(section, "alerting"), "alerting")
    found = reader.items("alertmanagers", _alertmanager), reader.items("alert_relabel_configs", parse_relabel_config)
    reader.finish()
    return found


def _alertmanager(document: object, what: str) -> AlertmanagerConfig:
    reader = Reader(mapping_of(document, what), what)
    targets: list[str] = []
    for index, static in enumerate(reader.take("static_configs") or []):
        inner = Reader(mapping_of(static, f"{what}: static_configs[{index}]"), f"{what}: static_configs[{index}]")
        targets.extend(inner.texts("targets"))
        inner.take("labels")
        inner.finish()
    scheme = reader.text("scheme", "http")
    if scheme not in ("http", "https"):
        raise reader.error("scheme", f'"{scheme}" is not a scheme; write http or https')
    version = reader.text("api_version", "v2")
    if version != "v2":
        raise reader.error("api_version", f'"{version}" is not supported; write v2')
    ignored = [name for name in reader.rest if name.endswith("_sd_configs") or name in _ALERTMANAGER_IGNORED]
    for name in ignored:
        reader.take(name)
    found = AlertmanagerConfig(
        targets=tuple(targets),
        scheme=scheme,
        path_prefix=reader.text("path_prefix", ""),
        timeout_ms=reader.duration("timeout") or 10_000,
        http=read_http_client(reader),
        ignored=tuple(ignored),
    )
    reader.finish()
    return found


_ALERTMANAGER_IGNORED = ("relabel_configs", "alert_relabel_configs")


def _remote_write(document: object, what: str) -> RemoteWriteConfig:
    reader = Reader(mapping_of(document, what), what)
    url = reader.text("url", "")
    if not url.startswith(("http://", "https://")):
        raise reader.error("url", f'"{url}" is not an http or https URL')
    message = reader.text("protobuf_message", "prometheus.WriteRequest")
    if message != "prometheus.WriteRequest":
        raise reader.error("protobuf_message", f'"{message}" is not supported; write prometheus.WriteRequest')
    headers = {str(name): str(value) for name, value in mapping_of(reader.take("headers") or {}, what).items()}
    found = RemoteWriteConfig(
        url=url,
        name=reader.text("name", ""),
        remote_timeout_ms=reader.duration("remote_timeout") or 30_000,
        headers=headers,
        http=read_http_client(reader),
        write_relabel_configs=reader.items("write_relabel_configs", parse_relabel_config),
        send_exemplars=reader.flag("send_exemplars", False),
        send_native_histograms=reader.flag("send_native_histograms", False),
        send_metadata=_sends_metadata(reader.take("metadata_config")),
        queue=reader.nested("queue_config", _queue) or QueueConfig(),
    )
    reader.take("round_robin_dns")
    reader.finish()
    return found


def _sends_metadata(section: object) -> bool:
    reader = Reader(mapping_of(section or {}, "metadata_config"), "metadata_config")
    wanted = reader.flag("send", True)
    for name in ("send_interval", "max_samples_per_send"):
        reader.take(name)
    reader.finish()
    return wanted


def _queue(reader: Reader) -> QueueConfig:
    default = QueueConfig()
    return QueueConfig(
        capacity=reader.count("capacity") or default.capacity,
        max_shards=reader.count("max_shards") or default.max_shards,
        min_shards=reader.count("min_shards") or default.min_shards,
        max_samples_per_send=reader.count("max_samples_per_send") or default.max_samples_per_send,
        batch_send_deadline_ms=reader.duration("batch_send_deadline") or default.batch_send_deadline_ms,
        min_backoff_ms=reader.duration("min_backoff") or default.min_backoff_ms,
        max_backoff_ms=reader.duration("max_backoff") or default.max_backoff_ms,
        retry_on_http_429=reader.flag("retry_on_http_429", False),
        sample_age_limit_ms=reader.duration("sample_age_limit") or 0,
    )


def _storage(section: object) -> tuple[int, int]:
    reader = Reader(mapping_of(section, "storage"), "storage")
    tsdb = Reader(mapping_of(reader.take("tsdb") or {}, "storage: tsdb"), "storage: tsdb")
    out_of_order_ms = tsdb.duration("out_of_order_time_window") or 0
    for name in ("retention", "stale_series_compaction_threshold"):
        tsdb.take(name)
    tsdb.finish()
    exemplars = Reader(mapping_of(reader.take("exemplars") or {}, "storage: exemplars"), "storage: exemplars")
    exemplars_max = exemplars.count("max_exemplars") or 100_000
    exemplars.finish()
    reader.finish()
    return exemplars_max, out_of_order_ms


def _unique_names(configs: Sequence[RemoteWriteConfig], errors: list[ConfigError]) -> tuple[RemoteWriteConfig, ...]:
    names = [config.name for config in configs if config.name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        errors.append(ConfigError(f'remote_write: the name "{name}" is used twice; rename one'))
    return tuple(configs)
