"""``flyball server``, with Prometheus' flag names."""

import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from flyball.cli.options import Accepting, ListenAddress, duration, option, refuse_protection, size

#: Flags of Prometheus that are accepted and have no effect here; True for those that take no value.
_WITHOUT_EFFECT = {
    "--storage.tsdb.no-lockfile": True,
    "--storage.tsdb.wal-compression": True,
    "--no-storage.tsdb.wal-compression": True,
    "--storage.tsdb.allow-overlapping-blocks": True,
    "--storage.tsdb.wal-segment-size": False,
    "--storage.tsdb.min-block-duration": False,
    "--storage.tsdb.max-block-duration": False,
    "--storage.tsdb.head-chunks-write-queue-size": False,
    "--storage.remote.flush-deadline": False,
    "--storage.remote.read-sample-limit": False,
    "--storage.remote.read-concurrent-limit": False,
    "--storage.remote.read-max-bytes-in-frame": False,
    "--rules.alert.for-outage-tolerance": False,
    "--rules.alert.for-grace-period": False,
    "--rules.max-concurrent-evals": False,
    "--alertmanager.notification-queue-capacity": False,
    "--web.user-assets": False,
    "--web.console.templates": False,
    "--web.console.libraries": False,
    "--web.page-title": False,
    "--web.cors.origin": False,
    "--web.read-timeout": False,
    "--web.max-connections": False,
    "--web.max-notifications-subscribers": False,
    "--scrape.timestamp-tolerance": False,
    "--scrape.adjust-timestamps": True,
    "--log.format": False,
    "--alertmanager.notification-batch-size": False,
    "--alertmanager.drain-notification-queue-on-shutdown": True,
    "--no-alertmanager.drain-notification-queue-on-shutdown": True,
    "--storage.tsdb.delay-compact-file.path": False,
    "--web.remote-write-receiver.accepted-protobuf-messages": False,
    "--web.search.max-limit": False,
    "--auto-gomemlimit": True,
    "--no-auto-gomemlimit": True,
    "--auto-gomemlimit.ratio": False,
    "--auto-gomaxprocs": True,
    "--no-auto-gomaxprocs": True,
    # These are off unless they are asked for.
    "--no-config.auto-reload": True,
    "--no-storage.tsdb.no-lockfile": True,
    "--no-web.enable-admin-api": True,
    "--no-web.enable-lifecycle": True,
    "--no-web.enable-otlp-receiver": True,
    "--no-web.enable-remote-write-receiver": True,
}


@click.command(
    "server",
    cls=Accepting,
    without_effect=_WITHOUT_EFFECT,
    epilog="Example: flyball server --config.file=prometheus.yml",
)
@option(
    "--config.file",
    "config_file",
    "prometheus.yml",
    "The configuration, as Prometheus reads it.",
    type=click.Path(path_type=Path, dir_okay=False),
)
@option(
    "--storage.tsdb.path",
    "storage_path",
    "data/",
    "Where samples are kept.",
    type=click.Path(path_type=Path, file_okay=False),
)
@option("--storage.tsdb.retention.time", "retention_ms", "15d", "How long samples are kept.", callback=duration)
@option("--storage.tsdb.retention.size", "retention_bytes", "0", "How large blocks may be; 0: any.", callback=size)
@option("--web.listen-address", "listen", ("0.0.0.0:9090",), "Where to listen.", multiple=True, type=ListenAddress())
@option("--web.external-url", "external_url", "", "The URL under which others reach this server.")
@option("--web.route-prefix", "route_prefix", "", "The prefix of all paths; the external URL's path by default.")
@click.option(
    "--web.enable-lifecycle", "lifecycle", is_flag=True, help="Reload and quit by POST to /-/reload, /-/quit."
)
@click.option("--web.enable-admin-api", "admin_api", is_flag=True, help="Delete series and take snapshots by API.")
@click.option(
    "--web.enable-remote-write-receiver",
    "remote_write_receiver",
    is_flag=True,
    help="Take samples by remote write at /api/v1/write.",
)
@click.option(
    "--web.enable-otlp-receiver", "otlp_receiver", is_flag=True, help="Take OTLP metrics at /api/v1/otlp/v1/metrics."
)
@option("--web.config.file", "web_config", "", "TLS and passwords of the API: not supported, must set nothing.")
@click.option("--config.auto-reload", "auto_reload", is_flag=True, help="Read the configuration again when it changes.")
@option(
    "--config.auto-reload-interval",
    "auto_reload_ms",
    "30s",
    "How often files are looked at, with --config.auto-reload.",
    callback=duration,
)
@option("--operator-namespace", "operator_namespace", "", "Also run what flyball operator writes there.")
@option("--rules.alert.resend-delay", "alert_resend_ms", "1m", "Least time between sendings.", callback=duration)
@option("--query.lookback-delta", "lookback_ms", "5m", "How far a query looks back for a sample.", callback=duration)
@option("--query.timeout", "query_timeout_ms", "2m", "How long a query may take.", callback=duration)
@option("--query.max-concurrency", "queries_max", "2", "Queries that run at once.", type=click.IntRange(1, 64))
@option("--query.max-samples", "query_samples_max", "50000000", "Samples of one query.", type=click.IntRange(1))
@option("--query.max-series", "query_series_max", "2000000", "Series of one selector.", type=click.IntRange(1))
@option("--storage.memory-limit", "memory_limit_bytes", "2GB", "Memory of the newest samples' arrays.", callback=size)
@click.option("--enable-feature", "features", multiple=True, help="Feature flags, by comma; may be repeated.")
@option("--log.level", "log_level", "info", "What to log.", type=click.Choice(["debug", "info", "warn", "error"]))
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Run scraping, the store and the Prometheus API alone, from a prometheus.yml.

    Flags have Prometheus' names; flags of Prometheus that have no effect here are accepted and named at start.
    SIGHUP (and POST /-/reload, where enabled) reads the configuration again.
    """
    from flyball.server import ServerSettings, run_server

    level = given.pop("log_level").upper().replace("WARN", "WARNING")
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    flags = _flags(ctx)
    prefix = given.pop("route_prefix") or urlsplit(given["external_url"]).path
    refuse_protection(given.pop("web_config"))
    features = tuple(name for text in given.pop("features") for name in text.split(",") if name)
    if given.pop("auto_reload"):
        features += ("auto-reload-config",)
    settings = ServerSettings(
        **given, route_prefix="/" + prefix.strip("/") if prefix.strip("/") else "", features=features, flags=flags
    )
    run_server(settings, lambda urls: click.echo(f"flyball: ready at {', '.join(urls)}", err=True))


def _flags(ctx: click.Context) -> dict[str, str]:
    """Every flag as it was given, by Prometheus' name."""
    shown = {}
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, tuple):
            text = ",".join(item if isinstance(item, str) else ":".join(map(str, item)) for item in value)
        else:
            text = str(value)
        if parameter.name and parameter.name.endswith("_ms"):
            from flyball.model.durations import format_duration

            text = format_duration(int(text))
        shown[parameter.opts[0].removeprefix("--")] = text
    return shown
