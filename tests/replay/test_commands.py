"""flyball replay, flyball convert and flyball scale from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from flyball.cli.convert import command as convert
from flyball.cli.replay import command as replay
from flyball.cli.scale import command as scale
from flyball.cli.tune import command as tune
from flyball.errors import ConfigError
from flyball.replay.backtest import backtest
from flyball.replay.policies import read_policies
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload

METRIC = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
SPEC: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    "maxReplicas": 200,
    "metrics": [METRIC],
}
HPA = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "web", "uid": "x"},
    "spec": SPEC,
}


def governor(name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "flyball.dev/v1alpha1", "kind": "Governor", "metadata": {"name": name}, "spec": SPEC | fields}


def manifest(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(objects))
    return path


def trace_file(path: Path) -> Path:
    rows = [f"{1_700_000_000 + 60 * at},{6000 + 5000 * np.sin(at / 20):.0f}" for at in range(200)]
    path.write_text("\n".join(["time,count", *rows]) + "\n")
    return path


def test_replay_prints_scores_side_by_side_and_writes_a_report(tmp_path: Path) -> None:
    policies = manifest(tmp_path / "p.yaml", HPA, governor("fast", profile="fast", forecast={}))
    arguments = [str(policies), "--trace", str(trace_file(tmp_path / "t.csv")), "--capacity", "10", "--peer", "oracle"]
    page = tmp_path / "r.html"
    result = CliRunner().invoke(replay, [*arguments, "-o", "json", "--html", str(page)], catch_exceptions=False)
    printed = json.loads(result.output)
    scores = {entry["policy"]: entry for entry in printed["policies"]}
    assert set(scores) == {"web", "fast", "oracle"}
    assert scores["oracle"]["theta_u"] == 0 <= scores["fast"]["theta_u"] < scores["web"]["theta_u"]
    assert scores["web"]["speedup"] > 1 and scores["oracle"]["speedup"] is None  # infinite: it misses nothing
    html = page.read_text()
    assert html.count("<h3>") == 3 and "The worst half hour" in html and "a pod serves 10 units/s" in html
    shown = CliRunner().invoke(replay, arguments, catch_exceptions=False).output
    assert "fast: supply and demand" in shown and "a pod serves 10 units/s" in shown
    assert any("the forecast of fast has 3.3 h of history" in note for note in printed["assumed"])


def test_replay_says_what_to_do_about_wrong_input(tmp_path: Path) -> None:
    trace = trace_file(tmp_path / "t.csv")
    empty = manifest(tmp_path / "none.yaml", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}})
    typo = manifest(tmp_path / "typo.yaml", governor("g", profile="fats"))
    field = manifest(tmp_path / "field.yaml", governor("g", profil="fast"))
    lag = {"metric": {"name": "lag"}, "target": {"type": "Value", "value": "5"}}
    of_value = governor("g", metrics=[{"type": "External", "external": lag}])
    hpa = manifest(tmp_path / "hpa.yaml", HPA)
    deep = governor("g", behavior={"scaleDown": {"stabilisationWindowSeconds": 30}})
    inside = governor("g", forecast={"startupSecond": 30})
    for arguments, wanted in (
        ([str(empty)], "holds no HorizontalPodAutoscaler.*; it holds Service"),
        ([str(manifest(tmp_path / "deep.yaml", deep))], 'unknown field "spec.behavior.scaleDown.stabilisationWindowS'),
        ([str(manifest(tmp_path / "in.yaml", inside))], 'startupSecond"; spec.forecast.startupSeconds is meant'),
        ([str(manifest(tmp_path / "most.yaml", governor("g", maxReplicas=0)))], "spec.maxReplicas: Invalid value: 0"),
        ([str(typo)], 'spec.profile: Unsupported value: "fats"'),
        ([str(field)], 'unknown field "spec.profil"; spec.profile is meant?'),
        ([], "nothing to try"),
        (["--peer", "luck"], 'peer "luck" is unknown'),
        ([str(manifest(tmp_path / "value.yaml", of_value))], "lag has a target of type Value.*try averageValue"),
        ([str(hpa), "--prometheus", "http://127.0.0.1:1"], "--trace and --prometheus: name one of"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            CliRunner().invoke(replay, [*arguments, "--trace", str(trace), "--capacity", "1"], catch_exceptions=False)
    for arguments, wanted in (
        ([], "no load: name one of --trace FILE, --prometheus URL and --store DIR"),
        (["--store", str(tmp_path)], "say what the load is, as with --query"),
        (["--store", str(tmp_path), "--query", "up"], "holds no samples"),
        (["--trace", str(trace), "--from", "soon"], "--from: 'soon' is not a time"),
        (["--trace", str(trace), "--from", "2030-01-01"], "its rows are from 2023-11-14T22:13:20Z to 2023-11-15"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            CliRunner().invoke(replay, [str(hpa), "--capacity", "1", *arguments], catch_exceptions=False)


def test_a_schedule_and_a_forecast_floor_hold_in_a_backtest(tmp_path: Path) -> None:
    hours = {"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 50}
    objects = [
        governor("calendar", schedule=[hours]),
        governor("both", schedule=[hours], profile="fast"),
        governor("ahead", forecast={}),
    ]
    policies = read_policies([manifest(tmp_path / "p.yaml", *objects)])
    start_ms = 1_700_033_400_000  # 2023-11-15T07:30:00Z
    trace = Trace("flat", start_ms, np.full(2 * 3600, 100.0))
    calendar, both, ahead = backtest(policies, trace, Workload(capacity=10))
    eight = 1800
    for result in (calendar, both):
        assert result.desired[eight - 120] < 20 and (result.desired[eight + 60 : eight + 3600] >= 50).all()
        assert result.desired[-1] < 20
    assert (ahead.desired >= 15).all() and ahead.scores.theta_u < 2


def test_convert_keeps_the_spec_and_drops_what_the_server_wrote(tmp_path: Path) -> None:
    path = manifest(tmp_path / "hpa.yaml", HPA)
    output = CliRunner().invoke(convert, [str(path), "--profile", "fast", "--shadow"], catch_exceptions=False).output
    assert yaml.safe_load(output) == governor("web", profile="fast", shadow=True)
    old = manifest(tmp_path / "old.yaml", HPA | {"apiVersion": "autoscaling/v1"})
    with pytest.raises(ConfigError, match="is autoscaling/v1"):
        CliRunner().invoke(convert, [str(old)], catch_exceptions=False)


def test_convert_refuses_what_no_server_would_take(tmp_path: Path) -> None:
    target = {"type": "Utilization", "averageUtilisation": 70}
    typo = HPA | {"spec": SPEC | {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}}
    text = HPA | {"spec": SPEC | {"maxReplicas": "ten"}}
    for hpa, message in (
        (typo, r'"spec\.metrics\[0\]\.resource\.target\.averageUtilisation"'),
        (text, "maxReplicas: Inv"),
    ):
        path = manifest(tmp_path / "hpa.yaml", hpa)
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(convert, [str(path)], catch_exceptions=False)


def test_scale_wants_a_number_or_auto() -> None:
    for arguments in (["web"], ["web", "--replicas", "3", "--auto"]):
        with pytest.raises(ConfigError, match="either --replicas N or --auto"):
            CliRunner().invoke(scale, arguments, catch_exceptions=False)


def test_tune_shows_the_front_and_writes_the_cheapest_that_will_do(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + 60 * at},{6000 + 5000 * np.sin(at / 8):.0f}" for at in range(45)]
    trace = tmp_path / "t.csv"
    trace.write_text("\n".join(["time,count", *rows]) + "\n")
    path, tuned = manifest(tmp_path / "hpa.yaml", HPA), tmp_path / "tuned.yaml"
    arguments = [str(path), "--trace", str(trace), "--capacity", "10", "--write", str(tuned)]
    output = CliRunner().invoke(tune, [*arguments, "--under", "2"], catch_exceptions=False).output
    front = [line.split()[:2] for line in output.splitlines() if "target" in line and "cost" not in line]
    costs, unders = [float(cost) for cost, _ in front], [float(under) for _, under in front]
    assert costs == sorted(costs) and unders == sorted(unders, reverse=True) and len(front) > 2
    chosen = next(line for line in output.splitlines() if "cheapest that will do" in line)
    assert float(chosen.split()[1]) <= 2
    written = yaml.safe_load(tuned.read_text())
    assert str(written["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]) in chosen
    assert read_policies([tuned])[0].name == "web"
    page = tmp_path / "t.html"
    CliRunner().invoke(tune, [*arguments, "--latency", "3", "--html", str(page)], catch_exceptions=False)
    assert page.read_text().count("<circle") == 84
    with pytest.raises(ConfigError, match="none keeps the objective; the least that is missing is"):
        CliRunner().invoke(tune, [*arguments, "--under", "0", "--startup", "600"], catch_exceptions=False)


def test_a_heavier_model_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.scaling.governor.find_spec", lambda _: None)
    wants = manifest(tmp_path / "p.yaml", governor("ahead", profile="fast", forecast={"model": "holt-winters"}))
    with pytest.raises(ConfigError, match=r"p.yaml.*ahead: spec.forecast.model: .*pip install 'flyball\[forecast\]'"):
        read_policies([wants])


@pytest.mark.parametrize("profile", ["fast", "parity"])
def test_replay_tries_holt_winters(tmp_path: Path, profile: str) -> None:
    pytest.importorskip("statsmodels", reason="the extra forecast is not installed")
    at = np.arange(5 * 1440)  # minutes of five days: what each brings is only to be known from those before
    rate = 100 + 60 * np.sin(2 * np.pi * at / 1440) + 120 * (at % 1440 > 1320)
    rows = [f"{1_700_000_000 + 60 * minute},{60 * value:.0f}" for minute, value in enumerate(rate.tolist())]
    trace = tmp_path / "t.csv"
    trace.write_text("\n".join(["time,count", *rows]) + "\n")
    ahead = {"startupSeconds": 60}
    policies = manifest(
        tmp_path / "p.yaml",
        governor("plain", profile=profile, forecast=ahead),
        governor("heavy", profile=profile, forecast={**ahead, "model": "holt-winters"}),
    )
    arguments = [str(policies), "--trace", str(trace), "--compress", "10", "--capacity", "5", "--startup", "60"]
    printed = json.loads(CliRunner().invoke(replay, [*arguments, "-o", "json"], catch_exceptions=False).output)
    plain, heavy = printed["policies"]
    assert heavy["theta_u"] <= 1.05 * plain["theta_u"] and heavy != {**plain, "policy": "heavy"}
    assert any("holt-winters of heavy is fitted every 0.2 h" in note for note in printed["assumed"])
