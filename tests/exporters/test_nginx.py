"""The nginx exporter on pages as nginx writes them, and on none."""

import asyncio
import logging

import pytest

from flyball.errors import UpstreamError
from flyball.exporters.nginx import NginxExporter, parse_status
from flyball.http.server import serve

PAGE = """Active connections: 291 
server accepts handled requests
 16630948 16630946 31070465 
Reading: 6 Writing: 179 Waiting: 106 
"""  # noqa: W291 - nginx ends its lines so


def test_the_figures_of_a_page():
    assert parse_status(PAGE) == {
        "nginx_connections_active": 291,
        "nginx_connections_accepted": 16630948,
        "nginx_connections_handled": 16630946,
        "nginx_http_requests_total": 31070465,
        "nginx_connections_reading": 6,
        "nginx_connections_writing": 179,
        "nginx_connections_waiting": 106,
    }


@pytest.mark.parametrize("page", ["", "<html>hi</html>", PAGE.replace("291", "-1"), PAGE.partition("Reading")[0]])
def test_another_page_is_told_from_one_without_requests(page):
    with pytest.raises(UpstreamError, match="not a stub_status page"):
        parse_status(page)


def page_server(page, status=200):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": page.encode()})

    return serve(app, port=0, allowed_hosts=None)


def lines_of(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_an_nginx_that_does_not_answer_has_no_value_but_that(caplog):
    async def main():
        server = await page_server(PAGE)
        url = f"http://127.0.0.1:{server.port}/stub_status"
        exporter = NginxExporter([url], labels={"site": 'a"b'})
        good = lines_of(await exporter.exposition())
        assert good['nginx_http_requests_total{site="a\\"b"}'] == "31070465"
        assert good['nginx_up{site="a\\"b"}'] == "1" and len(good) == 9
        await server.close()
        with caplog.at_level(logging.INFO, "flyball.nginx"):
            for _ in range(2):
                bad = lines_of(await exporter.exposition())
                names = {name.partition("{")[0]: value for name, value in bad.items()}
                assert names == {"nginx_up": "0", "nginx_exporter_build_info": "1"}
        assert len(caplog.records) == 1 and url in caplog.text and "nginx_up is 0" in caplog.text

    asyncio.run(main())


@pytest.mark.parametrize(("page", "status"), [("gone", 404), ("<html>", 200)])
def test_what_answers_otherwise_is_down(caplog, page, status):
    async def main():
        server = await page_server(page, status)
        try:
            text = await NginxExporter([f"http://127.0.0.1:{server.port}/"]).exposition()
        finally:
            await server.close()
        assert "nginx_up 0\n" in text and "requests" not in text
        assert str(status) in caplog.text or "stub_status" in caplog.text

    asyncio.run(main())


def test_several_are_told_apart_and_one_that_is_down_does_not_take_the_other_along():
    async def main():
        server = await page_server(PAGE)
        up, down = f"http://127.0.0.1:{server.port}/", "unix:/nonexistent.sock:/stub_status"
        try:
            found = lines_of(await NginxExporter([up, down]).exposition())
        finally:
            await server.close()
        assert found[f'nginx_up{{addr="{up}"}}'] == "1" and found[f'nginx_up{{addr="{down}"}}'] == "0"
        assert [name for name in found if down in name] == [f'nginx_up{{addr="{down}"}}']

    asyncio.run(main())
