"""Fields of Prometheus' configuration that not every version reads; what a version does not know is left out.

Facts: prometheus-operator 0.93, pkg/prometheus/promcfg.go. A path names nested fields: ``tls_config.min_version``.
"""

from collections.abc import Mapping
from typing import Any

Version = tuple[int, ...]

SCRAPE_SINCE: Mapping[str, Version] = {
    "honor_timestamps": (2, 9),
    "target_limit": (2, 21),
    "authorization": (2, 26),
    "follow_redirects": (2, 26),
    "label_limit": (2, 27),
    "label_name_length_limit": (2, 27),
    "label_value_length_limit": (2, 27),
    "oauth2": (2, 27),
    "body_size_limit": (2, 28),
    "enable_http2": (2, 35),
    "tls_config.min_version": (2, 35),
    "tls_config.max_version": (2, 41),
    "no_proxy": (2, 43),
    "proxy_from_environment": (2, 43),
    "proxy_connect_header": (2, 43),
    "oauth2.tls_config": (2, 43),
    "oauth2.proxy_url": (2, 43),
    "oauth2.no_proxy": (2, 43),
    "oauth2.proxy_from_environment": (2, 43),
    "oauth2.proxy_connect_header": (2, 43),
    "native_histogram_bucket_limit": (2, 45),
    "scrape_classic_histograms": (2, 45),
    "keep_dropped_targets": (2, 47),
    "track_timestamps_staleness": (2, 48),
    "enable_compression": (2, 49),
    "scrape_protocols": (2, 49),
    "native_histogram_min_bucket_factor": (2, 50),
    "convert_classic_histograms_to_nhcb": (3, 0),
    "fallback_scrape_protocol": (3, 0),
    "metric_name_validation_scheme": (3, 0),
    "metric_name_escaping_scheme": (3, 4),
    "scrape_native_histograms": (3, 8),
}

GLOBAL_SINCE: Mapping[str, Version] = {
    "query_log_file": (2, 16),
    "body_size_limit": (2, 45),
    "sample_limit": (2, 45),
    "target_limit": (2, 45),
    "label_limit": (2, 45),
    "label_name_length_limit": (2, 45),
    "label_value_length_limit": (2, 45),
    "keep_dropped_targets": (2, 47),
    "scrape_protocols": (2, 49),
    "rule_query_offset": (2, 53),
    "scrape_failure_log_file": (2, 55),
    "metric_name_validation_scheme": (3, 0),
    "convert_classic_histograms_to_nhcb": (3, 4),
    "metric_name_escaping_scheme": (3, 4),
    "always_scrape_classic_histograms": (3, 5),
    "scrape_native_histograms": (3, 8),
}

#: Of the document's other sections.
SECTION_SINCE: Mapping[str, Version] = {
    "storage": (2, 29),
    "storage.tsdb.out_of_order_time_window": (2, 39),
    "runtime": (2, 53),
    "storage.tsdb.stale_series_compaction_threshold": (3, 10),
    "storage.tsdb.retention": (3, 11),
    "storage.tsdb.chunk_encoding": (3, 13),
    "otlp.translation_strategy": (3, 0),
    "otlp.keep_identifying_resource_attributes": (3, 1),
    "otlp.convert_histograms_to_nhcb": (3, 4),
    "otlp.promote_all_resource_attributes": (3, 5),
    "otlp.ignore_resource_attributes": (3, 5),
    "otlp.promote_scope_metadata": (3, 6),
    "otlp.label_name_underscore_sanitization": (3, 8),
    "otlp.label_name_preserve_multiple_underscores": (3, 8),
}

#: Of whatever makes requests.
CLIENT_SINCE: Mapping[str, Version] = {
    field: since
    for field, since in SCRAPE_SINCE.items()
    if field.split(".")[0] in ("authorization", "oauth2", "tls_config", "follow_redirects", "enable_http2")
    or "proxy" in field
} | {"sigv4.external_id": (3, 11), "sigv4.use_fips_sts_endpoint": (2, 54)}

REMOTE_WRITE_SINCE: Mapping[str, Version] = {
    **CLIENT_SINCE,
    "queue_config.min_shards": (2, 6),
    "headers": (2, 15),
    "name": (2, 15),
    "metadata_config": (2, 23),
    "sigv4": (2, 26),
    "queue_config.retry_on_http_429": (2, 26),
    "send_exemplars": (2, 27),
    "metadata_config.max_samples_per_send": (2, 29),
    "send_native_histograms": (2, 40),
    "azuread": (2, 45),
    "azuread.oauth": (2, 48),
    "queue_config.sample_age_limit": (2, 50),
    "azuread.sdk": (2, 52),
    "protobuf_message": (2, 54),
    "round_robin_dns": (3, 1),
    "azuread.workload_identity": (3, 7),
    "azuread.scope": (3, 9),
}

REMOTE_READ_SINCE: Mapping[str, Version] = {
    **CLIENT_SINCE,
    "name": (2, 15),
    "headers": (2, 26),
    "filter_external_labels": (2, 34),
}

ALERTMANAGER_SINCE: Mapping[str, Version] = {
    **CLIENT_SINCE,
    "api_version": (2, 11),
    "basic_auth": (2, 26),
    "sigv4": (2, 48),
    "alert_relabel_configs": (2, 51),
}


def without_newer(document: dict[str, Any], since: Mapping[str, Version], version: Version) -> dict[str, Any]:
    """``document`` without the fields that came after ``version``; it is changed in place."""
    for path, first in since.items():
        if version < first:
            *parents, field = path.split(".")
            section: Any = document
            for parent in parents:
                section = section.get(parent) if isinstance(section, dict) else None
            if isinstance(section, dict):
                section.pop(field, None)
    return document


def parse_version(text: str) -> Version:
    """``v3.5.0-rc.0`` is (3, 5, 0): a candidate counts as its release."""
    return tuple(int(part) for part in text.removeprefix("v").split("-")[0].split("+")[0].split(".") if part.isdigit())
