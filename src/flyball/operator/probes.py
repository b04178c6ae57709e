"""Probes: one scrape job of a prober, which is told its targets by a parameter.

Facts: reference/stack.md section 4.
"""

from collections.abc import Mapping
from typing import Any

from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.jobs import FIRST_RULE, META, Job, Relabeling, by_label_selector, constant, rule
from flyball.operator.prometheus import Prometheus
from flyball.operator.versions import SCRAPE_SINCE, without_newer


def probe_jobs(prometheus: Prometheus, probe: Mapping[str, Any], assets: Assets) -> list[Document]:
    """The job ``probe/<namespace>/<name>``; without targets it scrapes nothing.

    Raises:
        ConfigError: names the object and the field.
    """
    metadata, spec = probe.get("metadata") or {}, probe.get("spec") or {}
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    where = f"Probe {name}: spec"
    prober = spec.get("prober") or {}
    job = Job(prometheus, probe, ClientConfig(assets, str(metadata.get("namespace")), where), where)
    document: Document = {
        "job_name": f"probe/{name}",
        **job.honor_timestamps(True),
        "metrics_path": prober.get("path", "/probe"),
        **job.intervals(spec),
        **job.limits(),
        **job.protocols(),
        **job.client.proxy(prober),
        **job.client.transport({key: spec.get(key) for key in ("followRedirects", "enableHttp2")}),
        **job.client.tls(spec.get("tlsConfig"), job.scrape_class.get("tlsConfig")),
        **job.client.credentials(spec),
        **job.client.authorization(spec.get("authorization"), job.scrape_class.get("authorization")),
        **job.metric_relabelings(spec.get("metricRelabelings"), f"{where}.metricRelabelings"),
        **_params(spec),
    }
    if prober.get("scheme"):
        document["scheme"] = str(prober["scheme"]).lower()
    if prometheus.spec.get("enforcedBodySizeLimit"):
        document["body_size_limit"] = prometheus.spec["enforcedBodySizeLimit"]
    rules = [FIRST_RULE]
    if spec.get("jobName"):
        rules.append(constant("job", spec["jobName"]))
    targets = spec.get("targets") or {}
    found: Document = {}
    more: list[Relabeling] = []
    if targets.get("staticConfig") is not None:
        found, more = _static(job, targets["staticConfig"], prober.get("url"))
    elif targets.get("ingress") is not None:
        found, more = _ingress(job, targets["ingress"], prober.get("url"))
    document |= found
    document["relabel_configs"] = rules + more + job.sharding("__param_target")
    return [without_newer(document, SCRAPE_SINCE, prometheus.version)]


def _params(spec: Spec) -> Document:
    module = spec.get("module")
    params = {"module": [module]} if module else {}
    for item in spec.get("params") or ():
        if not (module and item.get("name") == "module"):
            params[str(item.get("name"))] = list(item.get("values") or ())
    return {"params": params} if params else {}


def _static(job: Job, config: Spec, prober_url: object) -> tuple[Document, list[Relabeling]]:
    labels = {"namespace": job.namespace, **(config.get("labels") or {})}
    rules = [
        rule("__address__", "__param_target"),
        rule("__param_target", "instance"),
        constant("__address__", prober_url),
        *job.user_rules(config.get("relabelingConfigs"), f"{job.where}.targets.staticConfig.relabelingConfigs"),
    ]
    return {"static_configs": [{"targets": list(config.get("static") or ()), "labels": labels}]}, rules


def _ingress(job: Job, config: Spec, prober_url: object) -> tuple[Document, list[Relabeling]]:
    where = f"{job.where}.targets.ingress"
    url = [f"{META}ingress_scheme", "__address__", f"{META}ingress_path"]
    rules = [
        *by_label_selector(config.get("selector") or {}, "ingress", f"{where}.selector"),
        rule(url, "__param_target", separator=";", regex="(.+);(.+);(.+)", replacement="${1}://${2}${3}")
        | {"action": "replace"},
        rule(f"{META}namespace", "namespace"),
        rule(f"{META}ingress_name", "ingress"),
        rule("__address__", "__tmp_ingress_address", separator=";", regex="(.*)", replacement="$1", action="replace"),
        rule("__param_target", "instance"),
        constant("__address__", prober_url),
        *job.user_rules(config.get("relabelingConfigs"), f"{where}.relabelingConfigs"),
    ]
    return job.discovery("ingress", config.get("namespaceSelector")), rules
