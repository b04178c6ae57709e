"""``flyball sidecar``: the small helpers that stand beside other programs in a pod."""

import asyncio
import logging
from pathlib import Path

import click

from flyball.cli.options import WITHOUT_EFFECT, ListenAddress, say_without_effect
from flyball.stopping import told_to_stop

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("sidecar", epilog="Example: flyball sidecar rbac-proxy --upstream http://127.0.0.1:8081/")
def command() -> None:
    """Run a helper that stands beside another program in a pod."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


@command.command(
    "rbac-proxy",
    context_settings=WITHOUT_EFFECT,
    epilog="Example: flyball sidecar rbac-proxy --secure-listen-address :8443 --upstream http://127.0.0.1:8081/",
)
@click.option("--secure-listen-address", "secure", type=ListenAddress(), help="Where to serve over TLS.")
@click.option("--insecure-listen-address", "plain", type=ListenAddress(), help="Where to serve without.")
@click.option("--upstream", required=True, metavar="URL", help="What is asked for those who may.")
@click.option("--tls-cert-file", "certificate", type=_FILE, help="Without one a certificate is made for this run.")
@click.option("--tls-private-key-file", "key", type=_FILE)
@click.option("--allow-paths", default="", metavar="LIST", help="Patterns with commas; other paths are not found.")
@click.option("--ignore-paths", default="", metavar="LIST", help="Patterns with commas; nobody is asked about these.")
@click.option("--kubeconfig", type=_FILE, help="The cluster.  [default: the one we run in]")
@click.pass_context
def rbac_proxy(
    ctx: click.Context,
    secure: tuple[str, int] | None,
    plain: tuple[str, int] | None,
    upstream: str,
    certificate: Path | None,
    key: Path | None,
    allow_paths: str,
    ignore_paths: str,
    kubeconfig: Path | None,
) -> None:
    """TLS and access checks before a program that has neither; takes kube-rbac-proxy's flags.

    A request needs a bearer token that the API server knows (TokenReview) and its leave for the method and path
    (SubjectAccessReview).
    """
    say_without_effect(ctx)
    if secure is None and plain is None:
        raise click.UsageError("name where to listen with --secure-listen-address")

    async def main() -> None:
        from flyball.adapter.access import DelegatedAccess, FrontProxy
        from flyball.adapter.rbacproxy import RbacProxy, run, server_tls
        from flyball.http.client import new_session
        from flyball.kube import KubeClient

        async with await KubeClient.from_environment(kubeconfig) as client, new_session(decompress=False) as session:
            proxy = RbacProxy(
                upstream,
                DelegatedAccess(client, FrontProxy),
                session,
                allowed=_words(allow_paths),
                open_paths=_words(ignore_paths),
            )
            await run(secure, plain, server_tls(certificate, key, "rbac-proxy"), proxy, told_to_stop())

    asyncio.run(main())


@command.command(
    "reload",
    context_settings=WITHOUT_EFFECT,
    epilog="Example: flyball sidecar reload --volume-dir /etc/config --webhook-url http://127.0.0.1:9115/-/reload",
)
@click.option("--volume-dir", "directories", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option("--webhook-url", "url", required=True)
@click.option("--webhook-method", "method", default="POST", show_default=True)
@click.option("--webhook-status-code", "status", type=int, default=200, show_default=True)
@click.pass_context
def reload(ctx: click.Context, directories: tuple[Path, ...], url: str, method: str, status: int) -> None:
    """Tell a program over HTTP that files beside it have changed; takes configmap-reload's flags."""
    say_without_effect(ctx)

    async def main() -> None:
        from flyball.http.client import new_session
        from flyball.http.reloader import Webhook, keep_told

        async with new_session(timeout_s=10) as session:
            told = asyncio.create_task(keep_told(directories, Webhook(url, method, status), session))
            await told_to_stop().wait()
            told.cancel()

    asyncio.run(main())


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
