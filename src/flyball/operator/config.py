"""A whole prometheus.yml from a Prometheus object and the monitors that it selects.

As prometheus-operator 0.93 writes it: judged by the golden cases of its own tests.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from flyball.errors import ConfigError
from flyball.model.durations import parse_duration_ms
from flyball.model.quantities import parse_quantity
from flyball.model.yaml_loader import load_yaml
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import Document
from flyball.operator.jobs import LIMITS, enforced, name_schemes, scrape_protocols, shard_rules
from flyball.operator.monitors import pod_monitor_jobs, service_monitor_jobs
from flyball.operator.probes import probe_jobs
from flyball.operator.prometheus import Prometheus
from flyball.operator.remotes import alertmanager, remote_read, remote_write, tracing
from flyball.operator.scrapeconfigs import scrape_config_jobs
from flyball.operator.versions import GLOBAL_SINCE, SECTION_SINCE, without_newer

RULES_DIR = PurePosixPath("/etc/prometheus/rules")
LOG_DIR = PurePosixPath("/var/log/prometheus")

#: Fields that name a Secret's key with configuration in Prometheus' own words.
ADDITIONAL = ("additionalScrapeConfigs", "additionalAlertRelabelConfigs", "additionalAlertManagerConfigs")

#: The jobs of one object, by its kind, in the order in which they stand in the file.
JOBS: Mapping[str, Callable[[Prometheus, Mapping[str, Any], Assets], list[Document]]] = {
    "ServiceMonitor": service_monitor_jobs,
    "PodMonitor": pod_monitor_jobs,
    "Probe": probe_jobs,
    "ScrapeConfig": scrape_config_jobs,
}


def document(
    prometheus: Prometheus,
    jobs: Sequence[Document],
    assets: Assets,
    *,
    rule_files: Sequence[str] = (),
    additional: Mapping[str, str] | None = None,
) -> Document:
    """The configuration.

    Args:
        jobs: of the monitors, from ``JOBS``.
        rule_files: names of the directories below ``RULES_DIR`` that hold the selected rules.
        additional: YAML texts of ``ADDITIONAL``.

    Raises:
        ConfigError: names the object and the field.
    """
    spec, additional = prometheus.spec, additional or {}
    found: Document = {"global": _global(prometheus)}
    if spec.get("runtime") is not None:
        found["runtime"] = {"gogc": spec["runtime"]["goGC"]} if spec["runtime"].get("goGC") is not None else {}
    if spec.get("ruleSelector") is not None:
        found["rule_files"] = [str(RULES_DIR / name / "*.yaml") for name in rule_files]
    found["scrape_configs"] = [*jobs, *_additional_jobs(prometheus, additional.get("additionalScrapeConfigs", ""))]
    found |= _storage(prometheus) | _alerting(prometheus, additional, assets)
    for field, name, translate in (
        ("remoteWrite", "remote_write", remote_write),
        ("remoteRead", "remote_read", remote_read),
    ):
        if spec.get(field):
            found[name] = [translate(prometheus, index, item, assets) for index, item in enumerate(spec[field])]
    found |= _otlp(prometheus)
    if spec.get("tracingConfig"):
        found["tracing"] = tracing(prometheus, spec["tracingConfig"], assets)
    found = without_newer(found, SECTION_SINCE, prometheus.version)
    return {name: section for name, section in found.items() if section not in ({}, {"tsdb": {}}) or name == "runtime"}


def _global(prometheus: Prometheus) -> Document:
    spec = prometheus.spec
    found: Document = {
        "scrape_interval": spec.get("scrapeInterval") or "30s",
        "evaluation_interval": spec.get("evaluationInterval") or "30s",
        "external_labels": external_labels(prometheus),
        **scrape_protocols(spec, prometheus),
        **name_schemes(spec),
    }
    timeout, interval = spec.get("scrapeTimeout"), found["scrape_interval"]
    if timeout:
        if parse_duration_ms(str(timeout)) > parse_duration_ms(str(interval)):
            raise ConfigError(
                f'{prometheus}: spec.scrapeTimeout: "{timeout}" is above the scrapeInterval of "{interval}"; lower it'
            )
        found["scrape_timeout"] = timeout
    if spec.get("bodySizeLimit") is not None or spec.get("enforcedBodySizeLimit"):
        found["body_size_limit"] = spec.get("bodySizeLimit", spec.get("enforcedBodySizeLimit"))
    for field, name in LIMITS.items():
        wanted, most = spec.get(field) or 0, spec.get(enforced(field)) or 0
        limit = min(wanted, most) if wanted > 0 and most > 0 else max(wanted, most)
        if limit > 0:
            found[name] = limit
    for field, name in (
        ("ruleQueryOffset", "rule_query_offset"),
        ("convertClassicHistogramsToNHCB", "convert_classic_histograms_to_nhcb"),
        ("scrapeClassicHistograms", "always_scrape_classic_histograms"),
        ("scrapeNativeHistograms", "scrape_native_histograms"),
    ):
        if spec.get(field) is not None:
            found[name] = spec[field]
    for field, name in (("queryLogFile", "query_log_file"), ("scrapeFailureLogFile", "scrape_failure_log_file")):
        if spec.get(field):
            path = str(spec[field])
            found[name] = path if "/" in path else str(LOG_DIR / path)
    return without_newer(found, GLOBAL_SINCE, prometheus.version)


def external_labels(prometheus: Prometheus) -> dict[str, str]:
    """The user's labels, and those that tell one Prometheus and one replica from another, which win.

    ``$(POD_NAME)`` stands for the name of the replica's pod.
    """
    spec = prometheus.spec
    own = {
        spec.get("prometheusExternalLabelName", "prometheus"): f"{prometheus.namespace}/{prometheus.name}",
        spec.get("replicaExternalLabelName", "prometheus_replica"): "$(POD_NAME)",
    }
    return {**(spec.get("externalLabels") or {}), **{label: value for label, value in own.items() if label}}


def _storage(prometheus: Prometheus) -> Document:
    spec = prometheus.spec
    tsdb, found = spec.get("tsdb") or {}, {}
    section: Document = {}
    if (spec.get("exemplars") or {}).get("maxSize") is not None:
        section["exemplars"] = {"max_exemplars": spec["exemplars"]["maxSize"]}
    if tsdb.get("outOfOrderTimeWindow") is not None:
        found["out_of_order_time_window"] = tsdb["outOfOrderTimeWindow"]
    if tsdb.get("staleSeriesCompactionThreshold") is not None:
        found["stale_series_compaction_threshold"] = parse_quantity(tsdb["staleSeriesCompactionThreshold"]).as_float()
    floats = (tsdb.get("chunkEncoding") or {}).get("floats")
    if floats:
        if floats == "Xor" and "st-storage" in (spec.get("enableFeatures") or ()):
            raise ConfigError(
                f'{prometheus}: spec.tsdb.chunkEncoding.floats: "Xor" keeps no start timestamps, which the feature '
                "st-storage needs; use Xor2"
            )
        found["chunk_encoding"] = {"floats": str(floats).lower()}
    if prometheus.version >= (3, 11):
        retention, size = spec.get("retention"), spec.get("retentionSize")
        if not retention and not size:
            retention = "24h"
        found["retention"] = {name: value for name, value in (("time", retention), ("size", size)) if value}
    if found:
        section["tsdb"] = found
    return {"storage": section}


def _alerting(prometheus: Prometheus, additional: Mapping[str, str], assets: Assets) -> Document:
    spec = prometheus.spec.get("alerting")
    rules = _texts(additional, "additionalAlertRelabelConfigs")
    managers = _texts(additional, "additionalAlertManagerConfigs")
    if spec is None and rules is None and managers is None:
        return {}
    own = [
        alertmanager(prometheus, index, item, assets)
        for index, item in enumerate((spec or {}).get("alertmanagers") or ())
    ]
    replica = prometheus.spec.get("replicaExternalLabelName", "prometheus_replica")
    # an Alertmanager must see the replicas' alerts as one
    dropped = [{"action": "labeldrop", "regex": replica}] if replica else []
    return {
        "alerting": {
            "alert_relabel_configs": dropped + list(rules or ()),
            "alertmanagers": own + list(managers or ()),
        }
    }


def _otlp(prometheus: Prometheus) -> Document:
    spec = prometheus.spec.get("otlp")
    if spec is None:
        return {}
    where, strategy = f"{prometheus}: spec.otlp", spec.get("translationStrategy")
    if prometheus.version < (2, 55):
        raise ConfigError(f"{where}: Prometheus reads it from version 2.55 on; raise spec.version or remove it")
    if strategy == "NoUTF8EscapingWithSuffixes" and prometheus.spec.get("nameValidationScheme") == "Legacy":
        raise ConfigError(f'{where}.translationStrategy: "{strategy}" needs spec.nameValidationScheme UTF8')
    for name, since in (("NoTranslation", (3, 4)), ("UnderscoreEscapingWithoutSuffixes", (3, 6))):
        if strategy == name and prometheus.version < since:
            raise ConfigError(f'{where}.translationStrategy: "{name}" needs Prometheus {since[0]}.{since[1]} or newer')
    if prometheus.version >= (3, 5):
        all_of_them = spec.get("promoteAllResourceAttributes")
        if all_of_them and spec.get("promoteResourceAttributes"):
            raise ConfigError(f"{where}.promoteResourceAttributes: all are promoted already; remove one field")
        if spec.get("ignoreResourceAttributes") and not all_of_them:
            raise ConfigError(f"{where}.ignoreResourceAttributes: needs promoteAllResourceAttributes: true")
    fields = {
        "promoteResourceAttributes": "promote_resource_attributes",
        "translationStrategy": "translation_strategy",
        "keepIdentifyingResourceAttributes": "keep_identifying_resource_attributes",
        "convertHistogramsToNHCB": "convert_histograms_to_nhcb",
        "promoteAllResourceAttributes": "promote_all_resource_attributes",
        "ignoreResourceAttributes": "ignore_resource_attributes",
        "promoteScopeMetadata": "promote_scope_metadata",
        "labelNameUnderscoreSanitization": "label_name_underscore_sanitization",
        "labelNamePreserveMultipleUnderscores": "label_name_preserve_multiple_underscores",
    }
    found = {name: spec[field] for field, name in fields.items() if spec.get(field) not in (None, [])}
    return {"otlp": found}


def _additional_jobs(prometheus: Prometheus, text: str) -> Iterable[Document]:
    for job in _texts({"additionalScrapeConfigs": text}, "additionalScrapeConfigs") or ():
        rules = job.get("relabel_configs") or []
        if prometheus.sharded and prometheus.shards != 1:
            if not any(rule.get("action") == "hashmod" for rule in rules):
                rules = rules + shard_rules(prometheus)
            job = {**job, "relabel_configs": rules}
        yield job


def _texts(additional: Mapping[str, str], field: str) -> list[Document] | None:
    """The list that a field's YAML holds; None where the field is not set."""
    if not additional.get(field):
        return None
    found = load_yaml(additional[field], field)
    if found is not None and not isinstance(found, list):
        raise ConfigError(f"{field}: must be a list; see the Secret's key")
    return found or []
