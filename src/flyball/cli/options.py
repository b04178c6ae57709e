"""Options that several commands share."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/flyball``, or ``~/.local/share/flyball``."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "flyball"


def data_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_data_dir,
        help="Where everything is kept.  [default: ~/.local/share/flyball]",
    )(function)


class ListenAddress(click.ParamType[tuple[str, int]]):
    """``HOST:PORT`` as Go programs write it: without a host every address is meant, an IPv6 one stands in brackets."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            self.fail(f'"{value}" is not a host:port; write one like 0.0.0.0:9090', param, ctx)
        return host.strip("[]") or "0.0.0.0", int(port)


#: For commands that stand in for another program: its flags that say nothing here are taken all the same.
WITHOUT_EFFECT = {"ignore_unknown_options": True, "allow_extra_args": True}


def say_without_effect(ctx: click.Context) -> None:
    """Logs the flags that were taken and have no effect.

    Raises:
        UsageError: an argument is not a flag.
    """
    for word in ctx.args:
        if not word.startswith("-"):
            raise click.UsageError(f'"{word}" is not expected here', ctx)
    if ctx.args:
        logging.getLogger("flyball").info("flags_without_effect %s", " ".join(w.partition("=")[0] for w in ctx.args))


def port_offset_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--port-offset",
        type=click.IntRange(0, 50_000),
        default=0,
        metavar="N",
        help="Add N to every port: 6443 Kubernetes, 6444 metrics APIs, 9090 Prometheus, 9093 Alertmanager, 10250 node, "
        "10249, 10257 and 10259 series of the control plane.",
    )(function)


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print.")(
        function
    )


def duration(_: click.Context, parameter: click.Parameter, value: str) -> int:
    """A callback: Prometheus' durations to ms."""
    from flyball.errors import ConfigError
    from flyball.model.durations import parse_duration_ms

    try:
        return parse_duration_ms(value)
    except ConfigError as exc:
        raise click.BadParameter(str(exc), param=parameter) from None


def size(_: click.Context, parameter: click.Parameter, value: str) -> int:
    """A callback: Prometheus' sizes to bytes."""
    from flyball.errors import ConfigError
    from flyball.model.reader import parse_size_bytes

    try:
        return parse_size_bytes(value)
    except ConfigError as exc:
        raise click.BadParameter(str(exc), param=parameter) from None


def option(
    name: str, parameter: str, default: Any, about: str, **more: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option whose default is shown."""
    return click.option(name, parameter, default=default, show_default=True, help=about, **more)


class Accepting(click.Command):
    """Takes flags of the upstream program without effect out of the arguments, and says so.

    Args:
        without_effect: by flag, whether it takes no value.
    """

    def __init__(self, *args: Any, without_effect: Mapping[str, bool], **more: Any) -> None:
        super().__init__(*args, **more)
        self._without_effect = without_effect

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        kept, ignored = [], []
        rest = iter(args)
        for arg in rest:
            name = arg.partition("=")[0]
            if name not in self._without_effect:
                kept.append(arg)
                continue
            ignored.append(name)
            if not self._without_effect[name] and "=" not in arg:
                next(rest, None)
        if ignored:
            click.echo(f"flyball: without effect here: {', '.join(ignored)}", err=True)
        return super().parse_args(ctx, kept)


def refuse_protection(path: str) -> None:
    """Whoever asks for TLS or passwords must not be served without.

    Raises:
        ConfigError: the file asks for them, or cannot be read.
    """
    from flyball.errors import ConfigError
    from flyball.model.yaml_loader import load_yaml

    if not path:
        return
    try:
        document = load_yaml(Path(path).read_bytes(), path)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; name the file that is meant") from exc
    asked = [name for name, value in document.items() if value] if isinstance(document, dict) else []
    if asked := [name for name in asked if name != "http_server_config"]:
        raise ConfigError(f"{path}: {', '.join(asked)}: is not supported; put a proxy that does it in front")
