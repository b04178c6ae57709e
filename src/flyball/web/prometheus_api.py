"""The Prometheus HTTP API v1 (reference/stack.md 1.1) as one ASGI app: what handles which path."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from flyball import clock
from flyball.errors import FlyballError
from flyball.web.answers import UnavailableError, error, guarded
from flyball.web.catalogue import CatalogueHandlers
from flyball.web.instance import Instance, Store
from flyball.web.parameters import BadDataError, parse_time_ms, unescape_label
from flyball.web.queries import Budget, QueryHandlers
from flyball.web.queue import QueryQueue
from flyball.web.status import StatusHandlers
from flyball.web.telemetry import SERVER

V1 = "/api/v1"
_GET, _BOTH, _CHANGE = ["GET"], ["GET", "POST"], ["POST", "PUT"]
_LABEL = f"{V1}/label/"
_REQUESTS = Counter("prometheus_http_requests", "Requests by answer.", ["code", "handler"])
_DURATIONS = Histogram(
    "prometheus_http_request_duration_seconds",
    "How long answers took.",
    ["handler"],
    buckets=(0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0),
)


def create_app(
    storage: Store,
    targets_provider: Callable[[], Any] | None = None,
    executor: Executor | None = None,
    routes: Sequence[BaseRoute] = (),
    *,
    instance: Instance | None = None,
    budget: Budget | None = None,
    queries_max: int = 1,
    threads_spare: int = 0,
    give_way: Callable[[], Callable[[], None]] | None = None,
) -> Starlette:
    """The API as an ASGI app.

    Args:
        targets_provider: the ``activeTargets`` dicts, when there is no ``instance``.
        executor: the threads in which queries run.
        routes: more routes, tried before all but queries.
        queries_max: queries that run at once.
        threads_spare: threads of the executor beyond those.
        give_way: makes for a query what it calls every now and then, in its thread, to wait for what goes before it.
    """
    instance = SERVER.instance = instance or Instance(targets=targets_provider or list)
    budget = budget or Budget()
    if executor is None:
        raise ValueError("an executor is needed: queries must not run on the event loop")
    queue = QueryQueue(executor, running_max=queries_max, spare=threads_spare, give_way=give_way)
    queries = QueryHandlers(storage, queue, instance, budget)
    catalogue = CatalogueHandlers(storage, queue, instance, budget.timeout_s)
    status = StatusHandlers(storage, queue, instance, budget.timeout_s)
    table: list[tuple[str, Any, list[str]]] = [
        ("/query", queries.query, _BOTH),
        ("/query_range", queries.query_range, _BOTH),
        ("/query_exemplars", queries.query_exemplars, _BOTH),
        ("/format_query", queries.format_query, _BOTH),
        ("/parse_query", queries.parse_query, _BOTH),
        ("/series", catalogue.series, _BOTH),
        ("/labels", catalogue.names, _BOTH),
        ("/label/{name}/values", catalogue.label_values, _GET),
        ("/search/metric_names", catalogue.search_metric_names, _BOTH),
        ("/search/label_names", catalogue.search_label_names, _BOTH),
        ("/search/label_values", catalogue.search_label_values, _BOTH),
        ("/targets", status.targets, _GET),
        ("/targets/metadata", status.target_metadata, _GET),
        ("/targets/relabel_steps", status.relabel_steps, _GET),
        ("/scrape_pools", status.scrape_pools, _GET),
        ("/scrape_pools/config", status.scrape_pool_config, _GET),
        ("/metadata", status.metadata, _GET),
        ("/rules", status.rules, _GET),
        ("/alerts", status.alerts, _GET),
        ("/alertmanagers", status.alertmanagers, _GET),
        ("/features", status.features, _GET),
        ("/notifications", status.notifications, _GET),
        ("/status/config", status.config, _GET),
        ("/status/flags", status.flags, _GET),
        ("/status/buildinfo", status.buildinfo, _GET),
        ("/status/runtimeinfo", status.runtimeinfo, _GET),
        ("/status/tsdb", status.tsdb, _GET),
        ("/status/tsdb/blocks", status.tsdb_blocks, _GET),
        ("/status/walreplay", status.walreplay, _GET),
        ("/status/self_metrics", status.self_metrics, _GET),
        ("/admin/tsdb/delete_series", status.delete_series, _CHANGE),
        ("/admin/tsdb/clean_tombstones", status.clean_tombstones, _CHANGE),
        ("/admin/tsdb/snapshot", status.snapshot, _CHANGE),
    ]
    return _Api(
        {f"{V1}/query": guarded(queries.query), f"{V1}/query_range": guarded(queries.query_range)},
        routes=[
            *routes,
            *(Route(V1 + path, guarded(handler), methods=methods) for path, handler, methods in table),
            Route("/federate", _federate(catalogue), methods=_GET),
            *_management(instance),
            Route(f"{V1}/{{rest:path}}", _unknown, methods=_BOTH),
        ],
    )


class _Api(Starlette):
    """An application that finds queries by their path at once: a short one would wait longer for routes and
    middlewares than for its answer.

    Args:
        hot: path -> what answers it.
    """

    def __init__(self, hot: Mapping[str, Callable[[Request], Awaitable[Response]]], **options: Any) -> None:
        super().__init__(**options)
        self._hot = hot
        self._known = {
            *hot,
            *(route.path for route in self.routes if isinstance(route, Route) and "{" not in route.path),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path, began_s, code = scope["path"], clock.monotonic_s(), 0

        async def counted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        endpoint = self._hot.get(path) if scope["method"] in _BOTH else None
        try:
            if endpoint is None:
                await super().__call__(scope, receive, counted)
            else:
                await (await endpoint(Request(scope, receive, counted)))(scope, receive, counted)
        finally:
            if code:
                handler = path if path in self._known else f"{V1}/label/:name/values" if _LABEL in path else "/*"
                _REQUESTS.labels(str(code), handler).inc()
                _DURATIONS.labels(handler).observe(clock.monotonic_s() - began_s)


def _management(instance: Instance) -> list[BaseRoute]:
    async def healthy(_: Request) -> Response:
        return PlainTextResponse("Flyball is Healthy.\n")

    async def ready(_: Request) -> Response:
        if instance.ready():
            return PlainTextResponse("Flyball is Ready.\n")
        return PlainTextResponse("Service Unavailable\n", 503)

    async def metrics(_: Request) -> Response:
        body = await run_in_threadpool(generate_latest)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def reload(_: Request) -> Response:
        if instance.reload is None:
            return PlainTextResponse("Lifecycle API is not enabled; start with --web.enable-lifecycle\n", 403)
        try:
            await instance.reload()
        except FlyballError as exc:
            return PlainTextResponse(f"failed to reload config: {exc}\n", 500)
        return PlainTextResponse("")

    async def quit_(_: Request) -> Response:
        if instance.quit is None:
            return PlainTextResponse("Lifecycle API is not enabled; start with --web.enable-lifecycle\n", 403)
        instance.quit()
        return PlainTextResponse("Requesting termination... Goodbye!\n")

    alive = ["GET", "HEAD"]
    return [
        Route("/-/healthy", healthy, methods=alive),
        Route("/-/ready", ready, methods=alive),
        Route("/-/reload", reload, methods=_CHANGE),
        Route("/-/quit", quit_, methods=_CHANGE),
        Route("/metrics", metrics, methods=_GET),
    ]


def _federate(catalogue: CatalogueHandlers) -> Any:
    async def endpoint(request: Request) -> Response:
        try:
            return await catalogue.federate(request)
        except BadDataError as exc:
            return PlainTextResponse(f"{exc}\n", 400)
        except UnavailableError as exc:
            return PlainTextResponse(f"{exc}\n", 503)

    return endpoint


async def _unknown(request: Request) -> Response:
    return error(404, "not_found", f"no such endpoint: {request.url.path}")


__all__ = ["Budget", "Instance", "create_app", "parse_time_ms", "unescape_label"]
