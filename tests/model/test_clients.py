"""Proxies and OAuth 2 in configuration: what is read, what is refused, and which proxy a place has."""

from typing import Any

import pytest

from flyball.errors import ConfigError
from flyball.model.clients import ProxyConfig, proxy_of, without_password
from flyball.model.scrapeconfigs import parse_scrape_config, to_document

ENVIRONMENT = {"HTTP_PROXY": "web:3128", "https_proxy": "http://secure:3128", "NO_PROXY": "inside.example.com"}
EXCEPTIONS = "example.com, .only.below, *.stars, 10.0.0.0/8, 192.168.1.1:90, one:8080, [::2]"


@pytest.mark.parametrize(
    ("host", "port", "direct"),
    [
        ("example.com", 80, True),
        ("a.example.com", 80, True),
        ("notexample.com", 80, False),
        ("only.below", 80, False),
        ("x.only.below", 80, True),
        ("x.stars", 80, True),
        ("10.1.2.3", 80, True),
        ("11.1.2.3", 80, False),
        ("192.168.1.1", 90, True),
        ("192.168.1.1", 80, False),
        ("one", 8080, True),
        ("one", 80, False),
        ("::2", 80, True),
        ("localhost", 80, True),
        ("127.0.0.1", 80, True),
        ("else", 80, False),
    ],
)
def test_exceptions_are_read_as_go_reads_them(host: str, port: int, direct: bool) -> None:
    config = ProxyConfig("http://p:1", no_proxy=EXCEPTIONS)
    assert proxy_of(config, "http", host, port, {}) == ("" if direct else "http://p:1")


def test_the_environment_says_a_proxy_for_each_scheme() -> None:
    config = ProxyConfig(from_environment=True)
    assert proxy_of(config, "http", "a", 80, ENVIRONMENT) == "http://web:3128"
    assert proxy_of(config, "https", "a", 443, ENVIRONMENT) == "http://secure:3128"
    assert proxy_of(config, "https", "x.inside.example.com", 443, ENVIRONMENT) == ""
    assert proxy_of(ProxyConfig("http://p:1"), "http", "localhost", 80, ENVIRONMENT) == "http://p:1", "it was asked for"
    assert proxy_of(ProxyConfig(), "http", "a", 80, ENVIRONMENT) == ""


def test_a_url_is_shown_without_its_password() -> None:
    assert without_password("http://u:p@proxy:3128/x") == "http://u:<secret>@proxy:3128/x"
    assert without_password("http://proxy:3128/x:y@z") == "http://proxy:3128/x:y@z"


JOB = {
    "job_name": "j",
    "proxy_url": "http://u:p@proxy:3128",
    "no_proxy": "a",
    "proxy_connect_header": {"X-A": ["1", "2"]},
    "oauth2": {
        "client_id": "c",
        "client_secret": "s",
        "token_url": "https://t/token",
        "scopes": ["a"],
        "endpoint_params": {"x": "y"},
        "tls_config": {"ca_file": "/ca", "max_version": "TLS12"},
        "proxy_from_environment": True,
    },
}


def test_a_job_is_read_and_written_again() -> None:
    config = parse_scrape_config(JOB)
    assert config.http.oauth2 is not None and config.http.oauth2.proxy.from_environment
    assert config.http.proxy.connect_headers == (("X-A", "1, 2"),)
    assert parse_scrape_config(to_document(config)) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proxy_url": "socks5://p"}, "proxy_url: is not the URL of an http proxy"),
        ({"proxy_from_environment": True}, "stands alone"),
        ({"proxy_url": ""}, "no_proxy: needs proxy_url"),
        ({"proxy_url": "", "no_proxy": ""}, "proxy_connect_header: needs proxy_url"),
        ({"basic_auth": {"username": "u"}}, "at most one of basic_auth, oauth2 and authorization"),
        ({"oauth2": {"client_id": "c"}}, "oauth2: token_url: is missing"),
        ({"oauth2": {**JOB["oauth2"], "client_secret_file": "/s"}}, "client_secret_file are both set"),  # type: ignore[dict-item]
    ],
)
def test_what_contradicts_itself_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_scrape_config({**JOB, **change})
