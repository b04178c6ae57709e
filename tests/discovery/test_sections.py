"""Targets from files, HTTP endpoints and DNS, and how sections come and go."""

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.resolver
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from flyball.discovery import Discovery
from flyball.discovery.endpoints import HttpDiscovery
from flyball.discovery.files import FileDiscovery
from flyball.discovery.groups import read_groups
from flyball.discovery.names import DnsDiscovery
from flyball.errors import ConfigError
from flyball.model.clients import BasicAuth, HttpClientConfig
from flyball.model.scrapeconfigs import DnsSD, FileSD, HttpSD, ScrapeConfig, TargetGroup


def addresses(groups: Any) -> list[str]:
    return sorted(target["__address__"] for group in groups for target in group.targets)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_files_are_read_again_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: list[TargetGroup] = []
    discovery = FileDiscovery(FileSD((f"{tmp_path}/*.json", f"{tmp_path}/*.yml")), "j")

    def look() -> bool:
        changed = discovery.look()
        found[:] = [group for groups in discovery._groups.values() for group in groups]
        return changed

    one = tmp_path / "a.json"
    one.write_text(json.dumps([{"targets": ["a:1", "a:2"], "labels": {"x": "1"}}]))
    (tmp_path / "b.yml").write_text("- targets: [b:1]\n")
    assert look() and addresses(found) == ["a:1", "a:2", "b:1"]
    assert found[0].labels == {"x": "1", "__meta_filepath": str(one)}
    assert not look()
    unread = counted("prometheus_sd_file_read_errors_total")
    one.write_text("[{")  # half written: what was there stays
    assert not look() and addresses(found) == ["a:1", "a:2", "b:1"]
    assert str(one) in caplog.text and counted("prometheus_sd_file_read_errors_total") == unread + 1
    one.write_text(json.dumps([{"targets": ["a:3"]}]))
    os.utime(one, ns=(1, 1))
    assert look() and addresses(found) == ["a:3", "b:1"]
    one.unlink()
    assert look() and addresses(found) == ["b:1"]


@pytest.mark.parametrize(
    ("text", "part"),
    [("{}", "list"), ("[1]", "group 0"), ('[{"target": ["a"]}]', '"target"'), ('[{"targets": "a"}]', "targets")],
)
def test_groups_that_are_none_are_named(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        read_groups(text, "f.json", "f", {})


def test_an_endpoint_that_fails_keeps_its_targets() -> None:
    answers: list[Any] = [
        web.json_response([{"targets": ["a:1"], "labels": {"x": "1"}}]),
        web.Response(status=500),
        web.Response(text="[]"),
        web.json_response([{"targets": ["b:1"]}]),
    ]
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers)
        return answers.pop(0) if len(answers) > 1 else web.json_response([{"targets": ["b:1"]}])

    async def go() -> None:
        app = web.Application()
        app.router.add_get("/sd", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/sd"
        published: list[Any] = []
        sd = HttpSD(url, refresh_interval_ms=10, http=HttpClientConfig(basic_auth=BasicAuth("u", password="p")))
        task = asyncio.create_task(HttpDiscovery(sd, "j").run(published.append))
        before = counted("prometheus_sd_refresh_failures_total", mechanism="http", config="j")
        await until(lambda: len(published) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert counted("prometheus_sd_refresh_failures_total", mechanism="http", config="j") == before + 2
        await runner.cleanup()
        assert [addresses(groups) for groups in published] == [["a:1"], ["b:1"]]
        assert published[0][0].labels == {"x": "1", "__meta_url": url}
        assert asked[0]["Authorization"] == "Basic dTpw" and asked[0]["X-Prometheus-Refresh-Interval-Seconds"] == "0.01"

    asyncio.run(go())


class Resolver:
    """Answers what the test sets; an exception is raised."""

    def __init__(self, **records: Any) -> None:
        self.records = records

    async def resolve(self, name: str, kind: str, **_: Any) -> Any:
        found = self.records[kind]
        if isinstance(found, Exception):
            raise found
        return found


def test_records_of_each_type() -> None:
    async def targets(resolver: Resolver, sd: DnsSD) -> list[dict[str, str]]:
        published: list[Any] = []
        task = asyncio.create_task(DnsDiscovery(sd, "j", resolver=resolver).run(published.append))
        await until(lambda: published)
        task.cancel()
        return [dict(target) for group in published[-1] for target in group.targets]

    async def go() -> None:
        srv = Resolver(SRV=[SimpleNamespace(target="web1.local.", port=8080)])
        (found,) = await targets(srv, DnsSD(("_web._tcp.local",)))
        assert found["__address__"] == "web1.local:8080"
        assert found["__meta_dns_srv_record_target"] == "web1.local."
        six = Resolver(AAAA=[SimpleNamespace(address="::1")])
        assert (await targets(six, DnsSD(("x",), "AAAA", 80)))[0]["__address__"] == "[::1]:80"
        assert await targets(Resolver(A=dns.resolver.NXDOMAIN()), DnsSD(("x",), "A", 80)) == []

    asyncio.run(go())


def test_a_name_server_that_fails_keeps_the_targets() -> None:
    async def go() -> None:
        resolver = Resolver(A=[SimpleNamespace(address="10.0.0.1")])
        published: list[Any] = []
        sd = DnsSD(("x",), "A", 80, refresh_interval_ms=5)
        task = asyncio.create_task(DnsDiscovery(sd, "j", resolver=resolver).run(published.append))
        await until(lambda: published)
        resolver.records["A"] = dns.resolver.LifetimeTimeout(timeout=1, errors=[])
        await asyncio.sleep(0.03)
        resolver.records["A"] = [SimpleNamespace(address="10.0.0.2")]
        await until(lambda: len(published) == 2)
        task.cancel()
        assert [addresses(groups) for groups in published] == [["10.0.0.1:80"], ["10.0.0.2:80"]]

    asyncio.run(go())


def test_sections_of_a_job_are_joined_and_go_with_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"targets": [f"{name}:1"]}]))
    one, two = FileSD((f"{tmp_path}/a.json",)), FileSD((f"{tmp_path}/b.json",))

    async def go() -> None:
        found: dict[str, list[TargetGroup]] = {}
        discovery = Discovery(found.__setitem__)
        discovery.set_configs([ScrapeConfig("j", file_sd_configs=(one, two))])
        await until(lambda: addresses(found.get("j", [])) == ["a:1", "b:1"])
        discovery.set_groups("j", [TargetGroup("pod/x", targets=({"__address__": "c:1"},))])
        assert addresses(found["j"]) == ["a:1", "b:1", "c:1"]
        assert len({group.source for group in found["j"]}) == 3
        discovery.set_configs([ScrapeConfig("j", file_sd_configs=(two,))])
        assert addresses(found["j"]) == ["b:1", "c:1"]
        await discovery.close()

    asyncio.run(go())
