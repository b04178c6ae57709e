"""Flags of ``flyball alertmanager``."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flyball.alerting.standalone import StandaloneSettings, first, in_force
from flyball.cli import main
from flyball.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--web.config.file={file}"], "tls_server_config: is not supported; put a proxy that does it in front"),
        (["--cluster.tls-config={file}"], "tls_server_config: is not supported"),
        (["--web.config.file=none.yml"], "none.yml: No such file or directory"),
        (["--config.file=none.yml"], "none.yml: No such file or directory; name the file that is meant"),
        (["--web.listen-address=9093"], "is not a host:port"),
        (["--data.retention=soon"], "is not a duration"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_what_cannot_be_done_is_refused_at_start(tmp_path: Path, arguments: list[str], error: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: a, key_file: b}\n")
    found = CliRunner().invoke(main, ["alertmanager", *(one.format(file=file) for one in arguments)])
    assert found.exit_code == 2 and error in found.output


def test_flags_without_effect_are_named(tmp_path: Path) -> None:
    arguments = ["--alerts.gc-interval=1m", "--cluster.label", "x", f"--config.file={tmp_path}/none.yml"]
    found = CliRunner().invoke(main, ["alertmanager", *arguments])
    assert "without effect here: --alerts.gc-interval, --cluster.label" in found.output


def test_what_the_operator_made_is_in_force_while_it_is_there(tmp_path: Path) -> None:
    def config(receiver: str) -> str:
        return f"route: {{receiver: {receiver}}}\nreceivers: [{{name: {receiver}}}]\n"

    (tmp_path / "alertmanager.yml").write_text(config("own"))
    generated = tmp_path / "generated"
    unset: dict[str, Any] = {field.name: None for field in dataclasses.fields(StandaloneSettings)}
    given = {"config_file": tmp_path / "alertmanager.yml", "features": (), "generated": generated}
    settings = StandaloneSettings(**unset | given)

    def receiver() -> str:
        return in_force(settings)[0].route.receiver

    assert receiver() == "own" and first(settings)[0].route.receiver == "own"  # the operator has made nothing yet
    generated.mkdir()
    (generated / "alertmanager.yaml").write_text(config("generated"))
    assert receiver() == "generated" and first(settings)[0].route.receiver == "generated"
    (generated / "alertmanager.yaml").write_text("route: {}\n")
    with pytest.raises(ConfigError, match=r"alertmanager\.yaml"):  # while it runs: what was in force stays
        receiver()
    assert first(settings)[0].route.receiver == "own"
    (generated / "alertmanager.yaml").unlink()
    assert receiver() == "own"
