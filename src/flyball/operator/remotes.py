"""Whom Prometheus sends to and asks: Alertmanagers, remote write, remote read, traces.

Facts: reference/stack.md section 4.
"""

from collections.abc import Mapping
from typing import Any

from flyball.model.quantities import parse_quantity
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.jobs import META, Job, relabelings, rule
from flyball.operator.prometheus import Prometheus
from flyball.operator.versions import ALERTMANAGER_SINCE, REMOTE_READ_SINCE, REMOTE_WRITE_SINCE, without_newer

_MESSAGES = {"V1.0": "prometheus.WriteRequest", "V2.0": "io.prometheus.write.v2.Request"}


def alertmanager(prometheus: Prometheus, index: int, spec: Spec, assets: Assets) -> Document:
    """One entry of ``alerting.alertmanagers``: the endpoints of a Service.

    Raises:
        ConfigError: names the object and the field.
    """
    where = f"{prometheus}: spec.alerting.alertmanagers[{index}]"
    client = ClientConfig(assets, prometheus.namespace, where)
    document: Document = {
        **_picked(spec, {"pathPrefix": "path_prefix", "timeout": "timeout"}),
        **client.of({**spec, "bearerTokenSecret": None}),
        **client.sigv4(spec.get("sigv4")),
    }
    if spec.get("scheme"):
        document["scheme"] = str(spec["scheme"]).lower()
    version = str(spec.get("apiVersion") or "").lower()
    if version == "v2" or (version == "v1" and prometheus.version < (3,)):
        document["api_version"] = version
    role = prometheus.endpoints_role(None)
    namespace = spec.get("namespace") or prometheus.namespace
    holder = {"kind": "Prometheus", "metadata": {"namespace": namespace}}
    document |= Job(prometheus, holder, client, where).discovery(role, None)
    rules = [rule(f"{META}service_name", action="keep", regex=spec.get("name"))]
    port = spec.get("port")
    if isinstance(port, int) and port:
        rules.append(rule(f"{META}pod_container_port_number", action="keep", regex=str(port)))
    elif port:
        prefix = "endpointslice" if role == "endpointslice" else "endpoint"
        rules.append(rule(f"{META}{prefix}_port_name", action="keep", regex=port))
    document["relabel_configs"] = rules + relabelings(spec.get("relabelings"), f"{where}.relabelings")
    if spec.get("alertRelabelings"):
        document["alert_relabel_configs"] = relabelings(spec["alertRelabelings"], f"{where}.alertRelabelings")
    return without_newer(document, ALERTMANAGER_SINCE, prometheus.version)


def remote_write(prometheus: Prometheus, index: int, spec: Spec, assets: Assets) -> Document:
    """One entry of ``remote_write``.

    Raises:
        ConfigError: names the object and the field.
    """
    where = f"{prometheus}: spec.remoteWrite[{index}]"
    client = ClientConfig(assets, prometheus.namespace, where)
    fields = {
        "url": "url",
        "remoteTimeout": "remote_timeout",
        "headers": "headers",
        "name": "name",
        "sendExemplars": "send_exemplars",
        "sendNativeHistograms": "send_native_histograms",
        "roundRobinDNS": "round_robin_dns",
    }
    document = _picked(spec, fields) | client.of(spec) | client.sigv4(spec.get("sigv4"))
    message = spec.get("messageVersion")
    if message:
        document["protobuf_message"] = _MESSAGES.get(message, _MESSAGES["V1.0"])
    rules = relabelings(spec.get("writeRelabelConfigs"), f"{where}.writeRelabelConfigs")
    if rules:
        document["write_relabel_configs"] = rules
    if spec.get("azureAd"):
        document["azuread"] = _azure_ad(spec["azureAd"], client)
    if spec.get("queueConfig") is not None:
        document["queue_config"] = _queue(spec["queueConfig"], prometheus)
    metadata = spec.get("metadataConfig")
    if metadata is not None:
        send = bool(metadata.get("send")) and message != "V2.0"  # version 2 sends metadata with the samples
        document["metadata_config"] = {"send": send} | _picked(
            metadata, {"sendInterval": "send_interval", "maxSamplesPerSend": "max_samples_per_send"}
        )
    return without_newer(document, REMOTE_WRITE_SINCE, prometheus.version)


