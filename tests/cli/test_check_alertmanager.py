"""``flyball check alertmanager``."""

from pathlib import Path

from click.testing import CliRunner

from flyball.cli import main

RIGHT = """
route: {receiver: team, routes: [{receiver: pager, matchers: [severity="critical"]}]}
receivers: [{name: team, webhook_configs: [{url: http://hook/}]}, {name: pager, opsgenie_configs: [{api_key: x}]}]
templates: ["*.tmpl"]
"""
WRONG = """
route: {receiver: team, group_interval: 0s, routes: [{receiver: gone, matchers: ["=x"]}]}
receivers: [{name: team, webhook_configs: [{url: http://hook/, max_alert: 3}]}]
inhibit_rules: [{equal: job}]
"""


def check(file: Path) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["check", "alertmanager", str(file)])
    return found.exit_code, found.output


def test_says_what_there_is_and_what_will_not_work(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(RIGHT)
    (tmp_path / "a.tmpl").write_text('{{ define "a" }}')
    code, output = check(file)
    assert code == 3 and f"{file}: OK, 2 routes, 2 receivers, 2 integrations, 0 inhibit rules" in output
    assert "receivers[1]: opsgenie_configs[0]: opsgenie is not built in; send to it through webhook_configs" in output
    assert f"{tmp_path}/a.tmpl:" in output


def test_says_every_error_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(WRONG)
    code, output = check(file)
    assert code == 1
    for error in (
        'receivers[0]: webhook_configs[0]: unknown field "max_alert"; remove it or check its spelling',
        "route: group_interval: must be more than zero",
        "inhibit_rules[0]: equal: must be a list of text",
    ):
        assert f"{file}: {error}" in output
