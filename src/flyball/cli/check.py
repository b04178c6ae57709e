"""``flyball check``: files and pages, without a server."""

import sys
from pathlib import Path
from typing import BinaryIO

import click

from flyball.errors import ConfigError, ScrapeError

#: Exit code of what works but should be better, as promtool's.
LINT = 3


@click.group("check", epilog="Example: flyball check config prometheus.yml")
def command() -> None:
    """Check a configuration or a page of metrics.

    The exit code is 0 when all is right, 1 when something is wrong, 3 when it works but should be better.
    """


@command.command("config", epilog="Example: flyball check config prometheus.yml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
def config(files: tuple[Path, ...]) -> None:
    """Check prometheus.yml files with the rule files and jobs that they name."""
    from flyball.server import load, without_effect

    failed = False
    for file in files:
        try:
            loaded = load(file)
        except ConfigError as exc:
            click.echo(f"{file}: FAILED")
            for line in str(exc).splitlines():
                click.echo(f"  {line}", err=True)
            failed = True
            continue
        rules = sum(len(group.rules) for group in loaded.groups)
        click.echo(f"{file}: OK, {len(loaded.jobs)} jobs, {len(loaded.groups)} rule groups, {rules} rules")
        for name in without_effect(loaded):
            click.echo(f"  {name} is accepted and has no effect here")
    sys.exit(1 if failed else 0)


@command.command("alertmanager", epilog="Example: flyball check alertmanager alertmanager.yml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
def alertmanager(files: tuple[Path, ...]) -> None:
    """Check alertmanager.yml files with the templates that they name."""
    from flyball.alerting.loading import load

    code = 0
    for file in files:
        try:
            config, _ = load(file)
        except ConfigError as exc:
            click.echo(f"{file}: FAILED")
            for line in str(exc).splitlines():
                click.echo(f"  {line}", err=True)
            code = 1
            continue
        routes, integrations = list(config.route.walk()), [one.integrations for one in config.receivers.values()]
        counts = f"{len(routes)} routes, {len(integrations)} receivers, {sum(map(len, integrations))} integrations"
        click.echo(f"{file}: OK, {counts}, {len(config.inhibit_rules)} inhibit rules")
        for problem in config.problems:
            click.echo(f"  {problem}", err=True)
            code = code or LINT
    sys.exit(code)


@command.command("metrics", epilog="Example: curl -s http://127.0.0.1:8080/metrics | flyball check metrics")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "text", "openmetrics"]),
    default="auto",
    show_default=True,
    help="What the page is; auto: OpenMetrics when it ends with # EOF.",
)
def metrics(file: BinaryIO, format_: str) -> None:
    """Check a page of metrics from a file or standard input."""
    from flyball.exposition import Format, parse, parse_series
    from flyball.exposition.lint import lint

    body: bytes = file.read()
    if format_ == "auto":
        format_ = "openmetrics" if body.rstrip(b"\n").endswith(b"# EOF") else "text"
    try:
        exposition = parse(body, Format(format_))
        for text, type_ in zip(exposition.series, exposition.types, strict=True):
            parse_series(text, type_)
    except ScrapeError as exc:
        click.echo(f"{exc}", err=True)
        sys.exit(1)
    problems = lint(exposition) if format_ == "text" else []
    for name, problem in problems:
        click.echo(f"{name} {problem}", err=True)
    click.echo(f"{len(exposition.series)} samples of {len(exposition.metadata)} families")
    sys.exit(LINT if problems else 0)


@command.command("rules", epilog="Example: flyball check rules alerts.yml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))
def rules(files: tuple[Path, ...]) -> None:
    """Check files of alerting and recording rules."""
    from flyball.rules.rulefiles import duplicates, parse_rule_file

    code = 0
    for file in files:
        try:
            groups = parse_rule_file(file.read_bytes(), str(file))
        except ConfigError as exc:
            click.echo(f"{file}: FAILED")
            for line in str(exc).splitlines():
                click.echo(f"  {line}", err=True)
            code = 1
            continue
        click.echo(f"{file}: OK, {len(groups)} rule groups, {sum(len(group.rules) for group in groups)} rules")
        for name, labels in duplicates(groups):
            shown = ", ".join(f"{label}={value}" for label, value in labels)
            click.echo(f"  {name} {{{shown}}}: is there more than once; give one another name or label", err=True)
            code = code or LINT
    sys.exit(code)
