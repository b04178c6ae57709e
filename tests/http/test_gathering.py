"""What is written to a connection in one turn of the loop goes out as one."""

import asyncio

from flyball.http.server import Gathering


class Transport:
    def __init__(self):
        self.did = []

    def write(self, data):
        self.did.append(data)

    def close(self):
        self.did.append("closed")

    def is_closing(self):
        return "closed" in self.did

    def get_extra_info(self, name):
        return name


def test_a_head_and_its_body_are_one_write_and_a_close_comes_after_them():
    async def body():
        real = Transport()
        gathering = Gathering(real)
        gathering.write(b"head")
        gathering.write(b"body")
        assert real.did == []
        await asyncio.sleep(0)
        assert real.did == [b"headbody"]
        await asyncio.sleep(0)
        gathering.write(b"last")
        gathering.close()
        gathering.write(b"too late")
        await asyncio.sleep(0)
        assert real.did == [b"headbody", b"last", "closed"]
        assert gathering.get_extra_info("peername") == "peername"

    asyncio.run(body())
