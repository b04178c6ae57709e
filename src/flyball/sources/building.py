"""From configuration to sources: the adapter's own, and those that rules name."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from flyball.errors import ConfigError, UpstreamError
from flyball.http.client import client_tls
from flyball.metricrules import SourceConfig
from flyball.sources.base import MetricsSource
from flyball.sources.combined import FailoverSource, MergedSource, close_all
from flyball.sources.prometheus import HttpSource, Signer


class SourceSet:
    """The sources by name. ``""`` is the adapter's own; the others follow the configuration."""

    def __init__(self, default: MetricsSource) -> None:
        self._default = default
        self._named: dict[str, tuple[SourceConfig, MetricsSource]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> MetricsSource:
        """The source of a name.

        Raises:
            ConfigError: there is none.
        """
        if not name:
            return self._default
        found = self._named.get(name)
        if found is None:
            known = ", ".join(sorted(self._named)) or "none"
            raise ConfigError(f'source: "{name}" is not in sources (known: {known}); add it there')
        return found[1]

    def apply(self, configs: Sequence[SourceConfig]) -> None:
        """Takes the configured sources; one that is unchanged keeps its connections.

        Raises:
            ConfigError: a certificate or a library is missing.
        """
        kept = {config.name: self._named.get(config.name) for config in configs}
        fresh = {}
        for config in configs:
            old = kept[config.name]
            fresh[config.name] = old if old is not None and old[0] == config else (config, source_of(config))
        gone = [source for name, (_, source) in self._named.items() if fresh.get(name, (None, None))[1] is not source]
        self._named = fresh
        if gone:
            task = asyncio.get_running_loop().create_task(close_all(gone), name="close sources")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes the named ones; the default is its owner's."""
        await close_all([source for _, source in self._named.values()])
        self._named.clear()


def source_of(config: SourceConfig) -> MetricsSource:
    """The source of one entry.

    Raises:
        ConfigError: a certificate or a library is missing.
    """
    tls = _tls(config)
    headers = dict(config.headers)
    if config.tenant:
        headers["X-Scope-OrgID"] = config.tenant
    sources = [
        HttpSource(
            url,
            headers=headers,
            tls=tls,
            bearer_file=config.bearer_file,
            basic_file=config.basic,
            signer=sigv4_signer(*config.sigv4) if config.sigv4 else None,
            verb=cast(Literal["GET", "POST"], config.verb),
            timeout_s=config.timeout_s,
        )
        for url in config.urls
    ]
    if len(sources) == 1:
        return sources[0]
    return MergedSource(sources) if config.mode == "merge" else FailoverSource(sources)


def _tls(config: SourceConfig) -> ssl.SSLContext | None:
    if not (config.ca_file or config.cert_file):
        return None
    for path in filter(None, (config.ca_file, config.cert_file, config.key_file)):
        if not Path(path).is_file():
            raise ConfigError(f"source {config.name}: tls: {path}: there is no such file")
    try:
        return client_tls(ca_file=config.ca_file, cert_file=config.cert_file, key_file=config.key_file)
    except (ssl.SSLError, OSError) as exc:
        raise ConfigError(f"source {config.name}: tls: the certificates cannot be used ({exc})") from exc


def sigv4_signer(region: str, service: str) -> Signer:
    """Signs requests as AWS asks (Amazon Managed Service for Prometheus), with the credentials of its usual chain.

    Raises:
        ConfigError: botocore is not installed.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session
    except ImportError as exc:
        raise ConfigError("sigv4 needs the package botocore; pip install 'flyball[aws]'") from exc
    session: Any = Session()

    def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        credentials = session.get_credentials()
        if credentials is None:
            raise UpstreamError("sigv4: no AWS credentials are found; set them as for the AWS command line")
        request = AWSRequest(method, url, {**headers, "Host": urlsplit(url).netloc}, body)
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
        return dict(request.headers.items())

    return sign
