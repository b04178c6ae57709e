"""The rules of kube-prometheus, as its PrometheusRule objects carry them."""

import os
from pathlib import Path

import msgspec
import pytest

from flyball.model.yaml_loader import load_all_yaml
from flyball.rules.rulefiles import AlertingRule, parse_rule_file

MANIFESTS = Path(os.environ.get("FLYBALL_SHARED", Path(__file__).parents[3] / "shared")) / "kube-prometheus"


@pytest.mark.skipif(not MANIFESTS.is_dir(), reason="shared data not found")
def test_every_group_is_read() -> None:
    groups = []
    for path in sorted(MANIFESTS.glob("*rometheusRule.yaml")):
        for document in load_all_yaml(path.read_bytes(), path.name):
            groups += parse_rule_file(msgspec.json.encode(document["spec"]), path.name)
    rules = [rule for group in groups for rule in group.rules]
    alerts = [rule for rule in rules if isinstance(rule, AlertingRule)]
    assert (len(groups), len(alerts), len(rules) - len(alerts)) == (38, 139, 95)
