"""What prometheus-operator's own tests generate (tools/operator_goldens), generated here."""

import base64
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyball.errors import ConfigError
from flyball.operator.config import JOBS, document
from flyball.operator.prometheus import Prometheus

RECORDED = json.loads(lzma.decompress(Path(__file__).with_name("goldens.json.xz").read_bytes()))
NAMES = [f"{case['test']}-{sum(c['test'] == case['test'] for c in RECORDED[:i])}" for i, case in enumerate(RECORDED)]
CASES = dict(zip(NAMES, RECORDED, strict=True))

#: Names of cases whose answer differs, by reason; the test fails too when one of them agrees.
DIFFERENT = {
    "shards by zone and shards that are kept when no longer wanted are features that upstream leaves off": [
        *(f"TestTopologyShardingRelabeling-{number}" for number in range(8)),
        "TestTopologyZoneExternalLabel-0",
        "TestTopologyZoneExternalLabel-1",
        "TestShardingRelabelConfigsWithRetention-1",
        "TestShardingRelabelConfigsWithRetention-2",
    ],
    "a Secret that does not exist is an error that names it; upstream's generator writes an empty text": [
        "TestScrapeConfigSpecConfigWithDockerSDConfig-1",
        "TestScrapeConfigSpecConfigWithDockerSDConfig-2",
        "TestScrapeConfigSpecConfigWithDockerSDConfig-4",
        "TestScrapeConfigSpecConfigWithDockerswarmSD-0",
        "TestScrapeConfigSpecConfigWithEC2SD-1",
        "TestScrapeConfigSpecConfigWithHTTPSD-4",
        "TestScrapeConfigSpecConfigWithLightSailSD-4",
        "TestScrapeConfigSpecConfigWithPuppetDBSD-3",
    ],
    "the fields of Azure's client are written, which upstream forgets": [
        "TestScrapeConfigSpecConfigWithAzureSD-2",
        "TestScrapeConfigSpecConfigWithAzureSD-3",
    ],
    "a release candidate counts as its release": ["TestNativeHistogramConfig-2"],
}


class FileAssets:
    """The objects of a case; certificates are files beside the configuration unless the case has them inline."""

    def __init__(self, case: Mapping[str, Any], certificates: str = "/etc/prometheus/certs") -> None:
        self.certificates = certificates
        self.inline = case["inlineTLS"]
        self.data: dict[tuple[str, str], dict[str, str]] = {}
        for obj in case["objects"] or ():
            key = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
            self.data.setdefault(key, {}).update(obj.get("data") or {})

    def secret(self, namespace: str, selector: Mapping[str, Any]) -> str:
        return base64.b64decode(self._value(namespace, selector)).decode()

    def secret_or_config_map(self, namespace: str, reference: Mapping[str, Any]) -> str:
        if reference.get("secret"):
            return self.secret(namespace, reference["secret"])
        return self._value(namespace, reference["configMap"])

    def tls(self, field: str, namespace: str, reference: Mapping[str, Any]) -> tuple[str, str]:
        if self.inline:
            return field, self.secret_or_config_map(namespace, reference)
        number, selector = (0, reference["secret"]) if reference.get("secret") else (1, reference["configMap"])
        path = f"{self.certificates}/{number}_{namespace}_{selector['name']}_{selector['key']}"
        return f"{field}_file", path

    def _value(self, namespace: str, selector: Mapping[str, Any]) -> str:
        try:
            return self.data[namespace, selector["name"]][selector["key"]]
        except KeyError:
            raise ConfigError(f"there is no {selector}") from None


def generate(case: dict[str, Any]) -> dict[str, Any] | str:
    """The configuration, or the error's text."""
    assets = FileAssets(case)
    try:
        prometheus = Prometheus(case["prometheus"], endpoint_slices=case["endpointSlice"], sharded=True)
        jobs = []
        for kind, translate in JOBS.items():
            monitors = case[f"{kind[0].lower()}{kind[1:]}s"] or {}
            for _, monitor in sorted(monitors.items()):
                jobs += translate(prometheus, {"kind": kind, **monitor}, assets)
        additional = {name: text for name, text in case.items() if name.startswith("additional")}
        rule_files = case["ruleConfigMapNames"] or ()
        return document(prometheus, jobs, assets, rule_files=rule_files, additional=additional)
    except ConfigError as exc:
        return str(exc)


def expected(case: Mapping[str, Any]) -> dict[str, Any] | None:
    """Upstream's configuration, None where it refuses.

    The API server sets defaults that these tests leave out: intervals of 30 s, a prober's path.
    """
    if case.get("error"):
        return None
    wanted: dict[str, Any] = yaml.safe_load(case["output"])
    for name in ("scrape_interval", "evaluation_interval"):
        wanted["global"][name] = wanted["global"][name] or "30s"
    for job in wanted["scrape_configs"]:
        if job.get("metrics_path") == "":
            job["metrics_path"] = "/probe"
    return wanted


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    got, wanted = generate(CASES[name]), expected(CASES[name])
    agrees = isinstance(got, str) if wanted is None else got == wanted
    if any(name in names for names in DIFFERENT.values()):
        assert not agrees, "agrees now: take it from the list"
    else:
        assert got == wanted if wanted is not None else isinstance(got, str)
