"""At least once: kill -9 of the notifier, replicas cut off from each other, a receiver that is down for an hour.

Alerts are sent again every half second, as Prometheus sends them every minute. Every group must reach the webhook
within group_wait + group_interval + 30 s of the first time that its alert was taken, with no more repeats than there
were kills or cuts; every silence that was acknowledged must be there at the end.
"""

import asyncio
import contextlib
import random
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.alerting.programs import OURS, Collector, Program, collecting, eventually, free_port, program

from gate.report import demand

KILLS, CUTS = 200, 20
GROUP_WAIT_S, GROUP_INTERVAL_S, GRACE_S = 0.5, 1.0, 30.0
OUTAGE_GROUPS = 100


def run(quick: bool = False) -> list[str]:
    kills, cuts = (KILLS // 10, CUTS // 10) if quick else (KILLS, CUTS)
    return [_kills(kills), _cuts(cuts), _outage()]


def _config(url: str) -> str:
    return (
        f"route: {{receiver: hook, group_by: [alertname], group_wait: {int(GROUP_WAIT_S * 1000)}ms, "
        f"group_interval: {int(GROUP_INTERVAL_S * 1000)}ms}}\n"
        f'receivers: [{{name: hook, webhook_configs: [{{url: "{url}/hook"}}]}}]\n'
    )


class _Deliveries:
    """When each group's alert was taken first, and when the webhook was told of it."""

    def __init__(self, collector: Collector) -> None:
        self.taken_s: dict[str, float] = {}
        self._told_s: dict[str, list[float]] = {}
        self._collector, self._read = collector, 0

    def told_s(self) -> dict[str, list[float]]:
        """Brings in what came; the time is that of the look, and looks are frequent."""
        told = self._collector.told.get("/hook", [])
        for body in told[self._read :]:
            self._told_s.setdefault(body["groupLabels"]["alertname"], []).append(time.monotonic())
        self._read = len(told)
        return self._told_s

    def push(self, one: Program, names: list[str]) -> None:
        """Posts alerts; a server that is gone takes none."""
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        with contextlib.suppress(OSError, urllib.error.URLError):
            one.post("/api/v2/alerts", [{"labels": {"alertname": name}, "endsAt": ends} for name in names])
            for name in names:
                self.taken_s.setdefault(name, time.monotonic())

    def check(self, repeats_max: int) -> tuple[int, int, float]:
        """Groups, repeats, and the slowest delivery in seconds."""
        told = self.told_s()
        lost = [name for name in self.taken_s if name not in told]
        demand(not lost, f"{len(lost)} groups never reached the webhook, the first {lost[:3]}")
        slowest_s = max(told[name][0] - taken_s for name, taken_s in self.taken_s.items())
        bound_s = GROUP_WAIT_S + GROUP_INTERVAL_S + GRACE_S
        demand(slowest_s <= bound_s, f"a group reached the webhook after {slowest_s:.1f} s, more than {bound_s:g}")
        repeats = sum(len(times) - 1 for times in told.values())
        demand(repeats <= repeats_max, f"{repeats} repeats, more than the {repeats_max} allowed")
        return len(told), repeats, slowest_s


def _kills(kills: int) -> str:
    rng, silences = random.Random(29), []
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name, collecting() as collector:
        deliveries, names = _Deliveries(collector), []
        flags = ("--cluster.listen-address=", "--log.level=error")
        for life in range(kills + 1):
            with program(OURS, Path(name), _config(collector.url), *flags) as one:
                names = [*(group for group in names if group not in deliveries.told_s()), f"life{life}"]
                silences.append(_silence(one, f"life{life}"))
                ends_s = time.monotonic() + (rng.uniform(0, 3) if life < kills else 4)
                while time.monotonic() < ends_s:
                    deliveries.push(one, [*names, *list(deliveries.taken_s)[-20:]])
                    deliveries.told_s()
                    time.sleep(0.05)
                if life == kills:
                    kept = {silence["id"] for silence in one.get("/api/v2/silences")}
        lost = [id_ for id_ in silences if id_ not in kept]
        demand(not lost, f"{len(lost)} of {len(silences)} acknowledged silences are lost")
        groups, repeats, slowest_s = deliveries.check(kills)
    return (
        f"{kills} kills: {groups} groups told, 0 lost, {repeats} repeats, the slowest after {slowest_s:.1f} s; "
        f"{len(silences)} silences, 0 lost"
    )


def _silence(one: Program, name: str) -> str:
    matcher = {"name": "none", "value": name, "isRegex": False}
    now_s = time.time()
    starts, ends = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s + more_s)) for more_s in (0, 7200))
    body = {"matchers": [matcher], "startsAt": starts, "endsAt": ends, "createdBy": "gate", "comment": name}
    return str(one.post("/api/v2/silences", body)["silenceID"])


