"""API v2 and the endpoints beside it. Source: Alertmanager api/v2/openapi.yaml and api/v2/api.go."""

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import re2
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from flyball import __version__, clock
from flyball.alerting.alerts import MS, Alert, compare_labels, in_order, parse_time_ns, read_alert
from flyball.alerting.cluster import Cluster
from flyball.alerting.config import Receiver
from flyball.alerting.matchers import parse_matcher
from flyball.alerting.service import Alertmanager, Status, keyed
from flyball.alerting.silences import Silence, State, matcher_document, read_matcher
from flyball.errors import FlyballError, NotFoundError, QueryError
from flyball.model.labels import Labels, Matcher, MatchType

_BODY_MAX = 32 << 20
_NO_STORE = {"Cache-Control": "no-store"}
_STATE_ORDER = {State.ACTIVE: 0, State.PENDING: 1, State.EXPIRED: 2}
_encode = msgspec.json.encode

Handler = Callable[[Request], Awaitable[Response]]
Reload = Callable[[], Awaitable[None]]


class _UnprocessableError(Exception):
    """A body or parameter is not of its form: 422, as go-openapi answers."""


def create_app(
    alertmanager: Alertmanager, *, reload: Reload | None = None, cluster: Cluster | None = None, prefix: str = ""
) -> Any:
    """The ASGI application.

    Args:
        reload: reads the configuration again and raises ConfigError where it is wrong; None answers 404.
        prefix: before every path.
    """
    api = _Api(alertmanager, reload, cluster)
    routes: list[BaseRoute] = [
        Route("/api/v2/status", _guarded(api.status)),
        Route("/api/v2/receivers", _guarded(api.receivers)),
        Route("/api/v2/silences", _guarded(api.silences), methods=["GET"]),
        Route("/api/v2/silences", _guarded(api.post_silence), methods=["POST"]),
        Route("/api/v2/silence/{id}", _guarded(api.silence), methods=["GET"]),
        Route("/api/v2/silence/{id}", _guarded(api.delete_silence), methods=["DELETE"]),
        Route("/api/v2/alerts", _guarded(api.alerts), methods=["GET"]),
        Route("/api/v2/alerts", _guarded(api.post_alerts), methods=["POST"]),
        Route("/api/v2/alerts/groups", _guarded(api.groups)),
        Route("/-/healthy", _ok),
        Route("/-/ready", _ok),
        Route("/metrics", api.metrics),
        Route("/", _front),
    ]
    if reload is not None:
        routes.append(Route("/-/reload", api.reload, methods=["POST"]))
    if not prefix:
        return Starlette(routes=routes)

    async def to_prefix(_: Request) -> Response:
        return RedirectResponse(prefix + "/")

    return Starlette(routes=[Route("/", to_prefix), Mount(prefix, app=Starlette(routes=routes))])


async def _ok(_: Request) -> Response:
    return PlainTextResponse("OK")


async def _front(_: Request) -> Response:
    return PlainTextResponse("Alertmanager API v2 at api/v2/; metrics at metrics\n")


