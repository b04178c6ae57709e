"""``flyball alertmanager``, with Alertmanager's flag names."""

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flyball.cli.options import Accepting, ListenAddress, duration, refuse_protection

#: Flags of Alertmanager that are accepted and have no effect here; True for those that take no value.
_WITHOUT_EFFECT = {
    "--log.format": False,
    "--log.silences": True,
    "--alerts.gc-interval": False,
    "--alerts.per-alertname-limit": False,
    "--auto-gomemlimit": True,
    "--auto-gomemlimit.ratio": False,
    "--auto-gomaxprocs": True,
    "--dispatch.maintenance-interval": False,
    "--silences.max-silence-size-bytes": False,
    "--web.get-concurrency": False,
    "--web.timeout": False,
    "--web.systemd-socket": True,
    "--cluster.peers-resolve-timeout": False,
    "--cluster.gossip-interval": False,
    "--cluster.pushpull-interval": False,
    "--cluster.probe-timeout": False,
    "--cluster.reconnect-interval": False,
    "--cluster.allow-insecure-public-advertise-address-discovery": True,
    "--cluster.label": False,
}


def _option(name: str, parameter: str, default: Any, about: str, **more: Any) -> Callable[..., Any]:
    return click.option(name, parameter, default=default, show_default=True, help=about, **more)


@click.command(
    "alertmanager",
    cls=Accepting,
    without_effect=_WITHOUT_EFFECT,
    epilog="Example: flyball alertmanager --config.file=alertmanager.yml",
)
@_option(
    "--config.file",
    "config_file",
    "alertmanager.yml",
    "The configuration, as Alertmanager reads it.",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "--config.generated",
    "generated",
    type=click.Path(path_type=Path, file_okay=False),
    help="A directory: alertmanager.yaml in it, as flyball operator makes it, is in force instead while it is there.",
)
@_option(
    "--storage.path",
    "storage_path",
    "data/",
    "Where silences and the notification log are kept.",
    type=click.Path(path_type=Path, file_okay=False),
)
@_option(
    "--config.auto-reload-interval",
    "auto_reload_ms",
    "0s",
    "How often to look whether the configuration has changed; 0: never.",
    callback=duration,
)
@_option("--data.retention", "retention_ms", "120h", "How long they are kept after their end.", callback=duration)
@_option("--data.maintenance-interval", "maintenance_interval_ms", "15m", "How often old ones go.", callback=duration)
@_option("--silences.max-silences", "silences_max", 0, "The most silences; 0 for no limit.", type=int)
@_option("--dispatch.start-delay", "start_delay_ms", "0s", "Tell nobody for so long after start.", callback=duration)
@_option("--web.listen-address", "listen", ("0.0.0.0:9093",), "Where to listen.", multiple=True, type=ListenAddress())
@_option("--web.external-url", "external_url", "", "The URL under which others reach this server.")
@_option("--web.route-prefix", "route_prefix", "", "The prefix of all paths; the external URL's path by default.")
@_option("--web.config.file", "web_config", "", "TLS and passwords of the API: not supported, must set nothing.")
@_option("--cluster.tls-config", "cluster_tls", "", "TLS among replicas: not supported, must set nothing.")
@_option("--cluster.listen-address", "cluster_listen", "", "Where other replicas reach this one; empty: no replicas.")
@_option("--cluster.advertise-address", "cluster_advertise", "", "The address that they are told.")
@_option("--cluster.peer-name", "peer_name", "", "This replica's name; a random one by default.")
@click.option("--cluster.peer", "peers", multiple=True, help="Another replica's cluster address; may be repeated.")
@_option("--cluster.peer-timeout", "peer_timeout_ms", "15s", "How long each replica waits for one.", callback=duration)
@_option("--cluster.probe-interval", "probe_interval_ms", "1s", "How often others are asked.", callback=duration)
@_option(
    "--cluster.settle-timeout", "settle_timeout_ms", "1m", "The longest wait for others at start.", callback=duration
)
@_option("--cluster.tcp-timeout", "exchange_timeout_ms", "10s", "How long a replica may take.", callback=duration)
@_option("--cluster.reconnect-timeout", "forget_after_ms", "6h", "When a lost one is forgotten.", callback=duration)
@click.option("--enable-feature", "features", multiple=True, help="classic-mode or utf8-strict-mode.")
@_option("--log.level", "log_level", "info", "What to log.", type=click.Choice(["debug", "info", "warn", "error"]))
def command(**given: Any) -> None:
    """Run alerting alone, from an alertmanager.yml.

    Flags have Alertmanager's names; those that have no effect here are accepted and named at start. SIGHUP, and POST
    /-/reload, read the configuration again.
    """
    from flyball.alerting.standalone import StandaloneSettings, run_alertmanager

    level = given.pop("log_level").upper().replace("WARN", "WARNING")
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for flag in ("web_config", "cluster_tls"):
        refuse_protection(given.pop(flag))
    given["features"] = tuple(name for text in given.pop("features") for name in text.split(",") if name)
    settings = StandaloneSettings(**given)
    asyncio.run(run_alertmanager(settings, lambda urls: click.echo(f"flyball: ready at {', '.join(urls)}", err=True)))
