"""``flyball explain``."""

import asyncio
import json
from typing import Any

import click

from flyball.cli.options import output_option
from flyball.errors import NotFoundError, UpstreamError


@click.group("explain", epilog="Example: flyball explain hpa webapp")
def command() -> None:
    """Say why a workload has the replicas it has."""


@command.command("hpa", epilog="Example: flyball explain hpa webapp -n default --limit 3")
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many decisions.")
@click.option("--url", default="http://127.0.0.1:9090", show_default=True, help="Flyball's own HTTP API.")
@output_option
def hpa(name: str, namespace: str, limit: int, url: str, output: str) -> None:
    """The last decisions about an HPA, with every number that led to them."""
    decisions = asyncio.run(_fetch(url, namespace, name, limit))
    if output == "json":
        click.echo(json.dumps(decisions, indent=2))
        return
    if not decisions:
        raise NotFoundError(
            f'no decision about HorizontalPodAutoscaler "{namespace}/{name}" is recorded; '
            f"check its name, or ask flyball doctor hpa {name}"
        )
    for decision in reversed(decisions):
        click.echo(render(decision))


async def _fetch(url: str, namespace: str, name: str, limit: int) -> list[dict[str, Any]]:
    from flyball.http.client import get_json, new_session

    parameters = {"namespace": namespace, "name": name, "limit": str(limit)}
    address = f"{url.rstrip('/')}/api/flyball/v1/decisions"
    try:
        async with new_session(timeout_s=10) as session:
            items: list[dict[str, Any]] = (await get_json(session, address, parameters))["items"]
            return items
    except (UpstreamError, KeyError) as exc:
        raise UpstreamError(f"{exc}; is flyball up running there? (--url)") from exc


def render(item: dict[str, Any]) -> str:
    """One decision in words: what was read, what was proposed, what clamped it, what was written."""
    from flyball.clock import rfc3339

    decision = item.get("decision", item)
    current, desired = decision["current"], decision["desired"]
    verb = "hold at" if current == desired else f"scale {current} →"
    head = f"{rfc3339(decision['at_ms'])}  {verb} {desired}"
    if decision.get("reason"):
        head += f"  ({decision['reason']})"
    if item.get("count", 1) > 1:
        head += f"  [the same {item['count']} times]"
    lines = [head]
    if decision.get("metrics_skipped"):
        lines.append(f"  metrics were not read: {decision['metrics_skipped']}")
    for metric in decision.get("metrics", ()):
        lines.extend(_metric_lines(metric))
    for clamp in decision.get("clamps", ()):
        lines.append(f"  {clamp['rule']}: {clamp['before']} → {clamp['after']}  {clamp['reason']}: {clamp['message']}")
    if decision.get("error"):
        lines.append(f"  error: {decision['error']}")
    lines.append(f"  bounds {decision['min_replicas']} to {decision['max_replicas']}, profile {decision['profile']}")
    return "\n".join(lines)


def _metric_lines(metric: dict[str, Any]) -> list[str]:
    from flyball.clock import rfc3339

    name = metric.get("name") or metric["metric"]
    if metric.get("error"):
        return [f"  {name}: {metric['error']}"]
    target = metric.get("target", {})
    if metric.get("utilization") is not None:
        against = f"{metric['utilization']}% against {target.get('average_utilization')}%"
    else:
        wanted = target.get("average_value") if target.get("average_value") is not None else target.get("value")
        against = f"{_milli(metric.get('usage'))} against {_milli(wanted)}"
    lines = [f"  {name}: {against}"]
    if metric.get("sample_ms"):
        lines[0] += f", sampled {rfc3339(metric['sample_ms'])}"
    if metric.get("ratio") is not None:
        band = f"{metric['tolerance_low']:.3g} to {metric['tolerance_high']:.3g}" if metric.get("tolerance_low") else ""
        text = f"    ratio {metric['ratio']:.4g}"
        if metric.get("adjusted_ratio") is not None and metric["adjusted_ratio"] != metric["ratio"]:
            text += f", {metric['adjusted_ratio']:.4g} after filling in"
        lines.append(f"{text}; no change from {band}" if band else text)
    if metric.get("values"):
        values = ", ".join(f"{pod} {_milli(value)}" for pod, value in list(metric["values"].items())[:10])
        more = len(metric["values"]) - 10
        lines.append(f"    values {values}{f' and {more} more' if more > 0 else ''}")
    groups = metric.get("pods", {})
    counts = [f"{len(groups[g])} {g}" for g in ("ready", "unready", "missing", "ignored") if groups.get(g)]
    if counts:
        lines.append(f"    pods {', '.join(counts)}")
    lines.append(f"    proposes {metric.get('proposal')}{': ' + metric['rule'] if metric.get('rule') else ''}")
    return lines


def _milli(value: int | None) -> str:
    if value is None:
        return "unknown"
    return str(value // 1000) if value % 1000 == 0 else f"{value / 1000:g}"
