"""SSRF and credentials: redirects, annotations, names and rules that lead elsewhere: nobody goes, no secret leaves.

Every connection that this process makes is seen by an audit hook, so that a request that is never answered counts too.
What sends a secret: metric servers and other adapters (redirects are never followed), scraping (they are, without the
secret, and never to link-local addresses). What tenants write: annotations of pods, whose path, port and scheme lead
to the pod or nowhere, and MetricRules, which name no server and no file.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flyball.adapter.confinement import confined_series
from flyball.adapter.documents import Failure
from flyball.adapter.onward import Onward, OnwardFlags
from flyball.adapter.standalone import standalone_job
from flyball.errors import ConfigError, FlyballError
from flyball.metricrules import parse_metric_rule
from flyball.model.clients import Authorization, HttpClientConfig
from flyball.model.scrapeconfigs import ScrapeConfig, TargetGroup
from flyball.scrape.fetch import Fetcher
from flyball.scrape.targets import build_targets
from flyball.sources import HttpSource
from gate.report import demand

SECRET = "planted-secret-0123456789"
METADATA = "169.254.169.254"
CODES = (301, 302, 303, 307, 308)


class Connections:
    """Every address that this process connects to while it is told to look."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, int]] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self._seen is not None and isinstance(arguments[1], tuple):
            self._seen.append(arguments[1][:2])

    @contextmanager
    def seen(self) -> Iterator[list[tuple[str, int]]]:
        self._seen = found = []
        try:
            yield found
        finally:
            self._seen = None


@dataclass
class Listener:
    """A server that keeps what it is sent; ``answer`` is what it says, ``{other}`` the address of the second one."""

    host: str
    port: int = 0
    answer: bytes = b""
    received: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.received.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def leaked(self) -> int:
        return sum(SECRET.encode() in request for request in self.received)


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[Listener]:
    found = Listener(host)
    server = await asyncio.start_server(found, host, 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


def redirect(code: int, location: str) -> bytes:
    return f"HTTP/1.1 {code} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def locations(other: Listener) -> list[str]:
    """Where a redirect may lead: another server in every disguise, the metadata service, other schemes."""
    number = int.from_bytes(bytes(int(part) for part in other.host.split(".")), "big")
    return [
        f"http://{other.address}/",
        f"//{other.address}/",
        f"http://user:word@{other.address}/",
        f"http://{number}:{other.port}/",
        f"http://0x{number:x}:{other.port}/",
        f"http://[::ffff:{other.host}]:{other.port}/",
        f"http://{METADATA}/latest/meta-data/",
        f"http://{int.from_bytes(bytes([169, 254, 169, 254]), 'big')}/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "file:///etc/passwd",
        f"gopher://{other.address}/",
    ]


@dataclass
class Tally:
    """What was tried, by area, and what went wrong."""

    tried: dict[str, int] = field(default_factory=dict)
    forbidden: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)

    def add(self, area: str, what: str, *, forbidden: object = None, leaked: int = 0) -> None:
        self.tried[area] = self.tried.get(area, 0) + 1
        if forbidden:
            self.forbidden.append(f"{area}: {what}: {forbidden}")
        if leaked:
            self.leaked.append(f"{area}: {what}")


def run(*, quick: bool = False) -> list[str]:
    del quick  # the table is small
    tally = Tally()
    asyncio.run(_run(tally))
    refused = _tenants()
    demand(not tally.forbidden, f"{len(tally.forbidden)} forbidden connections: {tally.forbidden[:5]}")
    demand(not tally.leaked, f"{len(tally.leaked)} credentials left their host: {tally.leaked[:5]}")
    tried = sum(tally.tried.values())
    demand(tried >= 30, f"only {tried} tricks are tried")
    areas = ", ".join(f"{count} {area}" for area, count in tally.tried.items())
    return [
        f"{tried} tricks ({areas}): 0 forbidden connections, 0 credentials left their host",
        f"{refused} of {refused} MetricRules that name a server, a file or another namespace refused or confined",
    ]


async def _run(tally: Tally) -> None:
    connections = Connections()
    async with listening("127.0.0.1") as target, listening("127.0.0.2") as other:
        for index, location in enumerate(locations(other)):
            target.answer = redirect(CODES[index % len(CODES)], location)
            await _source(tally, connections, target, other, location)
            await _onward(tally, connections, target, other, location)
            await _scraped(tally, connections, target, other, location)
        await _annotated(tally, connections, target, other)


async def _tried(connections: Connections, work: Callable[[], Awaitable[object]]) -> list[tuple[str, int]]:
    """The addresses connected to while ``work``, which fails in its own way."""
    with connections.seen() as seen:
        try:
            async with asyncio.timeout(5):
                await work()
        except (FlyballError, Failure, TimeoutError):
            pass
    return seen


async def _source(tally: Tally, connections: Connections, target: Listener, other: Listener, location: str) -> None:
    source = HttpSource(f"http://{target.address}", bearer=SECRET, timeout_s=2)
    seen = await _tried(connections, lambda: source.query("up", 1_000))
    seen += await _tried(connections, lambda: source.series("up", 0, 1_000))
    await source.close()
    away = [address for address in seen if address != (target.host, target.port)]
    tally.add("redirects of metric servers", location, forbidden=away, leaked=other.leaked())


