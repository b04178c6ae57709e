"""A client joined to a running container; the client is two queues."""

import asyncio
import json

import pytest

from flyball.localcluster.node.attaching import attach

from .fakes import pod, run, until

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Attached:
    """One client, until it leaves or the container ends."""

    def __init__(self, manager, name):
        container = manager.workers[f"uid-{name}"].containers[0]
        self.channels = {}
        self.messages = asyncio.Queue()
        self.task = asyncio.create_task(
            attach(container, lambda: container.alive, True, self.messages.get, self.receive)
        )

    async def receive(self, message):
        if message["type"] == "websocket.send":
            data = message["bytes"]
            self.channels[data[0]] = self.channels.get(data[0], b"") + data[1:]

    def say(self, channel, data):
        self.messages.put_nowait({"type": "websocket.receive", "bytes": bytes((channel,)) + data})

    async def shows(self, channel, wanted):
        await until(lambda: wanted in self.channels.get(channel, b""), what=f"{wanted!r}")

    async def leave(self):
        self.messages.put_nowait({"type": "websocket.disconnect"})
        await asyncio.wait_for(self.task, 5)


async def running(manager, client, one):
    manager.observe("ADDED", one)
    await until(lambda: client.status(one["metadata"]["name"]).get("phase") == "Running")


def test_an_input_for_one_client_ends_with_it_and_its_output_is_seen_to_the_end(tmp_path):
    async def story(manager, client, recorder):
        one = pod("p", ["sh", "-c", "cat; echo over >&2"], stdin=True, stdinOnce=True)
        one["spec"]["restartPolicy"] = "Never"
        await running(manager, client, one)
        attached = Attached(manager, "p")
        attached.say(STDIN, b"no end of line")
        await attached.shows(STDOUT, b"no end of line")
        big = b"x" * 300_000
        attached.say(STDIN, big)
        attached.say(CLOSE, bytes((STDIN,)))
        await asyncio.wait_for(attached.task, 8)
        assert attached.channels[STDOUT] == b"no end of line" + big
        assert attached.channels[STDERR] == b"over\n"
        assert json.loads(attached.channels[ERROR])["status"] == "Success"
        await until(lambda: client.status("p").get("phase") == "Succeeded")

    run(tmp_path, story)


def test_a_program_waits_for_its_client_to_read(tmp_path):
    async def story(manager, client, recorder):
        one = pod("p", ["sh", "-c", "read line; head -c 5000000 /dev/zero"], stdin=True, stdinOnce=True)
        one["spec"]["restartPolicy"] = "Never"
        await running(manager, client, one)
        attached = Attached(manager, "p")
        attached.say(STDIN, b"go\n")
        await asyncio.wait_for(attached.task, 20)
        assert len(attached.channels[STDOUT]) == 5_000_000

    run(tmp_path, story)


def test_a_terminal_takes_the_clients_size_and_outlives_it(tmp_path):
    async def story(manager, client, recorder):
        await running(manager, client, pod("p", ["sh"], tty=True, stdin=True))
        first, second = Attached(manager, "p"), Attached(manager, "p")
        first.say(RESIZE, json.dumps({"Width": 101, "Height": 37}).encode())
        first.say(STDIN, b"stty size\n")
        await first.shows(STDOUT, b"37 101\r\n")
        await second.shows(STDOUT, b"37 101\r\n")
        await first.leave()
        second.say(STDIN, b"echo still $((40 + 2))\n")
        await second.shows(STDOUT, b"still 42\r\n")
        await second.leave()
        assert client.status("p")["phase"] == "Running"

    run(tmp_path, story)


@pytest.mark.parametrize("stream", [STDOUT, STDERR])
def test_a_container_without_an_input_is_overheard(tmp_path, stream):
    async def story(manager, client, recorder):
        script = f"while :; do echo said >&{stream}; sleep 0.05; done"
        await running(manager, client, pod("p", ["sh", "-c", script]))
        attached = Attached(manager, "p")
        await attached.shows(stream, b"said\nsaid\n")
        assert set(attached.channels) == {stream}
        await attached.leave()

    run(tmp_path, story)
