"""``flyball explain``."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import click

from flyball.cli.options import output_option
from flyball.errors import NotFoundError, UpstreamError


@click.group("explain", epilog="Example: flyball explain hpa webapp")
def command() -> None:
    """Say why a workload has the replicas it has."""


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.argument("name"),
        click.option("-n", "--namespace", default="default", show_default=True),
        click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many decisions."),
        click.option("--at", default="", help="As of this time (ISO 8601).  [default: now]"),
        click.option("--why-not", is_flag=True, help="Say what more or fewer replicas would take."),
        click.option("--url", default="http://127.0.0.1:9090", show_default=True, help="Flyball's own HTTP API."),
        output_option,
    ):
        function = option(function)
    return function


@command.command("hpa", epilog="Example: flyball explain hpa webapp -n default --at 2026-11-21T17:00:00Z --why-not")
@_options
def hpa(**given: Any) -> None:
    """The last decisions about an HPA, with every number that led to them."""
    _explain("HorizontalPodAutoscaler", given["name"], given)


@command.command("governor", epilog="Example: flyball explain governor webapp --limit 3")
@_options
def governor(**given: Any) -> None:
    """The last decisions about a Governor, with every number that led to them."""
    _explain("Governor", f"governor/{given['name']}", given)


def _explain(kind: str, key: str, given: dict[str, Any]) -> None:
    name, namespace, output = given["name"], given["namespace"], given["output"]
    limit = 1 if given["at"] or given["why_not"] else given["limit"]
    decisions = asyncio.run(_fetch(given["url"], namespace, key, limit, given["at"]))
    if output == "json":
        click.echo(json.dumps(decisions, indent=2))
        return
    if not decisions:
        raise NotFoundError(
            f'no decision about {kind} "{namespace}/{name}" is recorded{" by then" if given["at"] else ""}; '
            f"check its name, or ask flyball doctor hpa {name}"
        )
    for decision in reversed(decisions):
        click.echo(render(decision))
        if given["why_not"]:
            click.echo("\n".join(why_not(decision)))


async def _fetch(url: str, namespace: str, name: str, limit: int, at: str = "") -> list[dict[str, Any]]:
    from flyball.http.client import get_json, new_session

    parameters = {"namespace": namespace, "name": name, "limit": str(limit)}
    if at:
        parameters["at"] = at
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
    if decision.get("failed") and not current and not desired:  # nothing was read, so the sizes say nothing
        head = f"{rfc3339(decision['at_ms'])}  decides nothing"
    if decision.get("reason"):
        head += f"  ({decision['reason']})"
    if item.get("count", 1) > 1:
        head += f"  [the same {item['count']} times since {rfc3339(item['first_ms'])}]"
    lines = [head]
    if decision.get("metrics_skipped"):
        lines.append(f"  metrics were not read: {decision['metrics_skipped']}")
    lines.extend(_governed_lines(decision.get("governed") or {}))
    for metric in decision.get("metrics", ()):
        lines.extend(_metric_lines(metric))
    for clamp in decision.get("clamps", ()):
        lines.append(f"  {clamp['rule']}: {clamp['before']} → {clamp['after']}  {clamp['reason']}: {clamp['message']}")
    if decision.get("error"):
        lines.append(f"  error: {decision['error']}")
    if current != desired and "outcome" in item:
        lines.append(f"  {_written(item['outcome'], decision)}")
    lines.append(f"  bounds {decision['min_replicas']} to {decision['max_replicas']}, profile {decision['profile']}")
    if item.get("reproduced") is False:
        lines.append("  its inputs do not lead to it any more: another version decided")
    return "\n".join(lines)


def _written(outcome: str | None, decision: dict[str, Any]) -> str:
    if outcome is None:
        shadow = (decision.get("governed") or {}).get("shadow")
        why = "a shadow does not write" if shadow else "left to the stock controller, or its end is not known"
        return f"not written: {why}"
    return f"write of {decision['desired']} replicas failed: {outcome}" if outcome else "written to the scale, accepted"


def _governed_lines(governed: dict[str, Any]) -> list[str]:
    lines = []
    if governed.get("shadow"):
        lines.append("  in the shadow: decided and recorded, not acted upon")
    if governed.get("override"):
        lines.append(f"  {governed['override']}")
    if governed.get("rules"):
        lines.append(f"  schedule in force: {', '.join(governed['rules'])}")
    if governed.get("demand") is not None:
        lines.append(f"  demand {governed['demand']:.2f} replicas")
    if governed.get("forecast"):
        forecast = governed["forecast"]
        ahead_s = (forecast["for_ms"] - forecast["at_ms"]) // 1000
        how = f" by {forecast['model']}" if forecast.get("model") else ""
        how = how if forecast["by_model"] else ", as now: the model knows no better of late"
        lines.append(
            f"  forecast {forecast['expected']:.2f} in {ahead_s} s, typical error {forecast['spread']:.1%}{how}"
        )
        if forecast.get("trouble"):
            lines.append(f"    the model that was asked for does not count: {forecast['trouble']}")
    if governed.get("fallback"):
        lines.append("  a metric is lost for long: the fallback holds")
    return lines


def why_not(item: dict[str, Any]) -> list[str]:
    """What would have to be different for more, and for fewer, replicas."""
    lines = [f"why not more than {item['desired']}, why not fewer:"]
    if item.get("metrics_skipped"):
        return [*lines, f"  no metric is asked: {item['metrics_skipped']}"]
    if (item.get("governed") or {}).get("override"):
        return [*lines, "  a person holds it; end that with flyball scale NAME --auto, or spec.pause"]
    for metric in item.get("metrics", ()):
        name = metric.get("name") or metric["metric"]
        if metric.get("error"):
            lines.append(f"  {name} is not known, so nothing scales down: {metric['error']}")
        elif metric.get("ratio") is not None and metric.get("tolerance_low") is not None:
            lines.append(
                f"  {name} is at {metric['ratio']:.4g} of its target: more from above {metric['tolerance_high']:.4g}, "
                f"fewer from below {metric['tolerance_low']:.4g}"
            )
    for clamp in item.get("clamps", ()):
        lines.append(f"  {clamp['rule']} made {clamp['before']} into {clamp['after']}: {clamp['message']}")
    if item["desired"] >= item["max_replicas"]:
        lines.append(f"  maxReplicas is {item['max_replicas']}")
    if item["desired"] <= item["min_replicas"]:
        lines.append(f"  minReplicas is {item['min_replicas']}")
    return lines


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
