"""``flyball demo``: everything started, an example applied, a wave of traffic driven, the scaling watched."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from flyball.clock import monotonic_s
from flyball.errors import ConfigError, FlyballError, UpstreamError

SETTLE_MAX_S = 60.0  # how long replicas may take back to the minimum after the wave


@dataclass(frozen=True, slots=True)
class Example:
    """What the demo needs to know of an example: its folder, its names and the requests of its wave.

    The wave is a low rate, a step to a high rate and the low rate again; rates in requests a second.
    """

    folder: str
    name: str
    low_rate: float
    high_rate: float
    method: str
    unit: str


EXAMPLES = {
    "webapp": Example("webapp/manifests", "webapp", 8.0, 110.0, "GET", "requests/s a pod"),
    "scrypt": Example("scrypt", "scrypt", 0.2, 4.0, "POST", "% CPU"),
}


@dataclass(slots=True)
class Wave:
    """Counts of the traffic so far, and the shape of what comes. Times in seconds from the first request."""

    example: Example
    length_s: float
    sent: int = 0
    answered: int = 0
    errors: int = 0
    last_error: str = ""
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def step_at_s(self) -> float:
        return self.length_s * 0.15

    @property
    def end_of_step_s(self) -> float:
        return self.length_s * 0.75

    def rate(self, at_s: float) -> float:
        high = self.step_at_s <= at_s < self.end_of_step_s
        return self.example.high_rate if high else self.example.low_rate


def find_example(name: str) -> Path:
    """The example's manifests: in the checkout, or as installed with the package."""
    example = EXAMPLES.get(name)
    if example is None:
        raise ConfigError(f'there is no example "{name}"; choose one of {", ".join(EXAMPLES)}')
    package = Path(__file__).parents[1]
    for root in (package.parents[1] / "examples", package / "examples"):
        if (root / example.folder).is_dir():
            return root / example.folder
    raise ConfigError(f"the files of example {name} are not installed; run the demo from a checkout")


def free_port_offset() -> int:
    """The first of 0, 10000, 20000 ... at which all ports are free."""
    from flyball.cli.up import PORTS

    for offset in range(0, 50_000, 10_000):
        with contextlib.ExitStack() as stack:
            try:
                for port in PORTS:
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise ConfigError("no free range of ports was found; end another flyball, or use flyball up --port-offset N")


@click.command("demo", epilog="Example: flyball demo --example scrypt --seconds 120")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line at the end and nothing else on stdout.")
@click.option("--seconds", type=click.FloatRange(20, 3600), default=60.0, show_default=True, help="Length of the wave.")
@click.option("--example", "example_name", type=click.Choice(list(EXAMPLES)), default="webapp", show_default=True)
def command(as_json: bool, seconds: float, example_name: str) -> None:
    """Run an example under load and watch it scale.

    Starts everything in a temporary directory, applies the example, drives traffic against it (a low rate, a
    step, the low rate again), then waits at most 60 s until the replicas are back at their minimum.
    """
    summary = asyncio.run(_demo(EXAMPLES[example_name], find_example(example_name), seconds, as_json))
    if as_json:
        click.echo(json.dumps(summary))
    if not summary["ok"]:
        raise SystemExit(1)


async def _demo(example: Example, manifests: Path, seconds: float, as_json: bool) -> dict[str, Any]:
    from flyball.cli.up import new_supervisor
    from flyball.supervisor import lock_data_dir

    data_dir = Path(tempfile.mkdtemp(prefix="flyball-demo-"))
    lock_data_dir(data_dir)
    offset = free_port_offset()
    supervisor = new_supervisor(data_dir, offset, (manifests,))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    kept = True
    try:
        click.echo(f"starting Flyball in {data_dir} ...", err=True)
        await supervisor.start()
        summary = await _run(example, data_dir, offset, seconds, as_json, stop)
        kept = not summary["ok"]
        return summary
    finally:
        await supervisor.stop()
        if kept:
            click.echo(f"logs and data are kept in {data_dir}", err=True)
        else:
            shutil.rmtree(data_dir, ignore_errors=True)


