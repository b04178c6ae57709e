"""Flags of ``flyball alertmanager``."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flyball.cli import main


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
