"""``/probe?target=...&module=...``, as blackbox_exporter serves it."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from flyball import clock
from flyball.errors import ConfigError
from flyball.exporters.blackbox.dns import probe_dns
from flyball.exporters.blackbox.findings import Findings, ProbeFailed
from flyball.exporters.blackbox.http import probe_http
from flyball.exporters.blackbox.modules import DEFAULT, HttpModule, Module, TcpModule, parse_modules
from flyball.exporters.blackbox.tcp import probe_tcp
from flyball.exporters.text import CONTENT_TYPE

log = logging.getLogger("flyball.blackbox")

MODULE_DEFAULT = "http_2xx"
TIMEOUT_DEFAULT_S = 120.0
TARGET_MAX = 4096


class Blackbox:
    """The exporter: its modules, and what it tells of itself.

    Args:
        file: the configuration; None for the one module ``http_2xx``.
        timeout_offset_s: taken off a scrape's time-out, so that the answer still arrives.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, file: Path | None = None, *, timeout_offset_s: float = 0.5) -> None:
        self._file, self._offset_s = file, timeout_offset_s
        self._registry = CollectorRegistry()
        name = "blackbox_exporter_config_last_reload"
        self._good = Gauge(f"{name}_successful", "Whether the last reload succeeded.", registry=self._registry)
        self._at = Gauge(f"{name}_success_timestamp_seconds", "When a reload last succeeded.", registry=self._registry)
        self._unknown = Counter(
            "blackbox_module_unknown_total", "Probes of modules that do not exist.", registry=self._registry
        )
        self.modules: Mapping[str, Module] = DEFAULT
        self.reload()

    def reload(self) -> None:
        """Reads the configuration anew; what cannot be used leaves the last one in force.

        Raises:
            ConfigError: names file, module, field and remedy.
        """
        self._good.set(0)
        if self._file is not None:
            try:
                self.modules = parse_modules(self._file.read_text(), str(self._file))
            except OSError as exc:
                raise ConfigError(f"cannot read {self._file}: {exc}") from exc
        self._good.set(1)
        self._at.set(clock.now_ms() / 1000)

    def app(self) -> Starlette:
        """``/probe``, ``/metrics``, ``/-/healthy`` and ``/-/reload``."""
        return Starlette(
            routes=[
                Route("/", self._root),
                Route("/probe", self._probe),
                Route("/metrics", self._metrics),
                Route("/-/healthy", lambda _: PlainTextResponse("Healthy")),
                Route("/-/reload", self._reload, methods=["POST", "PUT"]),
            ]
        )

    def _root(self, _: Request) -> Response:
        names = "".join(f"<li>{name}</li>" for name in sorted(self.modules))
        return HTMLResponse(f"<h1>Blackbox exporter</h1><p>/probe?target=...&amp;module=...</p><ul>{names}</ul>")

    def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def _reload(self, _: Request) -> Response:
        try:
            self.reload()
        except ConfigError as exc:
            log.error("reload failed, the last configuration stays in force: %s", exc)
            return PlainTextResponse(f"failed to reload config: {exc}", 500)
        return PlainTextResponse("")

    async def _probe(self, request: Request) -> Response:
        name = request.query_params.get("module") or MODULE_DEFAULT
        module = self.modules.get(name)
        if module is None:
            self._unknown.inc()
            return PlainTextResponse(f'Unknown module "{name}"', 400)
        target = request.query_params.get("target") or ""
        if not target or len(target) > TARGET_MAX:
            return PlainTextResponse("Target parameter is missing" if not target else "Target is too long", 400)
        try:
            timeout_s = self._timeout_s(request.headers.get("x-prometheus-scrape-timeout-seconds", ""), module)
        except ValueError as exc:
            return PlainTextResponse(f"Failed to parse timeout from Prometheus header: {exc}", 400)
        findings = Findings()
        hostname = request.query_params.get("hostname", "")
        await probe(target, module, findings, timeout_s, hostname)
        if request.query_params.get("debug") == "true":
            story = "\n".join(findings.lines)
            return PlainTextResponse(
                f"Logs for the probe:\n{story}\n\nMetrics that would have been returned:\n{findings.exposition()}"
            )
        return Response(findings.exposition(), media_type=CONTENT_TYPE)

    def _timeout_s(self, header: str, module: Module) -> float:
        most_s = (float(header) if header else 0.0) or TIMEOUT_DEFAULT_S
        most_s -= self._offset_s
        own_s = module.timeout_ms / 1000
        return own_s if 0 < own_s < most_s or (own_s and most_s < 0) else max(most_s, 0.001)


async def probe(target: str, module: Module, findings: Findings, timeout_s: float, hostname: str = "") -> bool:
    """One probe; whether it succeeded is in the findings, with everything else."""
    began_s = clock.monotonic_s()
    success = False
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(module.probe, HttpModule):
                await probe_http(target, module.probe, findings, hostname)
            elif isinstance(module.probe, TcpModule):
                await probe_tcp(target, module.probe, findings, hostname)
            else:
                await probe_dns(target, module.probe, findings)
            success = True
    except TimeoutError:
        findings.say(f"no end within {timeout_s:g} s")
    except ProbeFailed as exc:
        findings.say(str(exc))
    findings.set("probe_success", success)
    findings.set("probe_duration_seconds", clock.monotonic_s() - began_s)
    return success
