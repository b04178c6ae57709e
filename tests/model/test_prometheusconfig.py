"""A whole prometheus.yml: what is read, what is refused, and where its paths lead."""

from pathlib import PurePosixPath

import pytest

from flyball.model.prometheusconfig import parse_prometheus_config, with_absolute_paths
from flyball.model.scrapeconfigs import DnsSD, FileSD, HttpSD, to_document
from flyball.model.yaml_loader import load_yaml

WHOLE = """
global: {scrape_interval: 5s, evaluation_interval: 30s, external_labels: {site: a}}
rule_files: [rules/*.yml]
scrape_config_files: [more/*.yml]
storage: {tsdb: {out_of_order_time_window: 10m}, exemplars: {max_exemplars: 7}}
alerting:
  alert_relabel_configs: [{regex: replica, action: labeldrop}]
  alertmanagers: [{scheme: https, path_prefix: /am/, static_configs: [{targets: ["am:9093"]}]}]
remote_write:
- {url: "http://far/api/v1/write", queue_config: {max_samples_per_send: 500}, basic_auth: {username: u, password: p}}
scrape_configs:
- job_name: found
  file_sd_configs: [{files: [targets/*.json]}]
  http_sd_configs: [{url: "http://sd/targets", refresh_interval: 10s}]
  dns_sd_configs: [{names: [_web._tcp.local]}, {names: [web.local], type: a, port: 80}]
  tls_config: {ca_file: ca.crt}
"""


def test_everything_is_read() -> None:
    config, errors = parse_prometheus_config(WHOLE)
    assert errors == []
    assert config.rule_files == ("rules/*.yml",) and config.scrape_config_files == ("more/*.yml",)
    assert config.external_labels == {"site": "a"} and config.defaults.evaluation_interval_ms == 30_000
    assert (config.out_of_order_ms, config.exemplars_max) == (600_000, 7)
    assert config.alertmanagers[0].urls() == ["https://am:9093/am/api/v2/alerts"]
    assert config.alert_relabel_configs[0].action == "labeldrop"
    assert config.remote_write[0].queue.max_samples_per_send == 500
    (job,) = config.jobs
    assert job.scrape_interval_ms == 5_000
    assert job.file_sd_configs == (FileSD(("targets/*.json",)),)
    assert job.http_sd_configs == (HttpSD("http://sd/targets", 10_000),)
    assert job.dns_sd_configs == (DnsSD(("_web._tcp.local",)), DnsSD(("web.local",), "A", 80))
    again, errors = parse_prometheus_config({"scrape_configs": [to_document(job)]})
    assert (again.jobs, errors) == ((job,), [])


def test_every_error_is_told_with_its_place() -> None:
    _, errors = parse_prometheus_config(
        "global: {scrape_intervall: 5s}\nrule_files: x\nfoo: 1\n"
        "remote_write: [{url: ftp://x}]\n"
        "scrape_configs: [{job_name: x, dns_sd_configs: [{names: [a], type: A}]}, {job_name: y, scheme: gopher}]\n",
        "p.yml",
    )
    said = [str(error) for error in errors]
    assert all(text.startswith("p.yml: ") for text in said)
    for part in ('"foo"', "scrape_intervall", 'job "x": dns_sd_configs[0]: port', "gopher", "rule_files", "ftp://x"):
        assert sum(part in text for text in said) == 1, part


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2", "global: 5", "scrape_configs: {a: 1}"])
def test_what_is_no_configuration(text) -> None:
    _, errors = parse_prometheus_config(text, "p.yml")
    assert errors and str(errors[0]).startswith("p.yml")


def test_paths_are_taken_from_the_file() -> None:
    config, errors = parse_prometheus_config(with_absolute_paths(load_yaml(WHOLE), PurePosixPath("/etc/prom")))
    assert errors == []
    assert config.rule_files == ("/etc/prom/rules/*.yml",)
    assert config.jobs[0].file_sd_configs[0].files == ("/etc/prom/targets/*.json",)
    assert config.jobs[0].http.tls is not None and config.jobs[0].http.tls.ca_file == "/etc/prom/ca.crt"
    kept = {"labels": {"config_file": "x"}, "bearer_token_file": "/abs"}
    assert with_absolute_paths(kept, PurePosixPath("/etc")) == kept


def test_what_is_accepted_without_effect_is_named() -> None:
    config, errors = parse_prometheus_config(
        "remote_write: [{url: http://far/}]\n"
        "tracing: {endpoint: x}\n"
        "alerting: {alertmanagers: [{static_configs: [{targets: [a]}]}, {dns_sd_configs: [{names: [b]}]}]}\n"
    )
    assert errors == []
    assert config.ignored == ("tracing", "alerting.alertmanagers[1].dns_sd_configs")
