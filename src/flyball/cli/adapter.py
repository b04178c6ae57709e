"""``flyball adapter``: the metrics APIs on any cluster, with prometheus-adapter's flags under their names."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flyball.cli.options import output_option
from flyball.errors import ConfigError
from flyball.memory import look_for_cycles_rarely
from flyball.stopping import told_to_stop

#: Flags of upstream that change nothing here, and why; given, they are named in one line at start.
WITHOUT_EFFECT = {
    "disable-http2": "HTTP/1.1 is what is served",
    "http2-max-streams-per-connection": "HTTP/1.1 is what is served",
    "discovery-interval": "the API server's kinds are read again every minute",
    "client-qps": "objects are watched, not listed for each request",
    "client-burst": "objects are watched, not listed for each request",
    "authentication-kubeconfig": "reviews are asked with the credentials of --lister-kubeconfig",
    "authorization-kubeconfig": "reviews are asked with the credentials of --lister-kubeconfig",
    "authentication-tolerate-lookup-failure": "a lookup that fails is tried again and never ends the adapter",
    "authorization-always-allow-paths": "/healthz, /livez and /readyz are open",
    "tls-min-version": "TLS 1.2 is the least",
    "tls-cipher-suites": "OpenSSL's default suites are used",
    "audit-log-path": "kube-apiserver audits the requests it passes on",
    "audit-policy-file": "kube-apiserver audits the requests it passes on",
    "profiling": "there is no profiler behind HTTP",
    "contention-profiling": "there is no profiler behind HTTP",
    "enable-priority-and-fairness": "kube-apiserver limits the requests it passes on",
    "vmodule": "-v sets the level of everything",
    "logtostderr": "the log goes to standard error",
    "stderrthreshold": "the log goes to standard error",
    "alsologtostderr": "the log goes to standard error",
}


def duration(text: Any) -> float:
    """Seconds of ``1m30s``."""
    from flyball.model.durations import parse_duration_ms

    try:
        return parse_duration_ms(str(text)) / 1000
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


def pair(text: Any) -> tuple[str, str]:
    """The parts of ``namespace/name``."""
    namespace, slash, name = str(text).partition("/")
    if not slash or not namespace or not name:
        raise click.BadParameter(f'"{text}" is not NAMESPACE/NAME')
    return namespace, name


_FILE = click.Path(path_type=str)


def _switch(name: str, about: str, *, default: bool = False, hidden: bool = False) -> Callable[..., Any]:
    """A flag that also takes ``=true`` and ``=false``, as Go's do."""
    return click.option(name, type=bool, is_flag=False, flag_value=True, default=default, help=about, hidden=hidden)


def _without_effect(function: Callable[..., Any]) -> Callable[..., Any]:
    for name in WITHOUT_EFFECT:
        function = click.option(
            f"--{name}", type=str, is_flag=False, flag_value="true", default=None, hidden=True, expose_value=True
        )(function)
    return function


