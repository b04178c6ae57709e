"""From a path of the metrics APIs to its value, step by step: rule, series, queries, samples, answer."""

from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from flyball.adapter.access import TokenAccess
from flyball.adapter.api import MetricsApp
from flyball.adapter.documents import CUSTOM, EXTERNAL
from flyball.adapter.service import Adapter
from flyball.adapter.sharing import NotShareable, shared_custom
from flyball.errors import ConfigError, FlyballError
from flyball.metricrules.resources import NAMESPACES
from flyball.model.labels import Labels
from flyball.sources import MetricsSource, Sample


class Recorder:
    """A source that remembers what it was asked, and what it answered."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self.queries: list[tuple[str, list[Sample] | FlyballError]] = []

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """See ``MetricsSource.query``."""
        try:
            found = await self._source.query(expr, at_ms)
        except FlyballError as exc:
            self.queries.append((expr, exc))
            raise
        self.queries.append((expr, found))
        return found

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """See ``MetricsSource.series``."""
        return await self._source.series(match, start_ms, end_ms)


async def explain(adapter: Adapter, recorder: Recorder, path: str) -> dict[str, Any]:
    """Asks one path and tells how the answer came about. The adapter must have listed its series.

    Raises:
        ConfigError: the path is none of the metrics APIs.
    """
    try:
        plain = urlsplit(path).path
    except ValueError:
        plain = ""
    if not plain.startswith("/apis/"):
        raise ConfigError(
            f'"{path}" is no path of the metrics APIs; write one like '
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests"
        )
    recorder.queries.clear()
    found = _rule_of(adapter, plain)
    status, body = await ask_path(adapter, path)
    found["queries"] = [
        {
            "query": expr,
            **(
                {"error": str(answer)}
                if isinstance(answer, FlyballError)
                else {"samples": [{"labels": dict(sample.labels), "value": sample.value} for sample in answer]}
            ),
        }
        for expr, answer in recorder.queries
    ]
    found["status"], found["answer"] = status, msgspec.json.decode(body)
    return found


def _rule_of(adapter: Adapter, path: str) -> dict[str, Any]:
    parts = [unquote(part) for part in path.strip("/").split("/")]
    found: dict[str, Any] = {"path": path}
    if parts[:2] == ["apis", EXTERNAL] and len(parts) == 6:
        external = adapter.registry.external(parts[5])
        if external is not None:
            found |= {"rule": external.rule.where, "series": external.series, "metric": external.name}
        return found
    if parts[:2] != ["apis", CUSTOM] or len(parts) < 6:
        return found
    name = parts[-1]
    resource = "namespaces" if parts[3] == "namespaces" and parts[5] == "metrics" else parts[-3]
    kind = adapter.find_kind(resource)
    if kind is None:
        return found | {"problem": f'the API server serves no resource "{resource}"'}
    namespaced = kind.namespaced and kind.group_resource != NAMESPACES
    metric = adapter.registry.custom(kind.group_resource, namespaced, name)
    if metric is None:
        near = sorted({str(item.resource) for item in adapter.registry.custom_metrics() if item.name == name})
        also = f"; it is one of {', '.join(near)}" if near else "; no rule gives a metric of this name"
        return found | {"problem": f'no rule gives "{name}" for {kind.group_resource}{also}'}
    found |= {"rule": metric.rule.where, "series": metric.series, "metric": f"{metric.resource}/{name}"}
    try:
        shared_custom(metric, (), None)
        found["shared"] = "one query serves every HPA"
    except (NotShareable, FlyballError) as exc:
        found["shared"] = f"asked for each HPA alone: {exc}"
    return found


async def ask_path(adapter: Adapter, path: str) -> tuple[int, bytes]:
    """The adapter's own answer, status and body, without a socket."""
    app = MetricsApp(adapter, TokenAccess("explain"))
    url = urlsplit(path)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(url.path),
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": [(b"authorization", b"Bearer explain")],
    }
    await app(scope, None, send)
    return sent[0]["status"], sent[1]["body"]
