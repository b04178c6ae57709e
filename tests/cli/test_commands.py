import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from flyball.cli import COMMANDS, main
from flyball.cli.demo import EXAMPLES, Wave, find_example
from flyball.cli.explain import render
from flyball.cli.up import check_ports
from flyball.errors import ConfigError
from flyball.supervisor import lock_data_dir

VISIBLE = [name for name, about in COMMANDS.items() if about]


@pytest.mark.parametrize("name", VISIBLE)
def test_every_command_has_help_with_an_example(name: str) -> None:
    answer = CliRunner().invoke(main, [name, "--help"])
    assert answer.exit_code == 0
    assert "Example: " in answer.output


def test_the_kubeconfig_of_a_cluster_that_never_ran_is_refused_with_the_remedy(tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["kubeconfig", "--data-dir", str(tmp_path)])
    assert answer.exit_code == 2
    assert "run flyball up first" in answer.output


def test_the_kubeconfig_is_printed(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("kind: Config\n")
    assert CliRunner().invoke(main, ["kubeconfig", "--data-dir", str(tmp_path)]).output == "kind: Config\n"


def test_a_taken_port_is_named_with_its_part_and_the_remedy() -> None:
    with socket.socket() as taken:
        for offset in range(30_000, 40_000, 97):
            try:
                taken.bind(("127.0.0.1", 9090 + offset))
                break
            except OSError:
                continue
        taken.listen()
        with pytest.raises(ConfigError, match=rf"port {9090 + offset} \(Prometheus API\).*--port-offset"):
            check_ports(offset)


def test_two_flyballs_do_not_share_a_data_directory(tmp_path: Path) -> None:
    lock_data_dir(tmp_path / "data")
    with pytest.raises(ConfigError, match="in use by another flyball"):
        lock_data_dir(tmp_path / "data")


def test_a_data_directory_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/data.*--data-dir"):
        lock_data_dir(tmp_path / "file" / "data")


@pytest.mark.parametrize("name", ["data", "data/node"])
def test_a_read_only_data_directory_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As an ordinary user meets it; root may write everywhere, so that the answer of the system is told here."""
    (tmp_path / "data" / "node").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name}: Permission denied; make it writable.*--data-dir"):
        lock_data_dir(tmp_path / "data")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_demo_exist(name: str) -> None:
    assert list(find_example(name).glob("*.yaml"))


def test_the_wave_is_low_then_high_then_low() -> None:
    wave = Wave(EXAMPLES["webapp"], 100.0)
    low, high = wave.example.low_rate, wave.example.high_rate
    assert [wave.rate(at) for at in (0, 14.9, 15, 74.9, 75, 99)] == [low, low, high, high, low, low]


def test_explain_shows_every_number_of_a_decision() -> None:
    decision = {
        "namespace": "default",
        "name": "webapp",
        "at_ms": 0,
        "current": 2,
        "desired": 4,
        "min_replicas": 2,
        "max_replicas": 4,
        "reason": "pods metric rps above target",
        "profile": "1.37",
        "metrics": [
            {
                "type": "Pods",
                "metric": "rps",
                "name": "pods metric rps",
                "target": {"average_value": 20_000},
                "usage": 55_500,
                "ratio": 2.775,
                "tolerance_low": 0.9,
                "tolerance_high": 1.1,
                "values": {"a": 55_000, "b": 56_000},
                "pods": {"ready": ["a", "b"]},
                "proposal": 6,
            }
        ],
        "clamps": [{"rule": "bounds", "before": 6, "after": 4, "reason": "TooManyReplicas", "message": "more"}],
    }
    text = render(json.loads(json.dumps(decision)))
    for number in ("scale 2 → 4", "55.5 against 20", "ratio 2.775", "0.9 to 1.1", "a 55", "2 ready", "6", "6 → 4"):
        assert number in text
