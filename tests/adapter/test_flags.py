"""flyball adapter's flags: upstream's names and forms, and what excludes what."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flyball.adapter.deployment import Flags, PrometheusFlags, prometheus_source
from flyball.cli import adapter as cli
from flyball.errors import ConfigError

#: The arguments of prometheus-adapter's Deployment in kube-prometheus and in the community's chart.
KUBE_PROMETHEUS = [
    "--cert-dir=/var/run/serving-cert",
    "--config=/etc/adapter/config.yaml",
    "--metrics-relist-interval=1m",
    "--prometheus-url=https://prometheus-k8s.monitoring.svc:9090/",
    "--secure-port=6443",
    "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
]
CHART = [
    "/adapter",
    "--secure-port=6443",
    "--cert-dir=/tmp/cert",
    "--prometheus-url=http://prometheus.default.svc:9090",
    "--metrics-relist-interval=1m0s",
    "--v=4",
    "--config=/etc/adapter/config.yaml",
    "--logtostderr=true",
    "--disable-http2",
    "--client-qps=100",
    "--prometheus-header=foo",
    "--prometheus-header=foo=bar",
    "--prometheus-header=bux=baz=23",
    "--prometheus-auth-incluster=false",
]


FLAGS_OF = cli.flags_of


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Flags:
    found: list[Flags] = []

    def keep(given: dict[str, Any]) -> Flags:
        found.append(FLAGS_OF(given))
        raise ConfigError("stop here")

    monkeypatch.setattr(cli, "flags_of", keep)
    result = CliRunner().invoke(cli.command, [argument for argument in arguments if argument.startswith("-")])
    assert isinstance(result.exception, ConfigError), result.output
    if not found:
        raise result.exception
    return found[0]


def test_the_arguments_of_upstreams_manifests_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = parsed(monkeypatch, *KUBE_PROMETHEUS)
    assert flags.config == Path("/etc/adapter/config.yaml")
    assert flags.prometheus.url == "https://prometheus-k8s.monitoring.svc:9090/"
    assert (flags.serving.port, flags.relist_interval_s) == (6443, 60.0)
    flags = parsed(monkeypatch, *CHART)
    # as upstream parses them: the first "=" splits, no value is an empty one
    assert flags.prometheus.headers == (("foo", ""), ("foo", "bar"), ("bux", "baz=23"))
    assert flags.prometheus.verb == "GET" and not flags.prometheus.auth_incluster


def test_defaults_are_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = parsed(monkeypatch, "--config=x")
    assert flags.prometheus == PrometheusFlags()
    assert (flags.relist_interval_s, flags.max_age_s) == (600.0, 0.0)


def test_a_maximum_age_below_the_interval_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--metrics-max-age must not be less"):
        parsed(monkeypatch, "--config=x", "--metrics-relist-interval=10m", "--metrics-max-age=1m")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (PrometheusFlags(auth_incluster=True, auth_config="x"), "exclude each other"),
        (PrometheusFlags(ca_file="/nowhere/ca.crt"), "there is no such file"),
        (PrometheusFlags(url="prometheus:9090"), "is not the URL of a Prometheus API"),
    ],
)
def test_what_excludes_what(flags: PrometheusFlags, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        asyncio.run(prometheus_source(flags))
