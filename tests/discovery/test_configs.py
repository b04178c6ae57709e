"""The jobs in force: the default ones and those of the operator's Secret."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from flyball.discovery import ScrapeConfigs
from flyball.discovery.configs import SECRET_KEY, SECRET_NAME
from flyball.model.scrapeconfigs import ScrapeConfig


def jobs_with(*documents: dict[str, Any]) -> dict[str, ScrapeConfig]:
    """The jobs after a Secret with these came, by name."""
    text = json.dumps({"scrape_configs": documents})
    secret = {
        "metadata": {"name": SECRET_NAME},
        "data": {SECRET_KEY: base64.b64encode(gzip.compress(text.encode())).decode()},
    }
    found: list[list[ScrapeConfig]] = []
    configs = ScrapeConfigs(None, 10250, Path("/pki"))  # type: ignore[arg-type]
    configs._generated._read(secret, lambda jobs: found.append(configs._joined(jobs)))
    return {job.job_name: job for job in found[-1]}


def test_a_job_of_the_same_name_replaces_a_default_one() -> None:
    found = jobs_with({"job_name": "kubernetes-pods", "scrape_interval": "7s", "scrape_timeout": "5s"})
    assert found["kubernetes-pods"].scrape_interval_ms == 7000
    assert {"kubelet-resource", "kubernetes-service-endpoints"} <= found.keys()


def test_where_a_pod_finds_its_account_the_engine_has_its_own() -> None:
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    found = jobs_with(
        {"job_name": "a", "bearer_token_file": f"{account}/token", "tls_config": {"ca_file": f"{account}/ca.crt"}},
        {"job_name": "b", "bearer_token_file": "/etc/token"},
    )
    ours, other = found["a"].http, found["b"].http
    assert ours.authorization is not None and ours.tls is not None and other.authorization is not None
    assert (ours.authorization.credentials_file, ours.tls.ca_file) == ("/pki/token", "/pki/ca.crt")
    assert other.authorization.credentials_file == "/etc/token"


def test_figures_of_containers_come_from_one_job() -> None:
    (rule,) = jobs_with({"job_name": "k", "metrics_path": "/metrics/cadvisor"})[
        "kubelet-resource"
    ].metric_relabel_configs
    assert (rule.action, rule.regex) == ("drop", "container_.+")
    assert not jobs_with({"job_name": "k"})["kubelet-resource"].metric_relabel_configs
