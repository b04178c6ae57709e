"""``sources`` of the configuration: metric servers that rules name beside the adapter's own.

Our own addition; prometheus-adapter knows one server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flyball.errors import ConfigError
from flyball.metricrules import fields
from flyball.model.durations import parse_duration_ms

MODES = ("failover", "merge")
_FIELDS = (
    "name",
    "url",
    "urls",
    "mode",
    "headers",
    "tenant",
    "verb",
    "timeout",
    "basicAuth",
    "bearerTokenFile",
    "tls",
    "sigv4",
)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One entry of ``sources``.

    Attributes:
        urls: servers of the Prometheus API.
        mode: ``failover`` asks the first that answers; ``merge`` asks all (shards) and joins their series.
        tenant: sent as X-Scope-OrgID.
        basic: user name and the file that holds the password.
        sigv4: AWS region and service, for a signature of every request; None without.
    """

    name: str
    urls: tuple[str, ...]
    mode: str = "failover"
    headers: tuple[tuple[str, str], ...] = ()
    tenant: str = ""
    verb: str = "POST"
    timeout_s: float = 10.0
    basic: tuple[str, str] | None = None
    bearer_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    sigv4: tuple[str, str] | None = None


def parse_source(item: object, where: str) -> SourceConfig:
    """One entry.

    Raises:
        ConfigError: a field is unknown, missing or wrong.
    """
    section = _section(item, where, *_FIELDS)
    name = fields.text(section, "name", where)
    if not name:
        raise ConfigError(f"{where}: name: is missing; rules name the source by it")
    urls = section.get("urls")
    if urls is None:
        urls = [section["url"]] if section.get("url") else []
    if not isinstance(urls, list) or not urls or ("url" in section and "urls" in section):
        raise ConfigError(f"{where}: url: give one, or a list as urls")
    for url in urls:
        parts = urlsplit(str(url))
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.username:
            raise ConfigError(f'{where}: url: "{url}" is not the URL of a Prometheus API; write http://host:9090')
    mode = fields.text(section, "mode", where) or MODES[0]
    if mode not in MODES:
        raise ConfigError(f'{where}: mode: "{mode}" is not known; write {" or ".join(MODES)}')
    verb = fields.text(section, "verb", where) or "POST"
    if verb not in ("GET", "POST"):
        raise ConfigError(f'{where}: verb: "{verb}" is not supported; write GET or POST')
    headers = fields.mapping(section.get("headers") or {}, f"{where}: headers")
    for key, value in headers.items():
        if not isinstance(value, str) or "\n" in value or "\r" in value:
            raise ConfigError(f"{where}: headers.{key}: is not one line of text")
    tls = _section(section.get("tls") or {}, f"{where}: tls", "caFile", "certFile", "keyFile")
    basic = None
    if section.get("basicAuth") is not None:
        here = f"{where}: basicAuth"
        given = _section(section["basicAuth"], here, "username", "passwordFile")
        basic = (fields.text(given, "username", here), fields.text(given, "passwordFile", here))
        if not all(basic):
            raise ConfigError(f"{here}: give username and passwordFile")
    sigv4 = None
    if section.get("sigv4") is not None:
        here = f"{where}: sigv4"
        signed = _section(section["sigv4"], here, "region", "service")
        sigv4 = (fields.text(signed, "region", here), fields.text(signed, "service", here) or "aps")
        if not sigv4[0]:
            raise ConfigError(f"{here}: region: is missing; write one such as eu-central-1")
    bearer_file = fields.text(section, "bearerTokenFile", where)
    if sum((basic is not None, bool(bearer_file), sigv4 is not None)) > 1:
        raise ConfigError(f"{where}: give one of basicAuth, bearerTokenFile and sigv4")
    timeout = fields.text(section, "timeout", where)
    return SourceConfig(
        name,
        tuple(str(url) for url in urls),
        mode,
        tuple((str(key), str(value)) for key, value in headers.items()),
        fields.text(section, "tenant", where),
        verb,
        parse_duration_ms(timeout) / 1000 if timeout else 10.0,
        basic,
        bearer_file,
        fields.text(tls, "caFile", f"{where}: tls"),
        fields.text(tls, "certFile", f"{where}: tls"),
        fields.text(tls, "keyFile", f"{where}: tls"),
        sigv4,
    )


def _section(value: object, where: str, *known: str) -> Mapping[str, Any]:
    section = fields.mapping(value, where)
    fields.known(section, where, *known)
    return section
