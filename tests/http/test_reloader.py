"""Files that change are told, until it was heard."""

import asyncio
from pathlib import Path

import pytest

from flyball.http import reloader
from flyball.http.client import new_session
from flyball.http.reloader import Webhook, files_of, fingerprint, keep_told, on_change


def test_links_that_lead_elsewhere_are_a_change(tmp_path: Path) -> None:
    for name, text in (("old", "1"), ("new", "22")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yml").write_text(text)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "..data").symlink_to(tmp_path / "old")
    (volume / "config.yml").symlink_to("..data/config.yml")
    before = fingerprint(files_of([volume]))
    assert before == fingerprint(files_of([volume]))
    (volume / "..data").unlink()
    (volume / "..data").symlink_to(tmp_path / "new")
    assert fingerprint(files_of([volume])) != before
    assert fingerprint(files_of([tmp_path / "none"])) == ()


def test_somebody_is_called_after_each_change(tmp_path: Path) -> None:
    async def main() -> None:
        called = asyncio.Queue[int]()
        looking = asyncio.create_task(on_change(lambda: [tmp_path / "config.yml"], lambda: called.put(1), 0.01))
        async with asyncio.timeout(10):
            for text in ("a", "ab"):
                await asyncio.sleep(0)  # it has seen the directory as it was
                (tmp_path / "config.yml").write_text(text)
                assert await called.get() == 1
        looking.cancel()

    asyncio.run(main())


def test_a_change_is_told_until_it_was_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloader, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(reloader, "RETRY_S", 0.01)
    asked: list[str] = []
    heard = asyncio.Event()

    async def main() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n")).decode())
            status = "200 OK" if len(asked) == 3 else "500 No"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            writer.close()
            if len(asked) == 3:
                heard.set()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/-/reload"
        async with asyncio.timeout(10), server, new_session() as session:
            task = asyncio.create_task(keep_told([tmp_path], Webhook(url), session))
            await asyncio.sleep(0)  # it has seen the directory as it was
            (tmp_path / "config.yml").write_text("changed")
            await heard.wait()
            task.cancel()

    asyncio.run(main())
    assert asked == ["POST /-/reload HTTP/1.1\r\n"] * 3