def remote_read(prometheus: Prometheus, index: int, spec: Spec, assets: Assets) -> Document:
    """One entry of ``remote_read``.

    Raises:
        ConfigError: names the object and the field.
    """
    client = ClientConfig(assets, prometheus.namespace, f"{prometheus}: spec.remoteRead[{index}]")
    fields = {
        "url": "url",
        "remoteTimeout": "remote_timeout",
        "headers": "headers",
        "name": "name",
        "requiredMatchers": "required_matchers",
        "readRecent": "read_recent",
        "filterExternalLabels": "filter_external_labels",
    }
    return without_newer(_picked(spec, fields) | client.of(spec), REMOTE_READ_SINCE, prometheus.version)


def tracing(prometheus: Prometheus, spec: Spec, assets: Assets) -> Document:
    """The ``tracing`` section.

    Raises:
        ConfigError: names the object and the field.
    """
    client = ClientConfig(assets, prometheus.namespace, f"{prometheus}: spec.tracingConfig")
    document = _picked(
        spec,
        {
            "endpoint": "endpoint",
            "clientType": "client_type",
            "insecure": "insecure",
            "headers": "headers",
            "compression": "compression",
            "timeout": "timeout",
        },
    )
    for name in ("client_type", "compression"):
        if name in document:
            document[name] = str(document[name]).lower()
    if spec.get("samplingFraction") is not None:
        document["sampling_fraction"] = parse_quantity(spec["samplingFraction"]).as_float()
    return document | client.tls(spec.get("tlsConfig"))


def _queue(spec: Spec, prometheus: Prometheus) -> Document:
    document = _picked(
        spec,
        {
            "capacity": "capacity",
            "minShards": "min_shards",
            "maxShards": "max_shards",
            "maxSamplesPerSend": "max_samples_per_send",
            "batchSendDeadline": "batch_send_deadline",
            "minBackoff": "min_backoff",
            "maxBackoff": "max_backoff",
            "retryOnRateLimit": "retry_on_http_429",
            "sampleAgeLimit": "sample_age_limit",
        },
    )
    if spec.get("maxRetries") and prometheus.version < (2, 11):
        document["max_retries"] = spec["maxRetries"]
    return document


def _azure_ad(spec: Spec, client: ClientConfig) -> Document:
    document: Document = {}
    if spec.get("managedIdentity") is not None:
        document["managed_identity"] = _picked(spec["managedIdentity"], {"clientId": "client_id"})
    oauth = spec.get("oauth")
    if oauth:
        document["oauth"] = {
            "client_id": oauth.get("clientId"),
            "client_secret": client.secret("azureAd.oauth.clientSecret", oauth.get("clientSecret")),
            "tenant_id": oauth.get("tenantId"),
        }
    if spec.get("sdk") is not None:
        document["sdk"] = {"tenant_id": spec["sdk"].get("tenantId", "")}
    if spec.get("workloadIdentity") is not None:
        document["workload_identity"] = _picked(
            spec["workloadIdentity"], {"clientId": "client_id", "tenantId": "tenant_id"}
        )
    return document | _picked(spec, {"cloud": "cloud", "scope": "scope"})


def _picked(spec: Spec, fields: Mapping[str, str]) -> Document:
    """The fields that are set, under their other names."""
    found: dict[str, Any] = {}
    for field, name in fields.items():
        if spec.get(field) not in (None, "", [], {}) and not (spec[field] == 0 and spec[field] is not False):
            found[name] = spec[field]
    return found
