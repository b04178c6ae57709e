"""Bombs: documents that would cost without end, payloads that would run, and planted secrets that would show.

Each bomb goes to each parser that strangers reach, in a process of its own, warm from a good document: refused within
100 ms of CPU and 32 MiB, or, where it is harmless there, read as cheaply. Payloads are pickles and YAML and JSON
objects whose reading would make a file. Secrets are planted in every field that holds one, of a server and of an
adapter, whose answers, logs, metrics and errors are then searched.
"""

import asyncio
import contextlib
import io
import json
import logging
import os
import pickle
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.adapter.world import world

from flyball.errors import ConfigError, FlyballError
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.requests import JSON, YAML, decode
from flyball.metricrules import parse_config
from flyball.model.prometheusconfig import parse_prometheus_config
from flyball.sources.prometheus import read_answer, read_vector
from gate.g16 import _parsers
from gate.report import demand
from gate.serving import serving, until

CPU_S_MAX, MEMORY_KIB_MAX = 0.1, 32 << 10
DEEP = 100_000
SECRETS = 100
Read = Callable[[bytes], Any]


def run(*, quick: bool = False) -> list[str]:
    del quick  # it takes seconds
    parsers = _readers()
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        canary = Path(folder, "canary")
        tried, slowest_s, grown_kib = _bombs(parsers)
        payloads, reads = _payloads(parsers, canary)
        planted, places = _secrets(Path(folder))
    return [
        f"{tried} bombs for {len(parsers)} parsers: at most {1000 * slowest_s:.0f} ms of CPU and {grown_kib >> 10} MiB",
        f"{payloads} payloads, {reads} readings: none ran",
        f"{planted} secrets planted, searched for in {places} answers, logs and errors: 0 found",
    ]


def _readers() -> dict[str, tuple[Read, bytes]]:
    """Every parser of documents with a good one; queries of death are gate 18's."""
    documents = {name: parser for name, parser in _parsers().items() if name not in ("PromQL", "selector")}
    found = {name: (read, seeds[0]) for name, (read, seeds) in documents.items()}
    answer = b'{"status":"success","data":{"resultType":"vector","result":[]}}'

    def asked(body: bytes) -> object:
        return read_vector(read_answer("http://x", 200, body, "a query"), "http://x")

    pod = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}'
    return found | {
        "metric server's answer": (asked, answer),
        "API body, JSON": (lambda body: decode(body, JSON, "Pod"), pod),
        "API body, YAML": (lambda body: decode(body, YAML, "Pod"), b"apiVersion: v1\nkind: Pod\n"),
        "adapter's configuration": (lambda body: parse_config(body.decode("utf-8", "replace")), b"rules: []\n"),
    }


def _bombs(parsers: dict[str, tuple[Read, bytes]]) -> tuple[int, float, int]:
    tried, slowest_s, grown_kib = 0, 0.0, 0
    for parser, (read, good) in parsers.items():
        for name, bomb in _documents():
            cost = _cost(read, good, bomb)
            shown = f"{name} for {parser}"
            demand(not cost.problem, f"{shown}: {cost.problem}")
            demand(cost.cpu_s <= CPU_S_MAX, f"{shown}: {1000 * cost.cpu_s:.0f} ms of CPU")
            demand(cost.grown_kib <= MEMORY_KIB_MAX, f"{shown}: {cost.grown_kib >> 10} MiB")
            tried, slowest_s, grown_kib = tried + 1, max(slowest_s, cost.cpu_s), max(grown_kib, cost.grown_kib)
    return tried, slowest_s, grown_kib