async def _onward(tally: Tally, connections: Connections, target: Listener, other: Listener, location: str) -> None:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        token = Path(folder, "token")
        token.write_text(SECRET)
        onward = Onward(OnwardFlags(f"http://{target.address}", token_file=str(token)))
        seen = await _tried(connections, lambda: onward.get("/apis", ""))
        await onward.close()
    away = [address for address in seen if address != (target.host, target.port)]
    tally.add("redirects of adapters behind ours", location, forbidden=away, leaked=other.leaked())
    for url in (f"http://127.0.0.1.{other.host}.nip.io", f"http://127.0.0.1@{other.address}", "http://example.com"):
        try:
            Onward(OnwardFlags(url, token_file="none"))
        except ConfigError:
            continue
        tally.leaked.append(f"--proxy-to {url} would send the token in the open")


async def _scraped(tally: Tally, connections: Connections, target: Listener, other: Listener, location: str) -> None:
    http = HttpClientConfig(Authorization(credentials=SECRET), headers=(("X-Key", SECRET),))
    config = ScrapeConfig(job_name="gate", http=http)
    fetcher = Fetcher(f"http://{target.address}/metrics", config, None)
    seen = await _tried(connections, lambda: fetcher.fetch(2_000))
    fetcher.close()
    away = [address for address in seen if not _may_follow(address[0], (target, other))]
    tally.add("redirects of scraped targets", location, forbidden=away, leaked=other.leaked())


def _may_follow(host: str, listeners: tuple[Listener, ...]) -> bool:
    return host.removeprefix("::ffff:") in {listener.host for listener in listeners}


async def _annotated(tally: Tally, connections: Connections, target: Listener, other: Listener) -> None:
    """Pods whose annotations lead elsewhere, as standalone mode and the embedded cluster scrape them."""
    target.answer = redirect(302, f"http://{other.address}/")
    tricks = [
        *({"path": path} for path in (
            f"@{other.address}/", f"//{other.address}/", f"http://{other.address}/", f"\\\\{other.address}\\",
            f".{other.host}/", f":@{other.address}/", "/../../etc/passwd",
            f"/ HTTP/1.1\r\nHost: {other.address}\r\nAuthorization: x\r\n\r\nGET /",
        )),
        *({"port": port} for port in (f"80@{other.address}", "99999", "-1", "0", f"{other.port}/../", "80#")),
        *({"scheme": scheme} for scheme in ("file", "gopher", f"http://{other.address}/?")),
    ]  # fmt: skip
    meta = "__meta_kubernetes_pod_"
    for trick in tricks:
        labels = {
            "__address__": target.address,
            f"{meta}name": "web",
            f"{meta}phase": "Running",
            "__meta_kubernetes_namespace": "default",
            **{f"{meta}annotation_prometheus_io_{name}": value for name, value in trick.items()},
        }
        count = len(target.received)
        for url, config in _urls(labels):
            fetcher = Fetcher(url, config, None)
            seen = await _tried(connections, lambda fetcher=fetcher: fetcher.fetch(2_000))  # type: ignore[misc]
            fetcher.close()
            away = [address for address in seen if address[0] != target.host]
            tally.forbidden += [f"annotation {trick}: {away}"] if away else []
        smuggled = [
            text for text in target.received[count:] if text.count(b"HTTP/1.1") > 1 or b"\nAuthorization" in text
        ]
        tally.add("annotations of pods", str(trick), forbidden=smuggled)


def _urls(labels: dict[str, str]) -> Iterator[tuple[str, ScrapeConfig]]:
    config = replace(standalone_job(), kubernetes_sd_configs=())
    targets, _, _ = build_targets(config, [TargetGroup("pods", labels, ({},))])
    for target in targets:
        yield target.url, config


def _tenants() -> int:
    """MetricRules that say what is not a tenant's to say."""
    base = {"seriesQuery": "x", "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>})"}
    named = ("source", "sources", "url", "urls", "headers", "tenant", "bearerTokenFile", "basicAuth", "tls", "sigv4")
    more: list[dict[str, Any]] = [
        {name: "/etc/passwd"} for name in (*named, "caFile", "namespaceLabel", "compatibility")
    ]
    more += [{"seriesQuery": text} for text in ('x or up{namespace="b"}', 'x} or up{namespace="b"', "sum(x)", "x[5m]")]
    for spec in more:
        try:
            confined_series(parse_metric_rule(base | spec, "rule", "a", "namespace"))
        except ConfigError:
            continue
        demand(False, f"a MetricRule with {spec} is taken")
    for text in ('x{namespace="b"}', '{__name__=~".+"}', 'x{namespace=~"a|b"}', 'x{namespace!="a"}'):
        query = confined_series(parse_metric_rule(base | {"seriesQuery": text}, "rule", "a", "namespace"))
        demand('namespace="a"' in query, f"{text} became {query}, which is not confined")
    return len(more) + 4