@click.group(
    "adapter",
    invoke_without_command=True,
    epilog="Example: flyball adapter --config adapter.yaml --prometheus-url http://prometheus.monitoring:9090 "
    "--secure-port 6443",
)
@click.option("--config", type=click.Path(path_type=Path), help="prometheus-adapter's configuration file; followed.")
@_switch("--default-rules", "Gauges, counters as rates, histograms as quantiles, where --config has no rule.")
@_switch("--standalone", "Scrape the pods behind HPAs and Governors; no Prometheus is asked.")
@click.option("--prometheus-url", default="https://localhost", show_default=True, help="A Prometheus HTTP API.")
@click.option("--prometheus-verb", type=click.Choice(["GET", "POST"]), default="GET", show_default=True)
@click.option("--prometheus-header", multiple=True, metavar="K=V", help="Sent with every query; may be repeated.")
@_switch("--prometheus-auth-incluster", "Ask Prometheus with the pod's service account.")
@click.option("--prometheus-auth-config", default="", type=_FILE, help="Ask Prometheus with a kubeconfig's user.")
@click.option("--prometheus-ca-file", default="", type=_FILE)
@click.option("--prometheus-client-tls-cert-file", default="", type=_FILE)
@click.option("--prometheus-client-tls-key-file", default="", type=_FILE)
@click.option("--prometheus-token-file", default="", type=_FILE, help="A bearer token; read at every query.")
@click.option("--prometheus-timeout", type=duration, default="10s", show_default=True, help="Of one query.")
@click.option("--metrics-relist-interval", type=duration, default="10m", show_default=True)
@click.option("--metrics-max-age", type=duration, default="0", help="How old a listed series may be. 0: the interval.")
@click.option("--metrics-staleness", type=duration, default="5m", show_default=True, help="Older values are left out.")
@click.option(
    "--metrics-share",
    type=duration,
    default="5s",
    show_default=True,
    help="How long one query's answer for all objects serves every HPA.",
)
@click.option("--lister-kubeconfig", default="", type=_FILE, help="The cluster.  [default: the one we run in]")
@click.option("--secure-port", type=click.IntRange(0, 65535), default=6443, show_default=True)
@click.option("--bind-address", default="0.0.0.0", show_default=True)
@click.option("--cert-dir", type=click.Path(path_type=Path), default="apiserver.local.config/certificates")
@click.option("--cert-secret", type=pair, help="Keep our own authority in this Secret, for several replicas.")
@click.option(
    "--service", type=pair, default="flyball-system/flyball-adapter", help="Our Service, as APIServices name it."
)
@click.option("--tls-cert-file", default="", type=_FILE)
@click.option("--tls-private-key-file", default="", type=_FILE)
@_switch("--authentication-skip-lookup", "Do not read the front proxy's authority from the cluster.")
@click.option("--authentication-token-webhook-cache-ttl", "token_ttl", type=duration, default="10s", show_default=True)
@click.option(
    "--authorization-webhook-cache-authorized-ttl", "allow_ttl", type=duration, default="30s", show_default=True
)
@click.option(
    "--authorization-webhook-cache-unauthorized-ttl", "deny_ttl", type=duration, default="10s", show_default=True
)
@click.option("--requestheader-client-ca-file", default="", type=_FILE)
@click.option("--requestheader-allowed-names", default="")
@click.option("--requestheader-username-headers", default="x-remote-user")
@click.option("--requestheader-group-headers", default="x-remote-group")
@click.option("--requestheader-extra-headers-prefix", default="x-remote-extra-")
@click.option("--proxy-to", default="", metavar="URL", help="Another adapter, asked for what no rule here gives.")
@click.option("--proxy-ca-file", default="", type=_FILE, help="The authority of that adapter's certificate.")
@click.option("--proxy-token-file", default="/var/run/secrets/kubernetes.io/serviceaccount/token", type=_FILE)
@click.option("--otlp-endpoint", default="", metavar="URL", help="Send OpenTelemetry traces there (OTLP over HTTP).")
@click.option("--logging-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--v", "verbosity", type=int, default=0, help="4 and more: debug.")
@_without_effect
def command(**given: Any) -> None:
    """Serve the custom, external and resource metrics APIs from any Prometheus, until SIGTERM.

    Takes prometheus-adapter's configuration and flags as they are. What it does differently on purpose is said in
    the log at start, each with the switch that brings upstream's way back.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    _log(given["logging_format"], given["verbosity"])
    for name, reason in WITHOUT_EFFECT.items():
        if given.get(name.replace("-", "_")) is not None:
            logging.getLogger("flyball").info("flag_without_effect flag=--%s reason=%s", name, reason)
    flags = flags_of(given)
    from flyball.adapter.deployment import run

    look_for_cycles_rarely()

    async def main() -> None:
        stopping = told_to_stop()
        await run(flags, stopping, lambda port: click.echo(f"ready on port {port}"))

    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
    except ExceptionGroup as group:
        raise _first(group) from group


def flags_of(given: dict[str, Any]) -> Any:
    """``deployment.Flags`` from the options.

    Raises:
        ConfigError: the configuration is not named, or flags do not go together.
    """
    from flyball.adapter.access import FrontProxy
    from flyball.adapter.deployment import Flags, PrometheusFlags, ServingFlags
    from flyball.adapter.onward import OnwardFlags

    if given["standalone"] and given["metrics_relist_interval"] == 600.0:
        given["metrics_relist_interval"] = 5.0  # series are at hand
    if given["metrics_max_age"] and given["metrics_max_age"] < given["metrics_relist_interval"]:
        raise ConfigError("--metrics-max-age must not be less than --metrics-relist-interval; series would come and go")
    headers = tuple((key, value) for key, _, value in (item.partition("=") for item in given["prometheus_header"]))
    prometheus = PrometheusFlags(
        given["prometheus_url"],
        given["prometheus_verb"],
        headers,
        given["prometheus_auth_incluster"],
        given["prometheus_auth_config"],
        given["prometheus_ca_file"],
        given["prometheus_client_tls_cert_file"],
        given["prometheus_client_tls_key_file"],
        given["prometheus_token_file"],
        given["prometheus_timeout"],
    )
    front_proxy = FrontProxy() if given["authentication_skip_lookup"] else None
    if given["requestheader_client_ca_file"]:
        try:
            authority = Path(given["requestheader_client_ca_file"]).read_text()
        except OSError as exc:
            raise ConfigError(f"--requestheader-client-ca-file: {exc}") from exc
        front_proxy = FrontProxy(
            authority,
            _words(given["requestheader_allowed_names"]),
            _words(given["requestheader_username_headers"]),
            _words(given["requestheader_group_headers"]),
            extra_prefixes=_words(given["requestheader_extra_headers_prefix"]),
        )
    serving = ServingFlags(
        given["secure_port"],
        given["bind_address"],
        given["tls_cert_file"],
        given["tls_private_key_file"],
        given["cert_dir"],
        given["cert_secret"],
        given["service"],
        front_proxy,
        given["token_ttl"],
        given["allow_ttl"],
        given["deny_ttl"],
    )
    return Flags(
        given["config"],
        prometheus,
        serving,
        OnwardFlags(given["proxy_to"], given["proxy_ca_file"], given["proxy_token_file"]),
        given["lister_kubeconfig"],
        given["metrics_relist_interval"],
        given["metrics_max_age"],
        given["metrics_staleness"],
        given["metrics_share"],
        given["standalone"],
        given["default_rules"],
        otlp_endpoint=given["otlp_endpoint"],
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log(form: str, verbosity: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(_JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.DEBUG if verbosity >= 4 else logging.INFO, handlers=[handler])


@command.command("check", epilog="Example: flyball adapter check adapter.yaml --prometheus-url http://localhost:9090")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prometheus-url", default="", help="Look at its series as well.")
@click.option("--lister-kubeconfig", default="", type=_FILE, help="Know this cluster's kinds, custom ones included.")
@output_option
def check_command(file: Path, prometheus_url: str, lister_kubeconfig: str, output: str) -> None:
    """Say what is wrong in a prometheus-adapter configuration, or will surprise.

    Wrong rules, queries that are no PromQL, rules that cannot share a query; with --prometheus-url also rules without
    series, labels that name no object, and rules that hide each other. Ends with 1 when there is an error.
    """
    findings = asyncio.run(_check(file, prometheus_url, lister_kubeconfig))
    if output == "json":
        click.echo(json.dumps([{"level": f.level, "where": f.where, "message": f.message} for f in findings], indent=2))
    else:
        for finding in findings:
            message = finding.message.removeprefix(f"{finding.where}: ")
            click.echo(f"{finding.level:<8} {finding.where}: {message}")
        errors = sum(finding.level == "error" for finding in findings)
        click.echo(f"{errors} error{'' if errors == 1 else 's'} in {file}")
    sys.exit(any(finding.level == "error" for finding in findings))


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{what}: byte {exc.start} is not UTF-8; save the file as UTF-8") from exc


async def _check(file: Path, prometheus_url: str, kubeconfig: str) -> list[Any]:
    from flyball.adapter.checking import check, check_live
    from flyball.adapter.kinds import ServedKinds
    from flyball.kube import KubeClient
    from flyball.metricrules import KindTable, parse_config
    from flyball.metricrules.resources import BUILT_IN_KINDS
    from flyball.sources import HttpSource, SourceSet

    config = parse_config(_text(file.read_bytes(), str(file)), str(file))
    mapper = KindTable(BUILT_IN_KINDS)
    if kubeconfig:
        async with await KubeClient.from_kubeconfig(kubeconfig) as client:
            kinds = ServedKinds(client)
            await kinds.refresh()
            mapper = kinds.mapper
    findings = check(config, mapper)
    if prometheus_url:
        default = HttpSource(prometheus_url)
        sources = SourceSet(default)
        try:
            sources.apply(config.sources)
            findings += await check_live(config, sources.get, mapper, 3_600_000)
        finally:
            await sources.close()
            await default.close()
    return findings


@command.command(
    "explain",
    epilog="Example: flyball adapter explain --config adapter.yaml --prometheus-url http://localhost:9090 "
    "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests",
)
@click.argument("path")
@click.option("--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prometheus-url", required=True)
@click.option("--lister-kubeconfig", default="", type=_FILE, help="The cluster.  [default: the current context]")
@output_option
def explain_command(path: str, config: Path, prometheus_url: str, lister_kubeconfig: str, output: str) -> None:
    """Follow one path of the metrics APIs: rule, series, PromQL, samples, value.

    Asks the cluster and Prometheus itself, so that it works before anything is installed.
    """
    found = asyncio.run(_explain(path, config, prometheus_url, lister_kubeconfig))
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for key in ("path", "problem", "rule", "series", "metric", "shared"):
        if key in found:
            click.echo(f"{key:<8} {found[key]}")
    for asked in found["queries"]:
        click.echo(f"query    {asked['query']}")
        for sample in asked.get("samples", ())[:10]:
            labels = ",".join(f'{name}="{value}"' for name, value in sample["labels"].items())
            click.echo(f"           {{{labels}}} {sample['value']}")
        rest = len(asked.get("samples", ())) - 10
        if rest > 0:
            click.echo(f"           ... and {rest} more")
        if "samples" in asked and not asked["samples"]:
            click.echo("           no sample")
        if "error" in asked:
            click.echo(f"           {asked['error']}")
    click.echo(f"answer   {found['status']} {json.dumps(found['answer'])}")


async def _explain(path: str, config: Path, prometheus_url: str, kubeconfig: str) -> dict[str, Any]:
    from flyball.adapter.explaining import Recorder, explain
    from flyball.adapter.service import Adapter
    from flyball.kube import KubeClient
    from flyball.sources import HttpSource

    async with await KubeClient.from_environment(kubeconfig or None) as client:
        source = HttpSource(prometheus_url)
        recorder = Recorder(source)
        text = _text(config.read_bytes(), str(config))
        adapter = Adapter(client, recorder, text, config_name=str(config), watch_config_maps=False)
        running = asyncio.create_task(adapter.run())
        try:
            await adapter.refresh()
            return await explain(adapter, recorder, path)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await adapter.close()
            await source.close()


@command.command(
    "migrate", epilog="Example: kubectl get scaledobject -A -o yaml | flyball adapter migrate - > out.yaml"
)
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--name", type=pair, default="flyball-system/flyball-adapter", help="Of the ConfigMap that is written.")
def migrate_command(files: tuple[str, ...], name: tuple[str, str]) -> None:
    """Write what Flyball needs from prometheus-adapter's ConfigMap or KEDA's ScaledObjects.

    Reads manifests or configuration files ("-" is standard input), writes a ConfigMap with the adapter's configuration
    and, for ScaledObjects, HPAs to standard output, and a report of what differs to standard error. Changes nothing.
    """
    from flyball.adapter.migration import migrate
    from flyball.kube.manifests import written
    from flyball.metricrules import KindTable
    from flyball.metricrules.resources import BUILT_IN_KINDS
    from flyball.model.yaml_loader import load_all_yaml

    documents: list[object] = []
    for file in files:
        with click.open_file(file, "rb") as stream:
            documents += load_all_yaml(_text(stream.read(), file), file)
    done = migrate(documents, KindTable(BUILT_IN_KINDS))
    for line in done.report:
        click.echo(line, err=True)
    manifests = list(done.manifests)
    if done.config:
        metadata = {"namespace": name[0], "name": name[1]}
        text = written([done.config])
        manifests.insert(
            0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.yaml": text}}
        )
    click.echo(written(manifests), nl=False)