async def _run(
    example: Example, data_dir: Path, offset: int, seconds: float, as_json: bool, stop: asyncio.Event
) -> dict[str, Any]:
    from flyball.kube import KubeClient

    client = await KubeClient.from_kubeconfig(data_dir / "kubeconfig")
    try:
        watch = _Watch(example, client, offset, as_json)
        url = await watch.wait_ready(stop)
        wave = Wave(example, seconds)
        async with asyncio.TaskGroup() as group:
            view = group.create_task(watch.show(wave), name="view")
            traffic = group.create_task(_drive(wave, url, watch, stop), name="traffic")
            await traffic
            await watch.wait_settled(wave, stop)
            watch.finished = True
            await view
        return watch.summary(wave, interrupted=stop.is_set())
    finally:
        await client.close()


class _Watch:
    """Reads the HPA, the pods and the decisions once a second; keeps what the view and the summary show."""

    def __init__(self, example: Example, client: Any, offset: int, as_json: bool) -> None:
        self.example = example
        self.client = client
        self.decisions_url = f"http://127.0.0.1:{9090 + offset}/api/flyball/v1/decisions"
        self.quiet = as_json
        self.finished = False
        self.started_s = 0.0
        self.replicas = 0
        self.replicas_min = 0
        self.replicas_max = 0
        self.minimum = 1
        self.metric = "unknown"
        self.target = ""
        self.first_scale_up_s: float | None = None
        self.changes: list[tuple[float, int, int, str]] = []
        self.rates: deque[float] = deque(maxlen=60)
        self.replica_line: deque[int] = deque(maxlen=60)
        self.decisions = 0
        self.trouble = ""

    async def wait_ready(self, stop: asyncio.Event, timeout_s: float = 60.0) -> str:
        """The Service's URL, once its pods are ready and the HPA knows its metric.

        Raises:
            UpstreamError: not ready in time; the message says what is missing.
        """
        from flyball.kube import kinds

        deadline = monotonic_s() + timeout_s
        missing = "the example's objects"
        name, namespace = self.example.name, "default"
        while monotonic_s() < deadline and not stop.is_set():
            with contextlib.suppress(FlyballError):
                service = await self.client.get(kinds.SERVICES, name, namespace)
                deployment = await self.client.get(kinds.DEPLOYMENTS, name, namespace)
                hpa = await self.client.get(kinds.HPAS_V2, name, namespace)
                self._read_hpa(hpa)
                ready = deployment.get("status", {}).get("readyReplicas", 0)
                ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
                active = any(
                    c["type"] == "ScalingActive" and c["status"] == "True"
                    for c in hpa.get("status", {}).get("conditions", [])
                )
                if not ingress:
                    missing = f"the address of Service {name}"
                elif ready < deployment["spec"].get("replicas", 1):
                    missing = f"ready pods of Deployment {name}"
                elif not active:
                    missing = f"the metric of HPA {name} ({self.trouble or 'no value yet'})"
                else:
                    port = ingress[0]["ports"][0]["port"]
                    return f"http://{ingress[0]['ip']}:{port}/"
            await asyncio.sleep(0.2)
        if stop.is_set():
            raise UpstreamError("the demo was interrupted before it was ready")
        raise UpstreamError(f"{missing}: not there after {timeout_s:.0f} s")

    def _read_hpa(self, hpa: dict[str, Any]) -> None:
        spec, status = hpa["spec"], hpa.get("status", {})
        self.minimum = spec.get("minReplicas", 1)
        self.metric, self.target = _metric_text(spec, status)
        self.trouble = next(
            (
                c["message"]
                for c in status.get("conditions", [])
                if c["type"] == "ScalingActive" and c["status"] != "True"
            ),
            "",
        )

    async def poll(self, wave: Wave) -> None:
        from flyball.kube import kinds

        name, namespace = self.example.name, "default"
        self._read_hpa(await self.client.get(kinds.HPAS_V2, name, namespace))
        deployment = await self.client.get(kinds.DEPLOYMENTS, name, namespace)
        replicas = int(deployment["spec"].get("replicas", 1))
        at_s = monotonic_s() - self.started_s
        if self.replicas and replicas != self.replicas:
            reason = await self._reason()
            self.changes.append((at_s, self.replicas, replicas, reason))
            if replicas > self.replicas and self.first_scale_up_s is None and at_s >= wave.step_at_s:
                self.first_scale_up_s = at_s - wave.step_at_s
        self.replicas = replicas
        self.replicas_min = min(self.replicas_min or replicas, replicas)
        self.replicas_max = max(self.replicas_max, replicas)
        self.replica_line.append(replicas)

    async def _reason(self) -> str:
        from flyball.kube import kinds

        events = await self.client.list(
            kinds.EVENTS,
            "default",
            field_selector=f"involvedObject.kind=HorizontalPodAutoscaler,involvedObject.name={self.example.name}",
        )
        rescales = [e for e in events if e.get("reason") == "SuccessfulRescale"]
        rescales.sort(key=lambda e: int(e["metadata"]["resourceVersion"]))
        return str(rescales[-1]["message"]) if rescales else ""

    async def show(self, wave: Wave) -> None:
        """Polls and redraws until finished."""
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self.started_s = monotonic_s()
        answered = 0
        with (
            Live(console=console, auto_refresh=False, transient=True)
            if not self.quiet
            else contextlib.nullcontext() as live
        ):
            while not self.finished:
                tick_s = monotonic_s()
                try:
                    await self.poll(wave)
                except FlyballError as exc:
                    self.trouble = str(exc)
                self.rates.append(float(wave.answered - answered))
                answered = wave.answered
                if live is not None:
                    live.update(self._render(wave), refresh=True)
                await asyncio.sleep(max(0.0, 1.0 - (monotonic_s() - tick_s)))

    def _render(self, wave: Wave) -> Any:
        from rich.table import Table
        from rich.text import Text

        at_s = monotonic_s() - self.started_s
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", style="bold")
        table.add_column()
        table.add_row("time", f"{at_s:3.0f} s of {wave.length_s:.0f} s")
        table.add_row("requests/s", Text(f"{self.rates[-1]:6.0f}  {_spark(self.rates)}", style="cyan"))
        table.add_row("metric", f"{self.metric} against {self.target} ({self.example.unit})")
        table.add_row("replicas", Text(f"{self.replicas:6d}  {_spark(self.replica_line)}", style="green"))
        if wave.errors:
            table.add_row("errors", Text(f"{wave.errors} ({wave.last_error})", style="red"))
        if self.trouble:
            table.add_row("trouble", Text(self.trouble, style="yellow"))
        for at, before, after, reason in self.changes[-6:]:
            table.add_row(f"{at:.0f} s", f"{before} → {after}  {reason}")
        return table

    async def wait_settled(self, wave: Wave, stop: asyncio.Event) -> None:
        deadline = monotonic_s() + SETTLE_MAX_S
        while monotonic_s() < deadline and not stop.is_set() and self.replicas != self.minimum:
            await asyncio.sleep(0.25)
        await self._count_decisions()

    async def _count_decisions(self) -> None:
        from flyball.http.client import get_json, new_session

        parameters = {"namespace": "default", "name": self.example.name, "limit": "1000"}
        async with new_session(timeout_s=5) as session:
            with contextlib.suppress(UpstreamError):
                items = (await get_json(session, self.decisions_url, parameters))["items"]
                self.decisions = sum(int(item.get("count", 1)) for item in items)

    def summary(self, wave: Wave, *, interrupted: bool) -> dict[str, Any]:
        up = self.first_scale_up_s
        summary: dict[str, Any] = {
            "example": self.example.name,
            "seconds": wave.length_s,
            "replicas_min": self.replicas_min,
            "replicas_max": self.replicas_max,
            "replicas_final": self.replicas,
            "first_scale_up_s": None if up is None else round(up, 1),
            "decisions": self.decisions,
            "requests": wave.answered,
            "http_errors": wave.errors,
            "latency_p50_ms": _quantile_ms(wave.latencies_s, 0.5),
            "latency_p99_ms": _quantile_ms(wave.latencies_s, 0.99),
        }
        reasons = {
            "the demo was interrupted": interrupted,
            "replicas never rose": self.replicas_max <= self.minimum,
            f"replicas were not back at {self.minimum}": self.replicas != self.minimum,
            f"{wave.errors} requests failed, the last one with {wave.last_error}": wave.errors > 0,
        }
        failed = [reason for reason, is_true in reasons.items() if is_true]
        summary["ok"] = not failed
        if not self.quiet:
            _print_summary(summary, self.changes, failed)
        else:
            for reason in failed:
                click.echo(f"flyball: {reason}", err=True)
        return summary