def _documents() -> Iterator[tuple[str, bytes]]:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
    yield "YAML aliases", f"a0: &a0 [x]\n{levels}\n".encode()
    yield "YAML merge keys", b"a: &a {b: c}\nd: {<<: *a}\n"
    yield "deep flow YAML", b"[" * DEEP
    yield "deep block YAML", b"".join(b" " * n + b"a:\n" for n in range(1_000))
    yield "deep JSON lists", b"[" * DEEP + b"]" * DEEP
    yield "deep JSON objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP
    yield "deep JSON within an object", b'{"status":"success","data":' + b"[" * DEEP + b"]" * DEEP + b"}"
    yield (
        "deep JSON within a result",
        b'{"status":"success","data":{"resultType":"vector","result":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    )
    yield "a long number", b"9" * DEEP
    yield "deep protobuf", _nested(2_000)
    yield "a snappy claim of 4 GiB", b"\xff\xff\xff\xff\x0f" + b"\x00" * 16
    yield "a protobuf length of 4 GiB", b"\x0a\xff\xff\xff\xff\x0f"
    yield "deep compact YAML", b"- " * DEEP + b"x"
    yield "a page of 4 GiB by its header", struct.pack(">I", 0xFFFFFFFF)


def _nested(depth: int) -> bytes:
    """Messages in messages: field 1, length-delimited, all the way down."""
    body = b""
    for _ in range(depth):
        size, length = len(body), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        body = b"\x0a" + length + bytes([size]) + body
    return body


@dataclass(frozen=True)
class Cost:
    cpu_s: float
    grown_kib: int
    problem: str = ""


def _cost(read: Read, good: bytes, document: bytes) -> Cost:
    """What reading costs in a process of its own; anything but a refusal or a value is a problem."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(receiver)
            with contextlib.suppress(FlyballError):  # some seeds are wrong on purpose
                read(good)
            before_kib, before_s, problem = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), ""
            try:
                read(document)
            except (FlyballError, ApiFailure):
                pass
            except BaseException as exc:
                problem = f"{type(exc).__name__}: {str(exc)[:200]}"
            cpu_s = time.process_time() - before_s
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
            os.write(sender, json.dumps([cpu_s, grown, problem]).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return Cost(*json.loads(text)) if text else Cost(0, 0, f"the process ended with status {status}")


# -- payloads ----------------------------------------------------------------------------------------------------------


class _Gadget:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


def _gadgets(canary: Path) -> Iterator[bytes]:
    import builtins
    import subprocess

    touch = f"touch {canary}"
    calls = [
        _Gadget(os.system, touch),
        _Gadget(subprocess.call, ["touch", str(canary)]),
        _Gadget(builtins.eval, f"open({str(canary)!r}, 'w')"),
        _Gadget(builtins.exec, f"open({str(canary)!r}, 'w')"),
    ]
    for gadget in calls:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            yield pickle.dumps(gadget, protocol)
    for tag in ("python/object/apply:os.system", "python/object/new:os.system", "python/name:os.system"):
        yield f"a: !!{tag} [{touch!r}]\n".encode()
    yield f"!!python/object/apply:subprocess.call [[touch, {canary}]]\n".encode()
    yield json.dumps({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [touch]}]}).encode()
    yield json.dumps({"__class__": "os.system", "__args__": [touch], "$(touch x)": f"`{touch}`"}).encode()


def _payloads(parsers: dict[str, tuple[Read, bytes]], canary: Path) -> tuple[int, int]:
    gadgets = list(_gadgets(canary))
    pickle.loads(gadgets[0])  # the proof that it would
    demand(canary.exists(), "the payload does nothing even where it is run")
    canary.unlink()
    reads = 0
    for parser, (read, _) in parsers.items():
        for gadget in gadgets:
            with contextlib.suppress(FlyballError, ApiFailure):
                read(gadget)
            reads += 1
            demand(not canary.exists(), f"{parser} ran {gadget[:80]!r}")
    return len(gadgets), reads


# -- secrets -----------------------------------------------------------------------------------------------------------


class _Planted:
    """Secrets handed out by number, and what of them shows in a text."""

    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"canary-{self.count:04d}-Zq8x"

    def check(self, where: str, text: str) -> None:
        demand("-Zq8x" not in text, f"{where} shows a secret: {text[max(0, text.find('-Zq8x') - 200) :][:260]!r}")


def _secrets(folder: Path) -> tuple[int, int]:
    planted = _Planted()
    places = _of_server(folder / "server", planted)
    places += _of_errors(planted)
    places += asyncio.run(_of_adapter(folder / "adapter", planted))
    demand(planted.count >= SECRETS, f"only {planted.count} secrets were planted")
    return planted.count, places


def _job(number: int, planted: _Planted, folder: Path) -> dict[str, Any]:
    file = folder / f"secret-{number}"
    file.write_text(planted.new())
    ways: list[dict[str, Any]] = [
        {"basic_auth": {"username": "u", "password": planted.new()}},
        {"authorization": {"credentials": planted.new()}},
        {"http_headers": {"X-Key": {"secrets": [planted.new()]}}},
        {"basic_auth": {"username": "u", "password_file": str(file)}},
        {"authorization": {"credentials_file": str(file)}},
    ]
    target = {"targets": [f"127.0.0.1:{9 + number}"]}  # nobody listens: errors are told
    return {"job_name": f"job-{number}", "static_configs": [target], **ways[number % len(ways)]}


def _of_server(folder: Path, planted: _Planted) -> int:
    folder.mkdir()
    server: dict[str, Any] = {"basic_auth": {"username": "u", "password": planted.new()}}
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [_job(number, planted, folder) for number in range(20)],
        "alerting": {"alertmanagers": [server | {"static_configs": [{"targets": ["127.0.0.1:9"]}]}]},
    }
    text = yaml.safe_dump(config)
    paths = ("status/config", "status/flags", "status/runtimeinfo", "targets", "alertmanagers", "rules", "alerts")
    with serving(folder, text, "--web.enable-lifecycle") as running:
        until(lambda: "error" in json.dumps(running.ask("/api/v1/targets")[1]).lower(), 30, "no target has failed")
        for path in paths:
            planted.check(path, json.dumps(running.ask(f"/api/v1/{path}")[1]))
        shown = running.ask("/api/v1/status/config")[1]["data"]["yaml"]
        demand("<secret>" in shown, "the configuration does not show where secrets are")
        for raw in ("/metrics", "/"):
            planted.check(raw, _text(running.url + raw))
        (folder / "prometheus.yml").write_text(text.replace("password:", "pasword:"))
        with contextlib.suppress(Exception):
            planted.check("a refused reload", json.dumps(running.ask("/-/reload", a="b")))
    planted.check("the server's log", running.log.read_text())
    return len(paths) + 4


def _text(url: str) -> str:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as exc:
        return exc.read().decode("utf-8", "replace")


def _of_errors(planted: _Planted) -> int:
    """Secrets where something else belongs, or something else beside them that is wrong."""
    wrongs = [
        lambda secret: {"basic_auth": {"username": "u", "password": [secret]}},
        lambda secret: {"basic_auth": {"username": "u", "password": {"a": secret}}},
        lambda secret: {"basic_auth": {"user": "u", "password": secret}},
        lambda secret: {"basic_auth": secret},
        lambda secret: {"authorization": {"credentials": {"a": secret}}},
        lambda secret: {"authorization": secret},
        lambda secret: {"authorization": {"credentials": secret, "type": 5, "x": 1}},
        lambda secret: {"http_headers": {"X": {"secrets": secret}}},
        lambda secret: {"http_headers": {"X": secret}},
        lambda secret: {"basic_auth": {"username": "u", "password": secret}, "authorization": {"credentials": secret}},
    ]
    for wrong in wrongs:
        config = {"scrape_configs": [{"job_name": "a", **wrong(planted.new())}]}
        _, errors = parse_prometheus_config(yaml.safe_dump(config), "prometheus.yml")
        for error in errors:
            planted.check("an error of prometheus.yml", str(error))
    return len(wrongs)


async def _of_adapter(folder: Path, planted: _Planted) -> int:
    folder.mkdir()
    sources = []
    for number in range(20):
        file = folder / f"secret-{number}"
        file.write_text(planted.new())
        way = (
            {"bearerTokenFile": str(file)}
            if number % 2
            else {"basicAuth": {"username": "u", "passwordFile": str(file)}}
        )
        headers = {"X-Key": planted.new(), "Authorization-Extra": planted.new()}
        sources.append({"name": f"s{number}", "url": "http://127.0.0.1:9", "headers": headers, **way})
    rule = {
        "seriesQuery": "up",
        "metricsQuery": "<<.Series>>{<<.LabelMatchers>>}",
        "resources": {"template": "<<.Resource>>"},
    }
    rules = [{**rule, "source": source["name"]} for source in sources]
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        async with world(folder / "world", json.dumps({"sources": sources, "rules": rules})) as found:
            token = {"Authorization": f"Bearer {found.pki('token').read_text().strip()}"}
            paths = ("/api/flyball/v1/rules", "/metrics", "/readyz", "/apis/custom.metrics.k8s.io/v1beta1")

            async def failed() -> bool:
                return b"cannot be reached" in (await found.ask(paths[0], token))[1]

            await found.until(failed)
            for path in paths:
                planted.check(f"the adapter's {path}", (await found.ask(path, token))[1].decode())
            for index in range(10):
                config = yaml.safe_dump(
                    {"sources": [{"name": "x", "url": "ftp://x", "headers": {"X": [planted.new()]}}]}
                )
                text = config if index % 2 else config.replace("ftp", "http")
                (folder / "world" / "config.yaml").write_text(text)
                try:
                    parse_config(text)
                except ConfigError as exc:
                    planted.check("an error of the adapter's configuration", str(exc))
    finally:
        logging.getLogger().removeHandler(handler)
    planted.check("the adapter's log", log.getvalue())
    return len(paths) + 11


if sys.platform != "linux":
    raise ImportError("gate 33 forks and reads ru_maxrss in KiB: it runs on Linux")
