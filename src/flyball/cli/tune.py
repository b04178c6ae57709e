"""``flyball tune``: the cheapest settings that keep an objective on recorded load."""

from pathlib import Path

import click
import yaml

from flyball.errors import ConfigError


@click.command(
    "tune", epilog="Example: flyball tune hpa.yaml --trace requests.csv --capacity 24 --under 1 --write tuned.yaml"
)
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.option("--trace", "trace_path", type=click.Path(path_type=Path), required=True, help="A CSV file of load.")
@click.option("--compress", type=click.FloatRange(1, 1000), default=1.0, help="Run time so many times as fast.")
@click.option("--from", "begin", default="", help="Cut before this time (ISO 8601).")
@click.option("--to", "end", default="", help="Cut from this time on.")
@click.option("--capacity", type=click.FloatRange(min=1e-9), required=True, help="Units a second of one pod at 100 %.")
@click.option(
    "--busy", type=click.FloatRange(0.01, 1), default=0.7, show_default=True, help="Share a pod should carry."
)
@click.option("--startup", type=click.IntRange(1, 3600), default=30, show_default=True, help="Seconds until ready.")
@click.option(
    "--under", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Missing share of demand to keep, %."
)
@click.option("--write", "write_path", type=click.Path(path_type=Path), help="Write the manifest here.")
def command(
    manifest: Path,
    trace_path: Path,
    compress: float,
    begin: str,
    end: str,
    capacity: float,
    busy: float,
    startup: int,
    under: float,
    write_path: Path | None,
) -> None:
    """Try target, scale-down window and tolerance of an HPA; show the Pareto front and the cheapest that will do."""
    from flyball.cli.replay import progress_bars
    from flyball.kube.applying import read_manifests
    from flyball.replay.traces import read_trace
    from flyball.replay.tuning import cheapest, pareto, tune
    from flyball.replay.workload import Workload

    found = [
        obj
        for _, obj in read_manifests(manifest)
        if isinstance(obj, ConfigError) or obj["kind"] == "HorizontalPodAutoscaler"
    ]
    if not found:
        raise ConfigError(f"{manifest} holds no HorizontalPodAutoscaler to tune")
    if isinstance(found[0], ConfigError):
        raise found[0]
    trace = read_trace(trace_path, compress=compress, begin=begin, end=end)
    workload = Workload(capacity, busy, startup)
    with progress_bars("table") as told:
        candidates = tune(found[0], trace, workload, progress=told)
    best = cheapest(candidates, under)
    click.echo(f"{len(candidates)} settings tried; those that none beats in both:")
    click.echo(f"{'cost':>7} {'under %':>8} {'changes':>8}  setting")
    for candidate in pareto(candidates):
        scores, mark = candidate.result.scores, "  <- the cheapest that will do" if candidate is best else ""
        click.echo(f"{scores.cost:7.3f} {scores.theta_u:8.2f} {scores.changes:8d}  {candidate.changed}{mark}")
    click.echo("Assumed: " + "; ".join((*workload.assumptions(), *trace.notes)))
    if best is None:
        raise ConfigError(
            f"none keeps the missing share of demand at or below {under:g} %; raise --under, or lower the target"
        )
    if write_path is not None:
        write_path.write_text(yaml.safe_dump(best.manifest, sort_keys=False))
        click.echo(f"wrote {write_path}")
