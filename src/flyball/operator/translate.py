"""ServiceMonitor and PodMonitor to scrape configuration, in the order of prometheus-operator's promcfg.go.

Facts: reference/stack.md section 4.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flyball.errors import ConfigError
from flyball.model.durations import parse_duration_ms
from flyball.model.reader import parse_size_bytes
from flyball.model.scrapeconfigs import (
    BODY_SIZE_LIMIT_DEFAULT_BYTES,
    Authorization,
    BasicAuth,
    KubernetesSD,
    RelabelConfig,
    ScrapeConfig,
    TLSConfig,
    parse_scrape_configs,
)

#: ``(namespace, secret name, key) -> value``; raises ConfigError when there is none.
Secrets = Callable[[str, str, str], str]

_META = "__meta_kubernetes_"
_INVALID = re.compile(r"[^a-zA-Z0-9_]")
_NOT_SUPPORTED = ("oauth2", "proxyUrl", "proxyConnectHeader", "scrapeClass")


def translate_service_monitor(
    monitor: Mapping[str, Any], secrets: Secrets, *, interval_ms: int = 30_000
) -> list[ScrapeConfig]:
    """One job an endpoint, ``serviceMonitor/<namespace>/<name>/<index>``.

    Raises:
        ConfigError: names the object and the field.
    """
    return _translate(monitor, secrets, interval_ms, service=True)


def translate_pod_monitor(
    monitor: Mapping[str, Any], secrets: Secrets, *, interval_ms: int = 30_000
) -> list[ScrapeConfig]:
    """One job an endpoint, ``podMonitor/<namespace>/<name>/<index>``.

    Raises:
        ConfigError: names the object and the field.
    """
    return _translate(monitor, secrets, interval_ms, service=False)


def _translate(monitor: Mapping[str, Any], secrets: Secrets, interval_ms: int, *, service: bool) -> list[ScrapeConfig]:
    metadata, spec = monitor.get("metadata") or {}, monitor.get("spec") or {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    kind = "ServiceMonitor" if service else "PodMonitor"
    field = "endpoints" if service else "podMetricsEndpoints"
    where = f"{kind} {namespace}/{name}: spec"
    if not isinstance(spec.get("selector"), Mapping):
        raise ConfigError(f"{where}.selector: is missing; write matchLabels, or {{}} for everything")
    endpoints = spec.get(field)
    if not isinstance(endpoints, list) or not endpoints:
        raise ConfigError(f"{where}.{field}: is empty; add an endpoint with a port")
    found = []
    for index, endpoint in enumerate(endpoints):
        here = f"{where}.{field}[{index}]"
        if not isinstance(endpoint, Mapping):
            raise ConfigError(f"{here}: must be a mapping")
        job = f"{kind[0].lower()}{kind[1:]}/{namespace}/{name}/{index}"
        found.append(
            _job(job, spec, endpoint, namespace, f"{namespace}/{name}", secrets, interval_ms, where, here, service)
        )
    return found


def _job(
    job: str,
    spec: Mapping[str, Any],
    endpoint: Mapping[str, Any],
    namespace: str,
    full_name: str,
    secrets: Secrets,
    interval_ms: int,
    where: str,
    here: str,
    service: bool,
) -> ScrapeConfig:
    for field in _NOT_SUPPORTED:
        if endpoint.get(field) or spec.get(field):
            raise ConfigError(f"{here}.{field}: is not supported; remove it")
    interval = _duration(endpoint, "interval", here) or interval_ms
    timeout = _duration(endpoint, "scrapeTimeout", here) or min(10_000, interval)
    if timeout > interval:
        raise ConfigError(
            f'{here}.scrapeTimeout: "{endpoint.get("scrapeTimeout")}" is above the interval of {interval / 1000:g} s; '
            "lower it"
        )
    space = spec.get("namespaceSelector") or {}
    namespaces = () if space.get("any") else tuple(space.get("matchNames") or (namespace,))
    attach = spec.get("attachMetadata") or {}
    sd = KubernetesSD(
        role="endpointslice" if service else "pod", namespaces=namespaces, attach_node=bool(attach.get("node"))
    )
    rules = [_rule("job", "__tmp_prometheus_job_name")]
    running = []
    if endpoint.get("filterRunning", True):
        running = [RelabelConfig((f"{_META}pod_phase",), regex="(Failed|Succeeded)", action="drop")]
    selector = _selector(spec["selector"], "service" if service else "pod", f"{where}.selector")
    labels = _common_labels(service)
    if service:
        rules += [*selector, *_service_port(endpoint, here), *labels, *running]
    else:
        rules += [*running, *selector, *_pod_port(endpoint, here), *labels]
    role = "service" if service else "pod"
    if service:
        rules += [
            _copy(f"{_META}service_label_{_clean(label)}", _clean(label)) for label in spec.get("targetLabels") or ()
        ]
    rules += [_copy(f"{_META}pod_label_{_clean(label)}", _clean(label)) for label in spec.get("podTargetLabels") or ()]
    if service:
        rules.append(_rule(f"{_META}service_name", "job"))
    else:
        rules.append(RelabelConfig(target_label="job", replacement=full_name))
    if spec.get("jobLabel"):
        rules.append(_copy(f"{_META}{role}_label_{_clean(spec['jobLabel'])}", "job"))
    port = endpoint.get("port") or endpoint.get("targetPort") or endpoint.get("portNumber")
    if port:
        rules.append(RelabelConfig(target_label="endpoint", replacement=str(port)))
    rules += _user_rules(endpoint, "relabelings", here)
    body = spec.get("bodySizeLimit")
    return ScrapeConfig(
        job_name=job,
        scrape_interval_ms=interval,
        scrape_timeout_ms=timeout,
        metrics_path=endpoint.get("path") or "/metrics",
        scheme=str(endpoint.get("scheme") or "http").lower(),
        params={str(key): tuple(map(str, values)) for key, values in (endpoint.get("params") or {}).items()},
        honor_labels=bool(endpoint.get("honorLabels", False)),
        honor_timestamps=endpoint.get("honorTimestamps") is not False,
        track_timestamps_staleness=bool(endpoint.get("trackTimestampsStaleness", False)),
        scrape_protocols=tuple(spec.get("scrapeProtocols") or ()),
        fallback_scrape_protocol=str(spec.get("fallbackScrapeProtocol") or ""),
        follow_redirects=endpoint.get("followRedirects") is not False,
        authorization=_authorization(endpoint, namespace, secrets, here),
        basic_auth=_basic_auth(endpoint, namespace, secrets, here),
        tls=_tls(endpoint, namespace, secrets, here),
        relabel_configs=tuple(rules),
        metric_relabel_configs=tuple(_user_rules(endpoint, "metricRelabelings", here)),
        kubernetes_sd_configs=(sd,),
        sample_limit=_count(spec, "sampleLimit", where),
        target_limit=_count(spec, "targetLimit", where),
        label_limit=_count(spec, "labelLimit", where),
        label_name_length_limit=_count(spec, "labelNameLengthLimit", where),
        label_value_length_limit=_count(spec, "labelValueLengthLimit", where),
        keep_dropped_targets=_count(spec, "keepDroppedTargets", where),
        body_size_limit_bytes=parse_size_bytes(body) if body else BODY_SIZE_LIMIT_DEFAULT_BYTES,
    )


def _rule(source: str, target: str) -> RelabelConfig:
    return RelabelConfig(source_labels=(source,), target_label=target)


def _copy(source: str, target: str) -> RelabelConfig:
    return RelabelConfig(source_labels=(source,), regex="(.+)", target_label=target, replacement="${1}")


def _clean(label: object) -> str:
    return _INVALID.sub("_", str(label))


def _selector(selector: Mapping[str, Any], role: str, where: str) -> list[RelabelConfig]:
    def pair(label: str) -> tuple[str, str]:
        clean = _clean(label)
        return f"{_META}{role}_label_{clean}", f"{_META}{role}_labelpresent_{clean}"

    rules = [
        RelabelConfig(pair(label), regex=f"({re.escape(str(value))});true", action="keep")
        for label, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        value, present = pair(str(term.get("key", "")))
        operator = term.get("operator")
        values = "|".join(re.escape(str(item)) for item in term.get("values") or ())
        if operator == "In":
            rules.append(RelabelConfig((value, present), regex=f"({values});true", action="keep"))
        elif operator == "NotIn":
            rules.append(RelabelConfig((value, present), regex=f"({values});true", action="drop"))
        elif operator in ("Exists", "DoesNotExist"):
            action = "keep" if operator == "Exists" else "drop"
            rules.append(RelabelConfig((present,), regex="true", action=action))
        else:
            raise ConfigError(
                f'{where}.matchExpressions[{index}].operator: "{operator}" is not an operator; '
                "use In, NotIn, Exists or DoesNotExist"
            )
    return rules


def _service_port(endpoint: Mapping[str, Any], here: str) -> list[RelabelConfig]:
    if endpoint.get("port"):
        source, value = "endpointslice_port_name", endpoint["port"]
    elif isinstance(endpoint.get("targetPort"), int):
        source, value = "pod_container_port_number", endpoint["targetPort"]
    elif endpoint.get("targetPort"):
        source, value = "pod_container_port_name", endpoint["targetPort"]
    else:
        raise ConfigError(f"{here}.port: is missing; name the service's port, or set targetPort")
    return [RelabelConfig((f"{_META}{source}",), regex=re.escape(str(value)), action="keep")]


def _pod_port(endpoint: Mapping[str, Any], here: str) -> list[RelabelConfig]:
    number = endpoint.get("portNumber")
    if endpoint.get("port"):
        source, value = "pod_container_port_name", endpoint["port"]
    elif number or isinstance(endpoint.get("targetPort"), int):
        source, value = "pod_container_port_number", number or endpoint["targetPort"]
    elif endpoint.get("targetPort"):
        source, value = "pod_container_port_name", endpoint["targetPort"]
    else:
        raise ConfigError(f"{here}.port: is missing; name the container's port, or set portNumber")
    return [RelabelConfig((f"{_META}{source}",), regex=re.escape(str(value)), action="keep")]


def _common_labels(service: bool) -> list[RelabelConfig]:
    if not service:
        return [
            _rule(f"{_META}namespace", "namespace"),
            _rule(f"{_META}pod_container_name", "container"),
            _rule(f"{_META}pod_name", "pod"),
        ]
    kind, name = f"{_META}endpointslice_address_target_kind", f"{_META}endpointslice_address_target_name"
    return [
        RelabelConfig((kind, name), regex="Node;(.*)", target_label="node", replacement="${1}"),
        RelabelConfig((kind, name), regex="Pod;(.*)", target_label="pod", replacement="${1}"),
        _rule(f"{_META}namespace", "namespace"),
        _rule(f"{_META}service_name", "service"),
        _rule(f"{_META}pod_name", "pod"),
        _rule(f"{_META}pod_container_name", "container"),
    ]


_RELABEL_FIELDS = {
    "sourceLabels": "source_labels",
    "separator": "separator",
    "regex": "regex",
    "modulus": "modulus",
    "targetLabel": "target_label",
    "replacement": "replacement",
    "action": "action",
}


def _user_rules(endpoint: Mapping[str, Any], field: str, here: str) -> list[RelabelConfig]:
    documents = []
    for index, rule in enumerate(endpoint.get(field) or ()):
        unknown = [name for name in rule if name not in _RELABEL_FIELDS]
        if unknown:
            raise ConfigError(f'{here}.{field}[{index}]: unknown field "{unknown[0]}"; remove it')
        document = {_RELABEL_FIELDS[name]: value for name, value in rule.items()}
        if "action" in document:
            document["action"] = str(document["action"]).lower()
        documents.append(document)
    jobs, errors = parse_scrape_configs({"scrape_configs": [{"job_name": "x", "relabel_configs": documents}]})
    if errors:
        raise ConfigError(f"{here}.{field}: {errors[0]}")
    return list(jobs[0].relabel_configs)


def _secret(selector: object, namespace: str, secrets: Secrets, here: str) -> str:
    if not isinstance(selector, Mapping) or not selector.get("name") or not selector.get("key"):
        raise ConfigError(f"{here}: must name a Secret and its key")
    try:
        return secrets(namespace, str(selector["name"]), str(selector["key"]))
    except ConfigError as exc:
        raise ConfigError(f"{here}: {exc}") from exc


def _authorization(endpoint: Mapping[str, Any], namespace: str, secrets: Secrets, here: str) -> Authorization | None:
    section = endpoint.get("authorization")
    if section:
        credentials = _secret(section.get("credentials"), namespace, secrets, f"{here}.authorization.credentials")
        return Authorization(type=section.get("type") or "Bearer", credentials=credentials)
    token = endpoint.get("bearerTokenSecret")
    if token and token.get("name") and token.get("key"):  # {key: ""} is written by old operators for "none"
        return Authorization(credentials=_secret(token, namespace, secrets, f"{here}.bearerTokenSecret"))
    if endpoint.get("bearerTokenFile"):
        return Authorization(credentials_file=str(endpoint["bearerTokenFile"]))
    return None


def _basic_auth(endpoint: Mapping[str, Any], namespace: str, secrets: Secrets, here: str) -> BasicAuth | None:
    section = endpoint.get("basicAuth")
    if not section:
        return None
    return BasicAuth(
        username=_secret(section.get("username"), namespace, secrets, f"{here}.basicAuth.username"),
        password=_secret(section.get("password"), namespace, secrets, f"{here}.basicAuth.password"),
    )


def _tls(endpoint: Mapping[str, Any], namespace: str, secrets: Secrets, here: str) -> TLSConfig | None:
    section = endpoint.get("tlsConfig")
    if not section:
        return None
    ca = ""
    source = section.get("ca") or {}
    if source.get("secret"):
        ca = _secret(source["secret"], namespace, secrets, f"{here}.tlsConfig.ca.secret")
    for field, given in (("ca.configMap", source.get("configMap")), ("cert", section.get("cert"))):
        if given:
            raise ConfigError(
                f"{here}.tlsConfig.{field}: is not supported; use ca.secret, or caFile, certFile and keyFile"
            )
    return TLSConfig(
        ca=ca,
        ca_file=str(section.get("caFile") or ""),
        cert_file=str(section.get("certFile") or ""),
        key_file=str(section.get("keyFile") or ""),
        server_name=str(section.get("serverName") or ""),
        insecure_skip_verify=bool(section.get("insecureSkipVerify", False)),
    )


def _duration(endpoint: Mapping[str, Any], field: str, here: str) -> int:
    text = endpoint.get(field)
    if not text:
        return 0
    try:
        return parse_duration_ms(str(text))
    except ConfigError as exc:
        raise ConfigError(f"{here}.{field}: {exc}") from exc


def _count(spec: Mapping[str, Any], field: str, where: str) -> int:
    value = spec.get(field) or 0
    if not isinstance(value, int) or value < 0:
        raise ConfigError(f'{where}.{field}: "{value}" is not a whole number of at least 0')
    return value


__all__ = ["Secrets", "translate_pod_monitor", "translate_service_monitor"]
