"""``flyball operator render`` on manifests."""

from pathlib import Path

import yaml
from click.testing import CliRunner

from flyball.cli.operator import command

MANIFESTS = """
apiVersion: v1
kind: Secret
metadata: {name: login}
data: {user: bWU=, password: aHVudGVyMg==}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: right}
spec:
  selector: {matchLabels: {app: web}}
  endpoints:
    - port: http
      basicAuth: {username: {name: login, key: user}, password: {name: login, key: password}}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: wrong}
spec:
  selector: {}
  endpoints: [{port: http, interval: soon}]
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {ports: [{name: metrics, port: 80}]}
"""


def test_render_prints_what_objects_become_and_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    result = CliRunner().invoke(command, ["render", "-f", str(tmp_path)])
    assert result.exit_code == 1
    assert 'refused: ServiceMonitor default/wrong: spec.endpoints[0].interval: "soon"' in result.stderr
    (job,) = yaml.safe_load(result.stdout)["scrape_configs"]
    assert job["job_name"] == "serviceMonitor/default/right/0"
    assert job["basic_auth"] == {"username": "me", "password": "<secret>"} and "hunter2" not in result.stdout


def test_render_of_one_says_whether_it_finds_targets(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    result = CliRunner().invoke(command, ["render", "servicemonitor/default/right", "-f", str(tmp_path)])
    assert 'targets: port http: no target; no port is named "http" in Service default/web (metrics)' in result.stderr
    missing = CliRunner().invoke(command, ["render", "servicemonitor/default/none", "-f", str(tmp_path)])
    assert 'there is no "servicemonitor/default/none"' in str(missing.exception)
