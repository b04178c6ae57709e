"""``flyball test``: unit tests of configuration."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flyball.errors import ConfigError


@click.group("test", epilog="Example: flyball test rules alerts_test.yml")
def command() -> None:
    """Run unit tests of configuration."""


@command.command("rules", epilog="Example: flyball test rules alerts_test.yml --run 'Disk.*'")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run", "only", default="", metavar="REGEX", help="Only tests whose name matches.")
@click.option("--ignore-unknown-fields", is_flag=True, help="Fields of rule files that are not known are no error.")
def rules(files: tuple[Path, ...], only: str, ignore_unknown_fields: bool) -> None:
    """Run promtool's unit-test files for alerting and recording rules.

    The exit code is 1 when a test fails.
    """
    failed = 0
    for file in files:
        click.echo(f"Unit Testing: {file}")
        try:
            failures = _run(file, only, ignore_unknown_fields)
        except ConfigError as exc:
            failures = (str(exc),)
        for failure in failures:
            click.echo("    " + failure.replace("\n", "\n    "), err=True)
        click.echo(f"  FAILED: {len(failures)}" if failures else "  SUCCESS")
        failed += bool(failures)
    raise SystemExit(1 if failed else 0)


def _run(file: Path, only: str, ignore_unknown_fields: bool) -> tuple[str, ...]:
    from flyball.model.yaml_loader import load_yaml
    from flyball.rules.rulefiles import parse_rule_file
    from flyball.rules.unittests import run_unit_tests

    document = load_yaml(file.read_bytes(), str(file))
    groups: list[Any] = []
    patterns = document.get("rule_files") or () if isinstance(document, Mapping) else ()
    for pattern in patterns:
        found = sorted(glob.glob(str(file.parent / str(pattern))))
        if not found:
            click.echo(f"  WARNING: no file matches {pattern}", err=True)
        for path in found:
            groups += parse_rule_file(Path(path).read_bytes(), path, ignore_unknown_fields=ignore_unknown_fields)
    return run_unit_tests(document, groups, str(file), only).failures
