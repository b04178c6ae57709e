"""``flyball agent``, with the flag names of Prometheus' agent mode."""

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click

from flyball.cli.exporter import NodeCommand
from flyball.cli.options import Accepting, ListenAddress, duration, option, size

#: Flags of Prometheus' agent mode that are accepted and have no effect here; True for those that take no value.
_WITHOUT_EFFECT = {
    "--agent": True,
    "--storage.agent.wal-compression": True,
    "--no-storage.agent.wal-compression": True,
    "--storage.agent.wal-compression-type": False,
    "--storage.agent.wal-truncate-frequency": False,
    "--storage.agent.retention.min-time": False,
    "--storage.agent.no-lockfile": True,
    "--web.user-assets": False,
    "--web.console.templates": False,
    "--web.console.libraries": False,
    "--web.page-title": False,
    "--web.cors.origin": False,
    "--web.read-timeout": False,
    "--web.max-connections": False,
    "--scrape.timestamp-tolerance": False,
    "--scrape.adjust-timestamps": True,
    "--log.format": False,
    "--auto-gomemlimit": True,
    "--auto-gomaxprocs": True,
}
_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_FOLDER = click.Path(path_type=Path, file_okay=False)


class _Agent(Accepting, NodeCommand):
    """Takes Prometheus' flags, and node_exporter's."""


@click.command(
    "agent",
    cls=_Agent,
    without_effect=_WITHOUT_EFFECT,
    epilog="Example: flyball agent --config.file=agent.yml --node.kubelet=127.0.0.1:10250",
)
@option(
    "--config.file",
    "config_file",
    "prometheus.yml",
    "The configuration, as Prometheus' agent reads it: remote_write, and targets beyond the node's own.",
    type=click.Path(path_type=Path, dir_okay=False),
)
@option("--storage.agent.path", "storage_path", "data-agent/", "Where the queue is kept.", type=_FOLDER)
@option("--storage.agent.retention.max-time", "max_age_ms", "4h", "Older unsent samples are lost.", callback=duration)
@option("--storage.agent.max-size", "max_bytes", "1GB", "Beyond, the oldest unsent samples are lost.", callback=size)
@option("--storage.agent.wal-segment-size", "segment_bytes", "16MB", "Of one file of the queue.", callback=size)
@option("--storage.memory-limit", "memory_limit_bytes", "128MB", "Memory of the newest samples' arrays.", callback=size)
@option("--storage.remote.flush-deadline", "flush_ms", "1m", "How long to send on when stopped.", callback=duration)
@option("--web.listen-address", "listen", ("0.0.0.0:9090",), "Where to listen.", multiple=True, type=ListenAddress())
@click.option("--web.enable-lifecycle", "lifecycle", is_flag=True, help="Reload by POST to /-/reload.")
@option(
    "--config.auto-reload-interval",
    "auto_reload_ms",
    "30s",
    "How often files are looked at, with --enable-feature=auto-reload-config.",
    callback=duration,
)
@click.option("--enable-feature", "features", multiple=True, help="Feature flags, by comma; may be repeated.")
@click.option("--node.name", "node", help="Labels node and instance of its figures.  [default: $NODE_NAME, the host's]")
@click.option(
    "--node.figures/--no-node.figures", "with_figures", default=True, help="The node's figures, as node_exporter's."
)
@click.option("--node.kubelet", "kubelet", default="", metavar="HOST:PORT", help="The node's kubelet, to be scraped.")
@option("--node.kubelet-token-file", "kubelet_token_file", _TOKEN_FILE, "Its bearer token, read at every scrape.")
@click.option("--node.kubelet-ca-file", "kubelet_ca_file", default="", help="Who signs it; without, nobody is asked.")
@click.option("--path.procfs", "procfs", type=click.Path(path_type=Path), default="/proc", show_default=True)
@click.option("--path.sysfs", "sysfs", type=click.Path(path_type=Path), default="/sys", show_default=True)
@click.option("--path.rootfs", "rootfs", type=click.Path(path_type=Path), default="/", show_default=True)
@click.option("--collector.textfile.directory", "textfile", type=click.Path(path_type=Path), help="Of *.prom files.")
@click.option("--collect", "only", multiple=True, metavar="NAME", help="Only this collector; may be repeated.")
@click.option("--no-collect", "without", multiple=True, metavar="NAME", help="Not this collector; may be repeated.")
@option("--log.level", "log_level", "info", "What to log.", type=click.Choice(["debug", "info", "warn", "error"]))
def command(
    *,
    log_level: str,
    features: tuple[str, ...],
    node: str | None,
    with_figures: bool,
    procfs: Path,
    sysfs: Path,
    rootfs: Path,
    textfile: Path | None,
    only: tuple[str, ...],
    without: tuple[str, ...],
    **given: Any,
) -> None:
    """Ship a node's figures, its kubelet's and other targets' by remote write.

    What is scraped waits on the disk until the receiver has taken it, through outages and restarts. Flags have the
    names of Prometheus' agent mode and of node_exporter. SIGHUP reads the configuration again.
    """
    from flyball.agent import AgentSettings, run_agent
    from flyball.exporters.node import NodeExporter, Paths

    level = log_level.upper().replace("WARN", "WARNING")
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    exporter = NodeExporter(Paths(procfs, sysfs, rootfs, textfile), only, without)
    settings = AgentSettings(
        **given,
        features=tuple(name for text in features for name in text.split(",") if name),
        node=node or os.environ.get("NODE_NAME") or socket.gethostname(),
        figures=exporter.exposition if with_figures else None,
    )
    run_agent(settings, lambda urls: click.echo(f"flyball: ready at {', '.join(urls)}", err=True))
