"""The command line: one file a command; parse, call, print. Exit codes: 0 done, 1 failed, 2 wrong input."""

import importlib
import sys
from typing import Any

import click

from flyball import __version__
from flyball.errors import FlyballError

#: command -> (module, hidden); modules are loaded when their command runs, so that --help stays quick
COMMANDS = {
    "up": "Run the whole of Flyball on this machine.",
    "server": "Run scraping, the store and the Prometheus API alone, from a prometheus.yml.",
    "agent": "Ship a node's figures, its kubelet's and other targets' by remote write.",
    "alertmanager": "Run alerting alone, from an alertmanager.yml.",
    "demo": "Run an example under load and watch it scale.",
    "adapter": "Serve the metrics APIs on any cluster, as prometheus-adapter does.",
    "autoscaler": "Act on Governors on any cluster, one leader of several.",
    "operator": "Turn monitoring objects into configuration on any cluster; print what they become.",
    "install": "Print what installs a part of Flyball on a cluster.",
    "explain": "Say why a workload has the replicas it has.",
    "doctor": "Find the first broken link from a pod's metric to its replicas.",
    "exporter": "Run one exporter alone.",
    "sidecar": "Run a helper that stands beside another program in a pod.",
    "test": "Run unit tests of alerting and recording rules.",
    "promql": "Run scenario files of the query language; print an expression in its plain form.",
    "query": "Evaluate PromQL: a table, JSON or a plot in the terminal.",
    "tsdb": "Look into the store's files; export and import samples.",
    "check": "Check a prometheus.yml, an alertmanager.yml or a page of metrics.",
    "replay": "Try policies on recorded load before they go live.",
    "tune": "Find the cheapest settings of an HPA that keep an objective on recorded load.",
    "convert": "Print HorizontalPodAutoscalers as Governors.",
    "scale": "Hold a number of replicas by hand, for a while.",
    "kubeconfig": "Print the kubeconfig of the embedded cluster.",
    "process": "",
}


#: What we are called when kubectl runs us; the cluster is then kubectl's own.
PLUGIN = "kubectl flyball"


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, about in COMMANDS.items() if about]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"flyball.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, about in COMMANDS.items() if about])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FlyballError as exc:
            click.echo(f"flyball: {exc}", err=True)
            sys.exit(exc.exit_code)


@click.group(
    cls=_Commands,
    context_settings={"auto_envvar_prefix": "FLYBALL", "help_option_names": ["-h", "--help"]},
    epilog="Example: flyball up -f examples/webapp/manifests",
)
@click.version_option(__version__)
def main() -> None:
    """From an application's own metrics to its replica count.

    Every option can be given as FLYBALL_COMMAND_OPTION in the environment. Completion:
    eval "$(_FLYBALL_COMPLETE=bash_source flyball)".
    """


def plugin() -> None:
    """The entry point ``kubectl-flyball``, which kubectl runs for ``kubectl flyball``."""
    main(prog_name=PLUGIN)
