"""ServiceMonitors and PodMonitors: one scrape job an endpoint.

Facts: reference/stack.md section 4.
"""

from collections.abc import Mapping
from typing import Any

from flyball.errors import ConfigError
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.jobs import (
    FIRST_RULE,
    META,
    RUNNING_FILTER,
    Job,
    Relabeling,
    by_label_selector,
    clean,
    constant,
    copy_if_set,
    rule,
)
from flyball.operator.prometheus import Prometheus
from flyball.operator.versions import SCRAPE_SINCE, without_newer


def service_monitor_jobs(prometheus: Prometheus, monitor: Mapping[str, Any], assets: Assets) -> list[Document]:
    """Jobs ``serviceMonitor/<namespace>/<name>/<index>``.

    Raises:
        ConfigError: names the object and the field.
    """
    return _jobs(prometheus, monitor, assets, "endpoints", _service_job)


def pod_monitor_jobs(prometheus: Prometheus, monitor: Mapping[str, Any], assets: Assets) -> list[Document]:
    """Jobs ``podMonitor/<namespace>/<name>/<index>``.

    Raises:
        ConfigError: names the object and the field.
    """
    return _jobs(prometheus, monitor, assets, "podMetricsEndpoints", _pod_job)


def _jobs(
    prometheus: Prometheus, monitor: Mapping[str, Any], assets: Assets, field: str, translate: Any
) -> list[Document]:
    metadata, spec = monitor.get("metadata") or {}, monitor.get("spec") or {}
    namespace, name = metadata.get("namespace"), metadata.get("name")
    kind = "ServiceMonitor" if field == "endpoints" else "PodMonitor"
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
        job = Job(prometheus, monitor, ClientConfig(assets, str(namespace), here), here)
        document = {"job_name": f"{kind[0].lower()}{kind[1:]}/{namespace}/{name}/{index}"}
        document |= _common(job, endpoint) | translate(job, endpoint)
        found.append(without_newer(document, SCRAPE_SINCE, prometheus.version))
    return found


def _common(job: Job, endpoint: Spec) -> Document:
    """What an endpoint says of its requests and samples, whatever finds it."""
    document: Document = {
        **job.honor_labels(endpoint.get("honorLabels")),
        **job.honor_timestamps(endpoint.get("honorTimestamps")),
        **job.intervals(endpoint),
        **job.client.transport(endpoint),
        **job.client.credentials(endpoint),
        **job.client.tls(endpoint.get("tlsConfig"), job.scrape_class.get("tlsConfig")),
        **job.client.authorization(endpoint.get("authorization"), job.scrape_class.get("authorization")),
        **job.limits(),
        **job.protocols(),
        **job.body_size_limit(),
        **job.metric_relabelings(endpoint.get("metricRelabelings"), f"{job.where}.metricRelabelings"),
    }
    if endpoint.get("trackTimestampsStaleness") is not None:
        document["track_timestamps_staleness"] = endpoint["trackTimestampsStaleness"]
    for field, name in (("path", "metrics_path"), ("params", "params")):
        if endpoint.get(field):
            document[name] = endpoint[field]
    if endpoint.get("scheme"):
        document["scheme"] = str(endpoint["scheme"]).lower()
    return document


def _service_job(job: Job, endpoint: Spec) -> Document:
    spec, prometheus = job.spec, job.prometheus
    role = prometheus.endpoints_role(spec.get("serviceDiscoveryRole"))
    prefix = f"{META}endpointslice" if role == "endpointslice" else f"{META}endpoint"
    target = [f"{prefix}_address_target_kind", f"{prefix}_address_target_name"]
    rules = [
        FIRST_RULE,
        *_selection(job, "service"),
        *_port(endpoint, f"{prefix}_port_name"),
        rule(target, "node", separator=";", regex="Node;(.*)", replacement="${1}"),
        rule(target, "pod", separator=";", regex="Pod;(.*)", replacement="${1}"),
        rule(f"{META}namespace", "namespace"),
        rule(f"{META}service_name", "service"),
        rule(f"{META}pod_name", "pod"),
        rule(f"{META}pod_container_name", "container"),
    ]
    if endpoint.get("filterRunning") is not False:
        rules.append(RUNNING_FILTER)
    labels = [clean(label) for label in spec.get("targetLabels") or ()]
    rules += [copy_if_set(f"{META}service_label_{label}", label) for label in labels]
    rules += _pod_target_labels(job)
    rules.append(rule(f"{META}service_name", "job", replacement="${1}"))
    rules += _job_and_endpoint(job, endpoint, "service")
    return {
        **job.discovery(role, spec.get("namespaceSelector"), attach=True, selectors=(role, "service")),
        **job.relabel_configs(rules, endpoint.get("relabelings"), f"{job.where}.relabelings"),
    }


def _pod_job(job: Job, endpoint: Spec) -> Document:
    metadata = job.monitor["metadata"]
    rules = [FIRST_RULE]
    if endpoint.get("filterRunning") is not False:
        rules.append(RUNNING_FILTER)
    rules += [
        *_selection(job, "pod"),
        *_port(endpoint, f"{META}pod_container_port_name"),
        rule(f"{META}namespace", "namespace"),
        rule(f"{META}pod_container_name", "container"),
        rule(f"{META}pod_name", "pod"),
        *_pod_target_labels(job),
        constant("job", f"{metadata.get('namespace')}/{metadata.get('name')}"),
        *_job_and_endpoint(job, endpoint, "pod"),
    ]
    return {
        **job.discovery("pod", job.spec.get("namespaceSelector"), attach=True, selectors=("pod",)),
        **job.relabel_configs(rules, endpoint.get("relabelings"), f"{job.where}.relabelings"),
    }


def _selection(job: Job, role: str) -> list[Relabeling]:
    if job.spec.get("selectorMechanism") == "RoleSelector":
        return []  # the API selects
    return by_label_selector(job.spec["selector"], role, f"{job.where}.selector")


def _port(endpoint: Spec, port_name_label: str) -> list[Relabeling]:
    """A name is the Service's or the container's; a number always the container's. Without any, all ports are kept."""
    number = endpoint.get("portNumber")
    target = endpoint.get("targetPort")
    if endpoint.get("port"):
        return [rule(port_name_label, action="keep", regex=endpoint["port"])]
    if number or (isinstance(target, int) and target):
        return [rule(f"{META}pod_container_port_number", action="keep", regex=number or target)]
    if target:
        return [rule(f"{META}pod_container_port_name", action="keep", regex=target)]
    return []


def _pod_target_labels(job: Job) -> list[Relabeling]:
    labels = [*(job.spec.get("podTargetLabels") or ()), *(job.prometheus.spec.get("podTargetLabels") or ())]
    return [copy_if_set(f"{META}pod_label_{clean(label)}", clean(label)) for label in labels]


def _job_and_endpoint(job: Job, endpoint: Spec, role: str) -> list[Relabeling]:
    rules = []
    if job.spec.get("jobLabel"):
        rules.append(copy_if_set(f"{META}{role}_label_{clean(job.spec['jobLabel'])}", "job"))
    port = endpoint.get("port") or endpoint.get("targetPort")
    if port:
        rules.append(constant("endpoint", str(port)))
    return rules
