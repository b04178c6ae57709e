"""What a section of Prometheus' or Alertmanager's configuration says of HTTP requests (upstream's HTTPClientConfig)."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from flyball.errors import ConfigError
from flyball.model.reader import Reader, mapping_of, text_mapping_of


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Through which proxy requests go; without a URL and the environment's, through none.

    Attributes:
        no_proxy: hosts that are asked directly: names, ``.suffixes``, addresses and networks, each with a port or not.
        connect_headers: sent to the proxy where it passes on a connection.
    """

    url: str = ""
    from_environment: bool = False
    no_proxy: str = ""
    connect_headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TLSConfig:
    """How an https target is verified; ``ca``, ``cert`` and ``key`` are PEM texts, the ``*_file`` fields are paths."""

    ca: str = ""
    ca_file: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure_skip_verify: bool = False
    min_version: str = ""
    max_version: str = ""


NO_PROXY = ProxyConfig()


@dataclass(frozen=True, slots=True)
class Authorization:
    """The Authorization header; ``credentials_file`` is read at every request."""

    type: str = "Bearer"
    credentials: str = field(default="", repr=False)
    credentials_file: str = ""


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """HTTP basic authentication."""

    username: str = ""
    username_file: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class OAuth2:
    """Client credentials for which ``token_url`` gives bearer tokens."""

    client_id: str
    token_url: str
    client_secret: str = field(default="", repr=False)
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ()
    endpoint_params: tuple[tuple[str, str], ...] = ()
    tls: TLSConfig | None = None
    proxy: ProxyConfig = NO_PROXY


@dataclass(frozen=True, slots=True)
class HttpClientConfig:
    """How requests are made: as whom, through which proxy, and how the other side is verified."""

    authorization: Authorization | None = None
    basic_auth: BasicAuth | None = None
    oauth2: OAuth2 | None = None
    tls: TLSConfig | None = None
    proxy: ProxyConfig = NO_PROXY
    headers: tuple[tuple[str, str], ...] = ()
    follow_redirects: bool = True


HTTP_DEFAULT = HttpClientConfig()


def read_http_client(reader: Reader) -> HttpClientConfig:
    """The client's fields of a section, which may have others.

    Raises:
        ConfigError: a field has a bad value, or there are two ways to say who asks.
    """
    found = HttpClientConfig(
        authorization=read_authorization(reader),
        basic_auth=reader.nested("basic_auth", read_basic_auth),
        oauth2=reader.nested("oauth2", read_oauth2),
        tls=reader.nested("tls_config", read_tls),
        proxy=read_proxy(reader),
        headers=read_http_headers(reader),
        follow_redirects=reader.flag("follow_redirects", True),
    )
    if sum(one is not None for one in (found.authorization, found.basic_auth, found.oauth2)) > 1:
        raise reader.error("authorization", "at most one of basic_auth, oauth2 and authorization may be set; keep one")
    reader.take("enable_http2")
    return found


def http_client_document(config: HttpClientConfig) -> dict[str, Any]:
    """What ``read_http_client`` reads, fields at their default left out; secrets are in it."""
    document: dict[str, Any] = {}
    if config.authorization is not None:
        document["authorization"] = set_fields(config.authorization) | {"type": config.authorization.type}
    if config.basic_auth is not None:
        document["basic_auth"] = set_fields(config.basic_auth)
    if config.oauth2 is not None:
        document["oauth2"] = oauth2_document(config.oauth2)
    if config.tls is not None:
        document["tls_config"] = tls_document(config.tls)
    document |= proxy_document(config.proxy)
    if config.headers:
        document["http_headers"] = {name: {"values": [value]} for name, value in config.headers}
    if not config.follow_redirects:
        document["follow_redirects"] = False
    return document


