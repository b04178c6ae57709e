"""ScrapeConfig objects: a scrape job with every kind of discovery that Prometheus has.

Facts: reference/stack.md section 4. A kind that nothing here discovers is written out all the same: whoever reads the
configuration says so.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.jobs import FIRST_RULE, Job, constant, name_schemes, relabelings, shard_rules
from flyball.operator.prometheus import Prometheus
from flyball.operator.versions import CLIENT_SINCE, SCRAPE_SINCE, Version, without_newer

_KIND = "SDConfigs"
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CLIENT_FIELDS = frozenset(
    {
        "basicAuth",
        "authorization",
        "oauth2",
        "tlsConfig",
        "proxyUrl",
        "noProxy",
        "proxyFromEnvironment",
        "proxyConnectHeader",
        "followRedirects",
        "enableHTTP2",
    }
)
_RENAMED = {"tokenRef": "token", "apiServer": "api_server"}
_SINCE: Mapping[str, Mapping[str, Version]] = {
    "ec2": {"filters": (2, 3)} | dict.fromkeys(("follow_redirects", "enable_http2", "tls_config"), (2, 41)),
    "docker": {"match_first_network": (2, 54, 1)},
    "hetzner": {"label_selector": (3, 5)},
    "kubernetes": {"selectors": (2, 17)},
}
_DNS_TYPE_SINCE: Mapping[str, Version] = {"NS": (2, 49), "MX": (2, 38)}
_ATTACH_SINCE: Mapping[str, Version] = {"pod": (2, 35), "endpoints": (2, 37), "endpointslice": (2, 37)}


def scrape_config_jobs(prometheus: Prometheus, config: Mapping[str, Any], assets: Assets) -> list[Document]:
    """The job ``scrapeConfig/<namespace>/<name>``.

    Raises:
        ConfigError: names the object and the field.
    """
    metadata, spec = config.get("metadata") or {}, config.get("spec") or {}
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    where = f"ScrapeConfig {name}: spec"
    client = ClientConfig(assets, str(metadata.get("namespace")), where)
    job = Job(prometheus, config, client, where)
    document: Document = {
        "job_name": f"scrapeConfig/{name}",
        **_plain(spec),
        **job.intervals(spec, "scrapeInterval"),
        **client.transport(spec),
        **client.credentials(spec),
        **client.authorization(spec.get("authorization"), job.scrape_class.get("authorization")),
        **client.tls(spec.get("tlsConfig"), job.scrape_class.get("tlsConfig")),
        **job.limits(),
        **job.protocols(),
        **job.body_size_limit(),
        **name_schemes(spec),
        **job.metric_relabelings(spec.get("metricRelabelings"), f"{where}.metricRelabelings"),
    }
    if spec.get("honorTimestamps") is not None:
        document |= job.honor_timestamps(spec["honorTimestamps"])
    if spec.get("honorLabels") is not None:
        document |= job.honor_labels(spec["honorLabels"])
    if spec.get("staticConfigs"):
        document["static_configs"] = [
            {"targets": list(item.get("targets") or ()), "labels": dict(item.get("labels") or {})}
            for item in spec["staticConfigs"]
        ]
    for field, items in spec.items():
        if field.endswith(_KIND) and items:
            kind = field.removesuffix(_KIND).lower()
            document[f"{kind}_sd_configs"] = [
                _discovery(kind, item, ClientConfig(assets, job.namespace, f"{where}.{field}[{index}]"), prometheus)
                for index, item in enumerate(items)
            ]
    of_class = relabelings(job.scrape_class.get("relabelings"), f"{prometheus}: spec.scrapeClasses.relabelings")
    rules = [FIRST_RULE, *of_class]
    if spec.get("jobName"):
        rules.append({**constant("job", spec["jobName"]), "action": "replace"})
    if spec.get("relabelings"):
        rules += job.enforced(relabelings(spec["relabelings"], f"{where}.relabelings"))
    if prometheus.sharded and prometheus.shards != 1 and not any(item.get("action") == "hashmod" for item in rules):
        rules += shard_rules(prometheus)
    document["relabel_configs"] = rules
    return [without_newer(document, SCRAPE_SINCE, prometheus.version)]


def _plain(spec: Spec) -> Document:
    document: Document = {}
    for field, name in (
        ("trackTimestampsStaleness", "track_timestamps_staleness"),
        ("metricsPath", "metrics_path"),
        ("enableCompression", "enable_compression"),
    ):
        if spec.get(field) is not None:
            document[name] = spec[field]
    if spec.get("params"):
        document["params"] = dict(spec["params"])
    if spec.get("scheme"):
        document["scheme"] = str(spec["scheme"]).lower()
    return document


def _discovery(kind: str, config: Spec, client: ClientConfig, prometheus: Prometheus) -> Document:
    """One entry of ``<kind>_sd_configs``: the client's fields, and the kind's own in Prometheus' spelling."""
    document = client.of({field: config.get(field) for field in _CLIENT_FIELDS})
    for field, value in config.items():
        if field in _CLIENT_FIELDS or value is None:
            continue
        name = _RENAMED.get(field) or _WORD.sub("_", field).lower()
        if isinstance(value, Mapping) and set(value) <= {"name", "key", "optional"} and "key" in value:
            value = client.secret(field, value)
        elif name in ("role", "scheme"):
            value = str(value).lower()
        if value not in ("", [], {}):
            document[name] = value
    if kind in _SPECIAL:
        _SPECIAL[kind](document, prometheus)
    return without_newer(document, {**CLIENT_SINCE, **_SINCE.get(kind, {})}, prometheus.version)


def _kubernetes(document: Document, prometheus: Prometheus) -> None:
    spaces = document.get("namespaces")
    if spaces is not None:
        document["namespaces"] = {"names": list(spaces.get("names") or ())}
        if spaces.get("ownNamespace") is not None:
            document["namespaces"]["own_namespace"] = spaces["ownNamespace"]
    if document.get("selectors"):
        document["selectors"] = [{**item, "role": str(item["role"]).lower()} for item in document["selectors"]]
    since = _ATTACH_SINCE.get(document.get("role", ""))
    if since is None or prometheus.version < since:
        document.pop("attach_metadata", None)


def _dns(document: Document, prometheus: Prometheus) -> None:
    if prometheus.version < _DNS_TYPE_SINCE.get(str(document.get("type")), ()):
        document.pop("type")


def _filters(document: Document, _: Prometheus) -> None:
    if document.get("filters"):
        document["filters"] = sorted(document["filters"], key=lambda item: str(item.get("name")))


def _ovhcloud(document: Document, _: Prometheus) -> None:
    document["service"] = {"VPS": "vps", "DedicatedServer": "dedicated_server"}.get(str(document.get("service")))


_SPECIAL: Mapping[str, Callable[[Document, Prometheus], None]] = {
    "kubernetes": _kubernetes,
    "dns": _dns,
    "ec2": _filters,
    "docker": _filters,
    "dockerswarm": _filters,
    "lightsail": _filters,
    "ovhcloud": _ovhcloud,
}
