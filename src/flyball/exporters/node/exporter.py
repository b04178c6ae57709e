"""Runs the collectors at a scrape; one that fails does not fail the rest."""

from collections.abc import Collection, Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flyball import __version__, clock
from flyball.errors import ConfigError, FlyballError
from flyball.exporters.node.collectors import COLLECTORS, Collect, Paths
from flyball.exporters.node.parsing import Sample
from flyball.exporters.text import CONTENT_TYPE, labels_text, number_text


class NodeExporter:
    """The machine's metrics.

    Args:
        only: names of collectors; empty means all.
        without: names of collectors that are left out.

    Raises:
        ConfigError: a name is not a collector.
    """

    def __init__(self, paths: Paths, only: Collection[str] = (), without: Collection[str] = ()) -> None:
        for name in (*only, *without):
            if name not in COLLECTORS and name != "textfile":
                known = ", ".join(sorted([*COLLECTORS, "textfile"]))
                raise ConfigError(f'there is no collector "{name}"; known are {known}')
        self._paths = paths
        self._collectors: dict[str, Collect] = {
            name: collect for name, collect in COLLECTORS.items() if name not in without and (not only or name in only)
        }
        self._textfile = "textfile" not in without and (not only or "textfile" in only)

    def exposition(self) -> str:
        """The body of /metrics."""
        families: dict[str, list[Sample]] = {}
        for name, collect in self._collectors.items():
            for sample in _timed(name, collect, self._paths):
                families.setdefault(sample.name, []).append(sample)
        extra = ""
        if self._textfile:
            extra, errors = read_textfiles(self._paths.textfile)
            families["node_textfile_scrape_error"] = [Sample("node_textfile_scrape_error", float(errors))]
        build = {"version": __version__, "goversion": "", "branch": "", "revision": "", "goos": "linux", "goarch": ""}
        families["node_exporter_build_info"] = [Sample("node_exporter_build_info", 1.0, build)]
        return "".join(_family_text(name, families[name]) for name in sorted(families)) + extra

    def app(self) -> Starlette:
        """/metrics and /."""

        async def metrics(_: Request) -> Response:
            return Response(await run_in_threadpool(self.exposition), headers={"content-type": CONTENT_TYPE})

        async def index(_: Request) -> Response:
            return PlainTextResponse("Node exporter: /metrics\n")

        return Starlette(routes=[Route("/metrics", metrics), Route("/", index)])


def _timed(name: str, collect: Collect, paths: Paths) -> Iterator[Sample]:
    """A collector's samples, then how it went. What a failing one had is dropped: half of it would mislead."""
    started_s = clock.monotonic_s()
    try:
        samples = list(collect(paths))
        success = 1.0
    except (OSError, ValueError, IndexError, AttributeError):
        samples, success = [], 0.0
    yield from samples
    labels = {"collector": name}
    yield Sample("node_scrape_collector_duration_seconds", clock.monotonic_s() - started_s, labels)
    yield Sample("node_scrape_collector_success", success, labels)


def _family_text(name: str, samples: list[Sample]) -> str:
    lines = [f"# TYPE {name} {samples[0].type}\n"]
    lines += [f"{name}{labels_text(one.labels)} {number_text(one.value)}\n" for one in samples]
    return "".join(lines)


def read_textfiles(directory: Path | None) -> tuple[str, int]:
    """The text of every ``*.prom`` file that reads as exposition, and how many do not."""
    from flyball.exposition import parse

    if directory is None:
        return "", 0
    texts, errors = [], 0
    for path in sorted(directory.glob("*.prom")):
        try:
            text = path.read_text()
            parse(text.encode())
        except (OSError, ValueError, FlyballError):
            errors += 1
            continue
        texts.append(text if text.endswith("\n") else text + "\n")
    return "".join(texts), errors


__all__ = ["NodeExporter", "read_textfiles"]