def set_fields(section: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their default (or have none), tuples as lists."""
    found = {}
    for item in fields(section):
        value = getattr(section, item.name)
        if value != item.default:
            found[item.name] = list(value) if isinstance(value, tuple) else value
    return found


def read_authorization(reader: Reader) -> Authorization | None:
    token, token_file = reader.text("bearer_token", ""), reader.text("bearer_token_file", "")
    found = reader.nested("authorization", _authorization_section)
    if token or token_file:
        if found is not None or (token and token_file):
            raise reader.error("bearer_token", "is given in more than one way; keep one")
        return Authorization(credentials=token, credentials_file=token_file)
    return found


def _authorization_section(reader: Reader) -> Authorization:
    found = Authorization(
        type=reader.text("type", "Bearer").strip() or "Bearer",
        credentials=reader.text("credentials", ""),
        credentials_file=reader.text("credentials_file", ""),
    )
    if found.type.lower() == "basic":
        raise reader.error("type", "Basic is set with basic_auth; use that section instead")
    if found.credentials and found.credentials_file:
        raise reader.error("credentials", "and credentials_file are both set; keep one")
    return found


def read_basic_auth(reader: Reader) -> BasicAuth:
    found = BasicAuth(**{item.name: reader.text(item.name, "") for item in fields(BasicAuth)})
    if found.password and found.password_file:
        raise reader.error("password", "and password_file are both set; keep one")
    if found.username and found.username_file:
        raise reader.error("username", "and username_file are both set; keep one")
    return found


def read_http_headers(reader: Reader) -> tuple[tuple[str, str], ...]:
    """Headers by name; several values are one, joined by commas."""
    value = reader.take("http_headers")
    headers = []
    for name, section in mapping_of(value or {}, f"{reader.what}: http_headers").items():
        inner = Reader(mapping_of(section, f"{reader.what}: http_headers"), f"{reader.what}: http_headers: {name}")
        headers.append((str(name), ", ".join((*inner.texts("values"), *inner.texts("secrets")))))
        inner.finish()
    return tuple(headers)


def read_proxy(reader: Reader) -> ProxyConfig:
    """The proxy's fields of a section.

    Raises:
        ConfigError: they contradict each other, or the URL is none of a proxy.
    """
    found = ProxyConfig(
        url=reader.text("proxy_url", ""),
        from_environment=reader.flag("proxy_from_environment", False),
        no_proxy=reader.text("no_proxy", ""),
        connect_headers=tuple(
            (name, ", ".join(values)) for name, values in reader.text_lists("proxy_connect_header").items()
        ),
    )
    if found.from_environment and (found.url or found.no_proxy):
        raise reader.error("proxy_from_environment", "stands alone; remove proxy_url and no_proxy")
    if found.no_proxy and not found.url:
        raise reader.error("no_proxy", "needs proxy_url; set it")
    if found.connect_headers and not found.url and not found.from_environment:
        raise reader.error("proxy_connect_header", "needs proxy_url or proxy_from_environment; set one")
    if found.url:
        try:
            check_proxy(found.url)
        except ConfigError as exc:
            raise reader.error("proxy_url", str(exc)) from exc
    return found


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"^([^/?#]*//[^/?#:@]*):[^/?#@]*@", r"\1:<secret>@", url)


def check_proxy(url: str) -> None:
    """
    Raises:
        ConfigError: not the URL of a proxy that is spoken to here; its value may hold a password.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("is not the URL of an http proxy; write one like http://proxy.example.com:3128")


def read_oauth2(reader: Reader) -> OAuth2:
    """The section ``oauth2``.

    Raises:
        ConfigError: a field that is needed is missing, or two are one too many.
    """
    found = OAuth2(
        client_id=reader.text("client_id", ""),
        token_url=reader.text("token_url", ""),
        client_secret=reader.text("client_secret", ""),
        client_secret_file=reader.text("client_secret_file", ""),
        scopes=reader.texts("scopes"),
        endpoint_params=tuple(
            text_mapping_of(reader.take("endpoint_params") or {}, f"{reader.what}: endpoint_params").items()
        ),
        tls=reader.nested("tls_config", read_tls),
        proxy=read_proxy(reader),
    )
    for name in ("client_id", "token_url"):
        if not getattr(found, name):
            raise reader.error(name, "is missing; set it")
    if found.client_secret and found.client_secret_file:
        raise reader.error("client_secret", "and client_secret_file are both set; keep one")
    return found


def read_tls(reader: Reader) -> TLSConfig:
    skip = reader.flag("insecure_skip_verify", False)
    texts = {item.name: reader.text(item.name, "") for item in fields(TLSConfig) if item.name != "insecure_skip_verify"}
    found = TLSConfig(**texts, insecure_skip_verify=skip)
    if found.ca and found.ca_file:
        raise reader.error("ca", "and ca_file are both set; keep one")
    if bool(found.cert) != bool(found.key) or (found.cert and found.cert_file):
        raise reader.error("cert", "and key belong together, without cert_file; set both or none")
    if bool(found.cert_file) != bool(found.key_file):
        raise reader.error("cert_file", "and key_file belong together; set both or none")
    for name in ("min_version", "max_version"):
        if getattr(found, name) not in ("", "TLS12", "TLS13"):
            raise reader.error(name, f'"{getattr(found, name)}" is not supported; write TLS12 or TLS13')
    if (found.min_version, found.max_version) == ("TLS13", "TLS12"):
        raise reader.error("max_version", "TLS12 is below min_version TLS13; raise it")
    return found


def tls_document(config: TLSConfig) -> dict[str, Any]:
    """What ``read_tls`` reads; secrets are in it."""
    return set_fields(config)


def proxy_document(config: ProxyConfig) -> dict[str, Any]:
    """What ``read_proxy`` reads; secrets are in it."""
    document: dict[str, Any] = {
        "proxy_url": config.url,
        "no_proxy": config.no_proxy,
        "proxy_from_environment": config.from_environment,
        "proxy_connect_header": {name: [value] for name, value in config.connect_headers},
    }
    return {name: value for name, value in document.items() if value}


def oauth2_document(config: OAuth2) -> dict[str, Any]:
    """What ``read_oauth2`` reads; secrets are in it."""
    document: dict[str, Any] = {
        "client_id": config.client_id,
        "client_secret": config.client_secret,
        "client_secret_file": config.client_secret_file,
        "token_url": config.token_url,
        "scopes": list(config.scopes),
        "endpoint_params": dict(config.endpoint_params),
        "tls_config": tls_document(config.tls) if config.tls is not None else {},
    }
    return {name: value for name, value in document.items() if value} | proxy_document(config.proxy)


def proxy_of(config: ProxyConfig, scheme: str, host: str, port: int, environment: Mapping[str, str]) -> str:
    """The URL of the proxy for a place; empty for none.

    Args:
        environment: of the process, for ``from_environment``.
    """
    url, never = config.url, config.no_proxy
    if config.from_environment:
        url = environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY") or ""
        never = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if url and "://" not in url:
            url = f"http://{url}"
    if not url or ((never or config.from_environment) and _is_direct(host, port, never)):
        return ""
    return url


def proxy_of_url(config: ProxyConfig, url: str, environment: Mapping[str, str]) -> str:
    """As ``proxy_of``, for a URL; one that is none has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return ""
    return proxy_of(config, parts.scheme, parts.hostname or "", port, environment)


def _is_direct(host: str, port: int, never: str) -> bool:
    """As Go's httpproxy decides: this machine is never asked through a proxy where there are exceptions at all."""
    host = host.lower().strip("[]")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in (one.strip().lower() for one in never.split(",")):
        if not entry:
            continue
        if entry == "*":
            return True
        if "/" in entry:
            try:
                if address is not None and address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                pass
            continue
        name, _, wanted = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
        if wanted and int(wanted) != port:
            continue
        known = _address(name.strip("[]"))
        if known is not None:
            if known == address:
                return True
            continue
        name = name.removeprefix("*")
        if host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}"):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