def _json(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json", headers=_NO_STORE)


def _guarded(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except _UnprocessableError as exc:
            return _json({"code": 422, "message": str(exc)}, 422)
        except FlyballError as exc:
            status = 400 if exc.status == 500 and exc.exit_code == 2 else exc.status
            return _json(str(exc), status)

    return endpoint


class _Api:
    def __init__(self, alertmanager: Alertmanager, reload: Reload | None, cluster: Cluster | None) -> None:
        self._alertmanager, self._reload, self._cluster = alertmanager, reload, cluster

    # -- the server

    async def reload(self, _: Request) -> Response:
        assert self._reload is not None
        try:
            await self._reload()
        except FlyballError as exc:
            return PlainTextResponse(f"failed to reload config: {exc}\n", 500)
        return PlainTextResponse("")

    async def metrics(self, _: Request) -> Response:
        self._alertmanager.measure()
        page = generate_latest(self._alertmanager.metrics.registry)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(self, _: Request) -> Response:
        cluster = self._cluster
        shown: dict[str, Any] = {"status": "disabled", "peers": []}
        if cluster is not None:
            own = {"name": cluster.settings.name, "address": cluster.settings.address}
            others = [{"name": one.name, "address": one.address} for one in cluster.members() if one.alive]
            peers = sorted([own, *others], key=lambda one: one["name"])
            shown = {"name": cluster.settings.name, "status": cluster.status, "peers": peers}
        names = ("revision", "branch", "buildUser", "buildDate", "goVersion")
        return _json(
            {
                "cluster": shown,
                "config": {"original": self._alertmanager.config.text},
                "uptime": _time_ms(self._alertmanager.started_ms),
                "versionInfo": {"version": __version__, **dict.fromkeys(names, "")},
                "problems": list(self._alertmanager.config.problems),
            }
        )

    async def receivers(self, request: Request) -> Response:
        wanted = self._matchers(request, "receiver_matchers")
        receivers = self._alertmanager.config.receivers.values()
        return _json([self._receiver(one) for one in receivers if _fits(wanted, one.labels)])

    def _receiver(self, receiver: Receiver) -> dict[str, Any]:
        """With each integration's last attempt, beyond the schema, in Grafana's words: where its owner looks."""
        shown = []
        for key, integration in keyed(receiver):
            last = self._alertmanager.attempts.get(key)
            shown.append(
                {
                    "name": key.removeprefix(f"{receiver.name}/"),
                    "sendResolved": integration.send_resolved,
                    "lastNotifyAttempt": _time_ms(last.at_ms) if last else "0001-01-01T00:00:00.000Z",
                    "lastNotifyAttemptDuration": f"{last.took_s:g}s" if last else "0s",
                    **({"lastNotifyAttemptError": last.error} if last and last.error else {}),
                }
            )
        return {"name": receiver.name, "labels": dict(receiver.labels), "integrations": shown}

    # -- silences

    async def silences(self, request: Request) -> Response:
        wanted = self._matchers(request, "filter")
        now_ms = self._alertmanager.now_ms()

        def order(silence: Silence) -> tuple[int, int]:
            state = silence.state(now_ms)
            time_ms = {State.ACTIVE: silence.ends_ms, State.PENDING: silence.starts_ms}.get(state, -silence.ends_ms)
            return _STATE_ORDER[state], time_ms

        found = [one for one in self._alertmanager.silences if all(matcher in one.matchers for matcher in wanted)]
        return _json([_silence_document(one, now_ms) for one in sorted(found, key=order)])

    async def silence(self, request: Request) -> Response:
        try:
            found = self._alertmanager.silences.get(request.path_params["id"])
        except NotFoundError:
            return Response(status_code=404, headers=_NO_STORE)
        return _json(_silence_document(found, self._alertmanager.now_ms()))

    async def delete_silence(self, request: Request) -> Response:
        try:
            self._alertmanager.expire_silence(request.path_params["id"])
        except NotFoundError:
            return Response(status_code=404, headers=_NO_STORE)
        return Response(headers=_NO_STORE)

    async def post_silence(self, request: Request) -> Response:
        silence = _read_silence(await _body(request, "silence"))
        if silence.starts_ms >= silence.ends_ms:
            raise QueryError("Failed to create silence: start time must be before end time")
        if silence.ends_ms < self._alertmanager.now_ms():
            raise QueryError("Failed to create silence: end time can't be in the past")
        return _json({"silenceID": self._alertmanager.put_silence(silence)})

    # -- alerts

    async def post_alerts(self, request: Request) -> Response:
        """Valid alerts are taken also when others are not."""
        documents = await _body(request, "alerts")
        if not isinstance(documents, list):
            raise _UnprocessableError("alerts in body must be of type array")
        alertmanager, now_ms = self._alertmanager, self._alertmanager.now_ms()
        metrics, timeout_ms = alertmanager.metrics, alertmanager.config.globals.resolve_timeout_ms
        found, errors = [], []
        for document in documents:
            try:
                alert = read_alert(document, now_ms, timeout_ms, alertmanager.settings.mode)
            except QueryError as exc:
                metrics.invalid.labels("v2").inc()
                errors.append(str(exc))
                continue
            metrics.received.labels("resolved" if alert.resolved_at(now_ms) else "firing", "v2").inc()
            found.append(alert)
        alertmanager.put_alerts(found)
        if errors:
            raise QueryError("\n".join(errors))
        return Response(headers=_NO_STORE)

    async def alerts(self, request: Request) -> Response:
        alertmanager, chosen = self._alertmanager, self._chosen(request)
        root, fits = alertmanager.config.route, self._receiver_filter(request)
        found = []
        for alert in alertmanager.alerts.values():
            receivers = [route.receiver for route in root.matching(dict(alert.labels))]
            if any(map(fits, receivers)) and (status := chosen(alert)) is not None:
                found.append(_alert_document(alert, status, receivers))
        return _json(sorted(found, key=lambda one: str(one["fingerprint"])))

    async def groups(self, request: Request) -> Response:
        chosen, fits = self._chosen(request), self._receiver_filter(request)
        show_muted = _flag(request, "muted")
        groups = []
        receivers: dict[Labels, list[str]] = {}
        for group in self._alertmanager.dispatcher:
            if not fits(group.route.receiver):
                continue
            shown = [(one, status) for one in in_order(group.alerts.values()) if (status := chosen(one)) is not None]
            for alert, _ in shown:
                receivers.setdefault(alert.labels, []).append(group.route.receiver)
            if shown:
                groups.append((group, shown))
        documents = []
        for group, shown in groups:
            muted_by = self._alertmanager.muted_by.get((group.route.id, group.labels), ())
            if muted_by and not show_muted:
                continue
            alerts = [_alert_document(one, status, sorted(receivers[one.labels]), muted_by) for one, status in shown]
            documents.append(
                {"labels": dict(group.labels), "receiver": {"name": group.route.receiver}, "alerts": alerts}
            )
        return _json(sorted(documents, key=functools.cmp_to_key(_compare_groups)))

    def _chosen(self, request: Request) -> Callable[[Alert], Status | None]:
        """A function to the status of an alert, or None where it was not asked for."""
        wanted = self._matchers(request, "filter")
        active, silenced, inhibited = (_flag(request, name) for name in ("active", "silenced", "inhibited"))
        now_ms = self._alertmanager.now_ms()

        def status(alert: Alert) -> Status | None:
            if (alert.ends_ns and alert.ends_ns < now_ms * MS) or not _fits(wanted, dict(alert.labels)):
                return None
            found = self._alertmanager.status(alert.labels)
            if not active and found == Status():
                return None
            if (not silenced and found.silenced_by) or (not inhibited and found.inhibited_by):
                return None
            return found

        return status

    def _receiver_filter(self, request: Request) -> Callable[[str], bool]:
        pattern, wanted = request.query_params.get("receiver"), self._matchers(request, "receiver_matchers")
        try:
            regex = re2.compile(f"^(?:{pattern})$") if pattern is not None else None
        except re2.error as exc:
            raise QueryError(f"failed to parse receiver param: {exc}") from exc
        receivers = self._alertmanager.config.receivers

        def fits(name: str) -> bool:
            return (regex is None or regex.search(name) is not None) and _fits(wanted, receivers[name].labels)

        return fits

    def _matchers(self, request: Request, name: str) -> list[Matcher]:
        mode = self._alertmanager.settings.mode
        return [parse_matcher(text, mode) for text in request.query_params.getlist(name)]


def _fits(wanted: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy filters: ``a=""`` is of a missing label, ``a!=""`` of one that is there."""
    for matcher in wanted:
        there = matcher.name in labels
        negative = matcher.type in (MatchType.NOT_EQUAL, MatchType.NOT_REGEX)
        if not matcher.value and there == negative:
            continue
        if not matcher.matches(labels.get(matcher.name, "")):
            return False
    return True


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "true").lower()
    if text not in ("true", "false", "1", "0", "t", "f"):
        raise _UnprocessableError(f'{name} in query must be of type boolean: "{text}"')
    return text in ("true", "1", "t")


async def _body(request: Request, what: str) -> Any:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _BODY_MAX:
            raise QueryError(f"the body is larger than the limit of {_BODY_MAX} bytes; send less at once")
        chunks.append(chunk)
    try:
        return msgspec.json.decode(b"".join(chunks))
    except msgspec.MsgspecError as exc:
        raise QueryError(f"parsing {what} body failed: {exc}") from exc


def _read_silence(document: Any) -> Silence:
    if not isinstance(document, Mapping):
        raise _UnprocessableError("silence in body must be of type object")
    for name in ("comment", "createdBy", "endsAt", "matchers", "startsAt"):
        if document.get(name) is None:
            raise _UnprocessableError(f"silence.{name} in body is required")
    if not isinstance(document["matchers"], list) or not document["matchers"]:
        raise _UnprocessableError("silence.matchers in body should have at least 1 items")
    annotations = document.get("annotations") or {}
    if not isinstance(annotations, Mapping):
        raise _UnprocessableError("silence.annotations in body must be of type object")
    return Silence(
        matchers=tuple(read_matcher(one) for one in document["matchers"]),
        starts_ms=parse_time_ns(document["startsAt"]) // MS,
        ends_ms=parse_time_ns(document["endsAt"]) // MS,
        created_by=str(document["createdBy"]),
        comment=str(document["comment"]),
        annotations={str(name): str(value) for name, value in annotations.items()},
        id=str(document.get("id") or ""),
    )


def _silence_document(silence: Silence, now_ms: int) -> dict[str, Any]:
    return {
        "id": silence.id,
        "status": {"state": silence.state(now_ms).value},
        "updatedAt": _time_ms(silence.updated_ms),
        "annotations": dict(silence.annotations),
        "comment": silence.comment,
        "createdBy": silence.created_by,
        "endsAt": _time_ms(silence.ends_ms),
        "matchers": [matcher_document(one) for one in silence.matchers],
        "startsAt": _time_ms(silence.starts_ms),
    }


def _alert_document(
    alert: Alert, status: Status, receivers: Sequence[str], muted_by: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "annotations": dict(alert.annotations),
        "endsAt": _time_ms(alert.ends_ns // MS),
        "fingerprint": alert.fingerprint,
        "receivers": [{"name": name} for name in receivers],
        "startsAt": _time_ms(alert.starts_ns // MS),
        "status": {
            "inhibitedBy": list(status.inhibited_by),
            "mutedBy": list(muted_by),
            "silencedBy": list(status.silenced_by),
            "state": "active" if status == Status() and not muted_by else "suppressed",
        },
        "updatedAt": _time_ms(alert.updated_ms),
        **({"generatorURL": alert.generator_url} if alert.generator_url else {}),
        "labels": dict(alert.labels),
    }


def _compare_groups(one: Mapping[str, Any], two: Mapping[str, Any]) -> int:
    by_labels = compare_labels(one["labels"], two["labels"])
    names = one["receiver"]["name"], two["receiver"]["name"]
    return by_labels or (names[0] > names[1]) - (names[0] < names[1])


def _time_ms(at_ms: int) -> str:
    """To the millisecond, as go-openapi writes times."""
    return clock.rfc3339(at_ms)[:-1] + f".{at_ms % 1000:03d}Z"