async def _drive(wave: Wave, url: str, watch: _Watch, stop: asyncio.Event) -> None:
    """Sends the wave, one connection a request as many clients would; a fixed schedule, whatever the answers."""
    from flyball.http.client import new_session

    started_s = monotonic_s()
    watch.started_s = started_s
    next_s = 0.0
    async with (
        asyncio.TaskGroup() as group,
        new_session(timeout_s=15, connections_max=500, keep_alive=False) as session,
    ):
        slots = asyncio.Semaphore(500)
        requests = []
        while next_s < wave.length_s and not stop.is_set():
            delay_s = next_s - (monotonic_s() - started_s)
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            await slots.acquire()
            request = group.create_task(_request(session, wave, url), name="request")
            request.add_done_callback(lambda _: slots.release())
            wave.sent += 1
            next_s += 1.0 / wave.rate(next_s)
            requests.append(request)
            if len(requests) > 2000:
                requests = [r for r in requests if not r.done()]
        await asyncio.gather(*requests)


async def _request(session: Any, wave: Wave, url: str) -> None:
    import aiohttp

    start_s = monotonic_s()
    try:
        data = b"flyball" if wave.example.method == "POST" else None
        async with session.request(wave.example.method, url, data=data, headers={"Connection": "close"}) as response:
            await response.read()
            if response.status != 200:
                raise UpstreamError(f"HTTP status {response.status}")
        wave.answered += 1
        wave.latencies_s.append(monotonic_s() - start_s)
    except (aiohttp.ClientError, TimeoutError, UpstreamError) as exc:
        wave.errors += 1
        wave.last_error = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _metric_text(spec: dict[str, Any], status: dict[str, Any]) -> tuple[str, str]:
    """Value and target of the first metric, as ``kubectl get hpa`` shows them."""
    metric = (spec.get("metrics") or [{}])[0]
    kind = metric.get("type", "Resource")
    source = kind[0].lower() + kind[1:]
    target = metric.get(source, {}).get("target", {})
    current: dict[str, Any] = next(
        (m.get(source, {}).get("current", {}) for m in status.get("currentMetrics") or [] if m.get("type") == kind), {}
    )
    if target.get("averageUtilization") is not None:
        value = current.get("averageUtilization")
        return (f"{value}%" if value is not None else "unknown"), f"{target['averageUtilization']}%"
    name = "averageValue" if target.get("averageValue") is not None else "value"
    return str(current.get(name, "unknown")), str(target.get(name, "?"))


def _spark(values: Any) -> str:
    """A line of block characters from zero to the largest value."""
    top = max(values, default=0) or 1
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * value / top))] if value else " " for value in values)


def _quantile_ms(values: Any, q: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 1) if ordered else None


def _print_summary(summary: dict[str, Any], changes: list[tuple[float, int, int, str]], failed: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="What happened", title_justify="left")
    for column in ("time", "replicas", "why"):
        table.add_column(column)
    for at, before, after, reason in changes:
        table.add_row(f"{at:.0f} s", f"{before} → {after}", reason)
    console.print(table)
    up = summary["first_scale_up_s"]
    console.print(
        f"{summary['requests']} requests, {summary['http_errors']} errors, "
        f"replicas {summary['replicas_min']} → {summary['replicas_max']} → {summary['replicas_final']}, "
        f"first scale-up {'never' if up is None else f'{up} s after the step'}, {summary['decisions']} decisions."
    )
    for reason in failed:
        console.print(f"[red]failed:[/red] {reason}")
