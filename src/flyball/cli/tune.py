"""``flyball tune``: the cheapest settings that keep an objective on recorded load."""

from pathlib import Path
from typing import Any

import click
import yaml

from flyball.cli.load import load_of, load_options, progress_bars, workload_of
from flyball.errors import ConfigError


@click.command(
    "tune", epilog="Example: flyball tune hpa.yaml --trace requests.csv --capacity 24 --under 1 --write tuned.yaml"
)
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@load_options
@click.option(
    "--under", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Missing share of demand to keep, %."
)
@click.option("--time-under", type=click.FloatRange(0, 100), default=100.0, help="Share of time with any missing, %.")
@click.option("--latency", type=click.FloatRange(1), default=float("inf"), help="Mean response time, in service times.")
@click.option("--hpa-only", is_flag=True, help="Try no Governors of profile fast.")
@click.option("--write", "write_path", type=click.Path(path_type=Path), help="Write the manifest here.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a report with a plot of all.")
def command(
    manifest: Path,
    under: float,
    time_under: float,
    latency: float,
    hpa_only: bool,
    write_path: Path | None,
    html_path: Path | None,
    **given: Any,
) -> None:
    """Find the cheapest settings of an HPA or Governor that keep an objective on recorded load.

    Tries target, scale-down window and tolerance, and Governors of profile fast; shows the Pareto front of cost and
    missing demand, and marks the cheapest that keeps --under, --time-under and --latency.
    """
    from flyball.kube.applying import read_manifests
    from flyball.kube.kinds import GOVERNORS
    from flyball.replay.backtest import notes
    from flyball.replay.policies import policy_of
    from flyball.replay.tuning import Objective, cheapest, pareto, tune

    kinds = ("HorizontalPodAutoscaler", GOVERNORS.kind)
    found = [obj for _, obj in read_manifests(manifest) if isinstance(obj, ConfigError) or obj["kind"] in kinds]
    if not found:
        raise ConfigError(f"{manifest} holds no HorizontalPodAutoscaler and no Governor to tune")
    if isinstance(found[0], ConfigError):
        raise found[0]
    if len(found) > 1:
        names = ", ".join(str(obj["metadata"]["name"]) for obj in found if not isinstance(obj, ConfigError))
        raise ConfigError(f"{manifest} holds {len(found)} policies ({names}); tune one at a time")
    workload, objective = workload_of(given), Objective(under, time_under, latency)
    policy_of(found[0])  # says what is wrong before the load is read
    with progress_bars() as told:
        trace = load_of(given, told)
        candidates = tune(found[0], trace, workload, given["period"], told, governors=not hpa_only)
    best, front = cheapest(candidates, objective), pareto(candidates)
    shown = front if best is None or best in front else [*front, best]
    click.echo(f"{len(candidates)} settings tried; those that none beats in both cost and missing demand:\n")
    click.echo(f"{'cost':>7} {'under %':>8} {'time under %':>13} {'latency':>8} {'changes':>8}  setting")
    for candidate in sorted(shown, key=lambda c: c.result.scores.cost):
        scores, mark = candidate.result.scores, "  <- the cheapest that will do" if candidate is best else ""
        click.echo(
            f"{scores.cost:7.3f} {scores.theta_u:8.2f} {scores.tau_u:13.1f} {candidate.result.latency:8.2f} "
            f"{scores.changes:8d}  {candidate.changed}{mark}"
        )
    assumed = notes([policy_of(candidate.manifest) for candidate in (candidates[0], candidates[-1])], trace,
                    workload, given["period"])  # fmt: skip
    click.echo("\nAssumed:\n" + "\n".join(f"  {note}" for note in assumed))
    if html_path is not None:
        from flyball.replay.report import tuning_report

        _write(html_path, tuning_report(candidates, front, best, trace, assumed), "--html")
    if best is None:
        least = min(candidates, key=lambda c: c.result.scores.theta_u)
        raise ConfigError(
            f"none keeps the objective; the least that is missing is {least.result.scores.theta_u:.2f} % "
            f"({least.changed}): raise --under, --time-under or --latency, or give a manifest with a lower target"
        )
    if write_path is not None:
        _write(write_path, yaml.safe_dump(best.manifest, sort_keys=False), "--write")


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}; name another file with {option}") from error
    click.echo(f"wrote {path}")