class _Link:
    """A port that forwards to another until it is cut."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int) -> None:
        self.port, self.cut = free_port(), False
        self._loop, self._target = loop, target
        self._open: set[asyncio.StreamWriter] = set()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", self.port), loop).result(5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, to_writer}
        await asyncio.gather(_pump(reader, to_writer), _pump(to_reader, writer))
        self._open -= {writer, to_writer}

    def set_cut(self, cut: bool) -> None:
        self.cut = cut
        if cut:
            self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in list(self._open)])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def _cuts(cuts: int) -> str:
    with (
        tempfile.TemporaryDirectory(prefix="flyball-gate-") as name,
        collecting() as collector,
        _loop() as loop,
        contextlib.ExitStack() as stack,
    ):
        deliveries, ports = _Deliveries(collector), [free_port(), free_port()]
        links = [_Link(loop, port) for port in ports]
        both = [
            stack.enter_context(
                program(
                    OURS,
                    Path(name) / str(index),
                    _config(collector.url),
                    f"--cluster.listen-address=127.0.0.1:{ports[index]}",
                    f"--cluster.advertise-address=127.0.0.1:{links[index].port}",
                    f"--cluster.peer=127.0.0.1:{links[1 - index].port}",
                    f"--cluster.peer-name=replica-{index}",
                    "--cluster.peer-timeout=2s",
                    "--log.level=error",
                )
            )
            for index in range(2)
        ]
        silences: list[str] = []
        for cut in range(cuts):
            _until_members(both, 2)
            _push_until_told(deliveries, both, f"joined{cut}", 4)
            for link in links:
                link.set_cut(True)
            _until_members(both, 1)
            silences.append(_silence(both[cut % 2], f"cut{cut}"))
            _push_until_told(deliveries, both, f"cut{cut}", 4)
            for link in links:
                link.set_cut(False)
        _until_members(both, 2)
        for one in both:

            def all_there(one: Program = one) -> bool:
                return set(silences) <= {silence["id"] for silence in one.get("/api/v2/silences")}

            eventually(all_there)
        groups, repeats, slowest_s = deliveries.check(cuts)
    return (
        f"{cuts} cuts between two replicas: {groups} groups told, 0 lost, {repeats} repeats, the slowest after "
        f"{slowest_s:.1f} s; {len(silences)} silences, on both 0 lost"
    )


def _until_members(both: list[Program], count: int) -> None:
    for one in both:
        eventually(lambda one=one: len(one.get("/api/v2/status")["cluster"]["peers"]) == count)


def _push_until_told(deliveries: _Deliveries, both: list[Program], name: str, seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for one in both:
            deliveries.push(one, [name])
        deliveries.told_s()
        time.sleep(0.1)


def _outage() -> str:
    """An hour in virtual time, with the shell that runs in earnest."""
    from tests.alerting.virtualtime import now_ms
    from tests.alerting.virtualtime import run as run_virtually

    from flyball.alerting.alerts import MS, Alert
    from flyball.alerting.config import parse_config
    from flyball.alerting.receivers.sending import DeliveryError
    from flyball.alerting.service import Alertmanager, Settings
    from flyball.model.labels import labels_of

    told: list[str] = []

    async def send(_: Any, notification: Any, *__: Any) -> dict[str, str]:
        if asyncio.get_running_loop().time() < 3600:
            raise DeliveryError("down", retry=True)
        told.extend(value for _, value in notification.group_labels)
        return {}

    async def main() -> None:
        config = (
            "route: {receiver: a, group_by: [alertname]}\nreceivers: [{name: a, webhook_configs: [{url: http://a/}]}]"
        )
        one = Alertmanager(parse_config(config), Settings(), send=send, now_ms=now_ms)
        task = asyncio.get_running_loop().create_task(one.run())
        until_ns = (now_ms() + 9_000_000) * MS
        for number in range(OUTAGE_GROUPS):
            labels = labels_of({"alertname": f"a{number}"})
            one.put_alerts([Alert(labels, (), now_ms() * MS, until_ns, now_ms())])
            await asyncio.sleep(30)
        await asyncio.sleep(3600 + 30 + 300 + 30 - asyncio.get_running_loop().time())
        task.cancel()

    import logging

    logging.disable(logging.ERROR)
    run_virtually(main())
    logging.disable(logging.NOTSET)
    demand(len(set(told)) == OUTAGE_GROUPS, f"{OUTAGE_GROUPS - len(set(told))} groups are lost after an hour")
    demand(len(told) == OUTAGE_GROUPS, f"{len(told) - OUTAGE_GROUPS} repeats after an hour without a crash")
    return f"receiver down for an hour: {len(told)} groups told within group_interval + 30 s of its return, 0 lost"
