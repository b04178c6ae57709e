"""``flyball process``, which ``flyball up`` starts."""

import gc

import pytest
from click.testing import CliRunner

import flyball.app
from flyball.cli.process import command


def test_a_process_that_holds_thousands_of_objects_collects_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    during: list[tuple[str, int]] = []
    monkeypatch.setattr(
        flyball.app, "run_process", lambda name, _settings: during.append((name, gc.get_threshold()[0]))
    )
    try:
        result = CliRunner().invoke(command, ["control"])
        assert (result.exit_code, during) == (0, [("control", 50_000)])
    finally:
        gc.set_threshold(*before)
