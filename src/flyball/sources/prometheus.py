"""Any server that speaks the Prometheus HTTP API: Prometheus, Thanos, Mimir, VictoriaMetrics, Flyball's own."""

import asyncio
import base64
import ssl
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from flyball import clock
from flyball.errors import ConfigError, QueryError, UpstreamError
from flyball.http.client import new_session, read_capped
from flyball.model.labels import Labels, labels_of
from flyball.sources.base import Sample

BODY_LIMIT_BYTES = 256 * 1024 * 1024
CACHE_ENTRIES_MAX = 2_000

#: (method, URL, headers, body) -> the headers of the signed request
Signer = Callable[[str, str, dict[str, str], bytes], dict[str, str]]


class _Element(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None


class _Range(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct, rename={"result_type": "resultType"}):
    result_type: str = ""
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct, rename={"error_type": "errorType"}):
    status: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    error: str = ""


class HttpSource:
    """A Prometheus HTTP API.

    Identical queries share one request while it runs, and its answer for ``cache_ms`` after.

    Args:
        url: base URL, a path prefix is kept.
        headers: sent with every request.
        tls: client context for https; None is the system's roots.
        bearer, bearer_file, basic, basic_file: credentials; a file is read at every request, so it may rotate.
            ``basic_file`` is the user and the file of the password.
        signer: makes the headers of a signed request.
        verb: POST keeps long queries out of URLs; GET for servers that refuse POST.
        timeout_s: of a whole request.
        cache_ms: how old a shared answer may be, in time of evaluation.

    Raises:
        ConfigError: the URL is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        bearer: str = "",
        bearer_file: str = "",
        basic: tuple[str, str] | None = None,
        basic_file: tuple[str, str] | None = None,
        signer: Signer | None = None,
        verb: Literal["GET", "POST"] = "POST",
        timeout_s: float = 10.0,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        cache_ms: int = 500,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f'"{url}" is not the URL of a Prometheus API; write one like http://127.0.0.1:9090')
        if verb not in ("GET", "POST"):
            raise ConfigError(f'the verb "{verb}" is not supported; use GET or POST')
        self.url = url.rstrip("/")
        self._headers = dict(headers or {})
        if basic is not None:
            self._headers["Authorization"] = _basic(*basic)
        elif bearer:
            self._headers["Authorization"] = f"Bearer {bearer.strip()}"
        self._bearer_file, self._basic_file, self._signer = bearer_file, basic_file, signer
        self._tls, self._verb, self._timeout_s = tls, verb, timeout_s
        self._body_limit, self._cache_ms = body_limit_bytes, cache_ms
        self._session: aiohttp.ClientSession | None = None
        self._running: dict[tuple[str, int], asyncio.Task[list[Sample]]] = {}
        self._newest: dict[str, tuple[str, int]] = {}
        self._cache: OrderedDict[str, tuple[int, list[Sample]]] = OrderedDict()
        self._counts = dict.fromkeys(("requests", "failures", "shared", "cached"), 0)

    def statistics(self) -> dict[str, int]:
        """Requests sent, failed, and queries answered without one."""
        return {**self._counts, "cache_entries": len(self._cache)}

    async def close(self) -> None:
        """Ends the session and cancels what runs."""
        for task in list(self._running.values()):
            task.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """See ``MetricsSource.query``."""
        cached = self._cache.get(expr)
        if cached is not None and abs(at_ms - cached[0]) <= self._cache_ms:
            self._counts["cached"] += 1
            return cached[1]
        key = self._newest.get(expr)
        task = self._running.get(key) if key is not None else None
        if task is not None and key is not None and abs(at_ms - key[1]) <= self._cache_ms:
            self._counts["shared"] += 1
        else:
            key = (expr, at_ms)
            task = asyncio.create_task(self._query(expr, at_ms), name="source query")
            self._running[key] = task
            self._newest[expr] = key
            task.add_done_callback(lambda _: self._ended(expr, at_ms))
        return await asyncio.shield(task)  # one caller's cancellation is not the others'

    def _ended(self, expr: str, at_ms: int) -> None:
        task = self._running.pop((expr, at_ms), None)
        if self._newest.get(expr) == (expr, at_ms):
            del self._newest[expr]
        if task is None or task.cancelled() or task.exception() is not None:
            return
        known = self._cache.get(expr)
        if known is None or known[0] <= at_ms:
            self._cache[expr] = (at_ms, task.result())
            self._cache.move_to_end(expr)
        while len(self._cache) > CACHE_ENTRIES_MAX:
            self._cache.popitem(last=False)

    async def _query(self, expr: str, at_ms: int) -> list[Sample]:
        form = [("query", expr), ("time", f"{at_ms / 1000:.3f}"), ("timeout", f"{self._timeout_s:g}s")]
        return read_vector(await self._data("/api/v1/query", form, f"query {_short(expr)}"), self.url)

    async def query_range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> list[list[Sample]]:
        """The points of each series at ``start_ms`` and every ``step_ms`` after it, up to ``end_ms``.

        Raises:
            QueryError: the server refused the expression, or that many points.
            UpstreamError: there is no answer.
        """
        times = (("start", start_ms), ("end", end_ms), ("step", step_ms))
        form = [("query", expr), *((name, f"{at_ms / 1000:.3f}") for name, at_ms in times)]
        data = await self._data("/api/v1/query_range", form, f"query_range {_short(expr)}")
        found = _decode(_decode(data, _Data, self.url).result, list[_Range] | None, self.url) or []
        # native histograms have no values; nothing here can use them
        series = [(labels_of(one.metric), one.values) for one in found if one.values]
        return [[Sample(labels, *_value(value, self.url)) for value in values] for labels, values in series]

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """See ``MetricsSource.series``."""
        form = [("match[]", match), ("start", f"{start_ms / 1000:.3f}"), ("end", f"{end_ms / 1000:.3f}")]
        data = await self._data("/api/v1/series", form, f"series {_short(match)}")
        return [labels_of(item) for item in _decode(data, list[dict[str, str]] | None, self.url) or ()]

    async def _data(self, path: str, form: list[tuple[str, str]], what: str) -> msgspec.Raw:
        """The ``data`` of an answer.

        Raises:
            QueryError: the server refused the expression.
            UpstreamError: it did not answer, or not as a Prometheus API does.
        """
        self._counts["requests"] += 1
        try:
            return await self._fetch(path, form, what)
        except BaseException:
            self._counts["failures"] += 1
            raise

    async def _fetch(self, path: str, form: list[tuple[str, str]], what: str) -> msgspec.Raw:
        if self._session is None:
            self._session = new_session(timeout_s=self._timeout_s, tls=self._tls)
        url = self.url + path
        encoded = urlencode(form)
        body_sent, asked = (encoded.encode(), url) if self._verb == "POST" else (b"", f"{url}?{encoded}")
        headers = self._request_headers(asked, body_sent)
        began_s = clock.monotonic_s()
        try:
            response = await self._session.request(
                self._verb,
                URL(asked, encoded=True),
                data=body_sent or None,
                headers=headers,
                allow_redirects=False,
            )
            try:
                body = await read_capped(response, self._body_limit, f"{url} ({what})")
            finally:
                response.release()
        except TimeoutError as exc:
            raise UpstreamError(
                f"{url}: no answer to {what} in {clock.monotonic_s() - began_s:.1f} s; "
                "check the server's load, or allow more time"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise UpstreamError(f"{url}: cannot be reached ({exc}); check that the metrics server runs") from exc
        return read_answer(url, response.status, body, what)

    def _request_headers(self, url: str, body: bytes) -> dict[str, str]:
        headers = dict(self._headers)
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self._bearer_file:
            headers["Authorization"] = f"Bearer {_read_secret(self._bearer_file)}"
        elif self._basic_file is not None:
            user, file = self._basic_file
            headers["Authorization"] = _basic(user, _read_secret(file))
        return headers if self._signer is None else self._signer(self._verb, url, headers, body)


def read_answer(url: str, status: int, body: bytes, what: str) -> msgspec.Raw:
    """The ``data`` of an HTTP answer.

    Args:
        what: was asked, for messages.

    Raises:
        QueryError: the server refused the expression.
        UpstreamError: it did not answer as a Prometheus API does.
    """
    answer = _Answer()
    decoded = False
    try:
        answer, decoded = msgspec.json.decode(body, type=_Answer), True
    except (msgspec.DecodeError, RecursionError):
        pass
    if status in (400, 422) and decoded and answer.error:
        raise QueryError(f"{url} refused {what}: {answer.error_type}: {answer.error}")
    if status in (401, 403):
        raise UpstreamError(f"{url}: HTTP {status}: the credentials are missing or refused; check token or password")
    if 300 <= status < 400:
        raise UpstreamError(f"{url}: HTTP {status}: a redirect, which is not followed; give the final URL")
    if status == 404:
        raise UpstreamError(f"{url}: HTTP 404: there is no Prometheus API; check the URL and its path prefix")
    if not 200 <= status < 300:
        detail = answer.error or body[:200].decode(errors="replace").strip()
        raise UpstreamError(f"{url}: HTTP {status} to {what}: {detail or 'no message'}; check the server's log")
    if not decoded or answer.status != "success":
        raise UpstreamError(f"{url}: the answer is not a Prometheus API's; check the URL")
    return answer.data


def read_vector(data: msgspec.Raw, url: str) -> list[Sample]:
    """The samples of an instant query's ``data``.

    Raises:
        QueryError: it is neither a vector nor a scalar.
        UpstreamError: it is not what a Prometheus API gives.
    """
    found = _decode(data, _Data, url)
    if found.result_type == "vector":
        elements = _decode(found.result, list[_Element] | None, url) or []
        # Histogram elements carry no value; nothing here can use them.
        return [Sample(_labels(item.metric), *_value(item.value, url)) for item in elements if item.value is not None]
    if found.result_type == "scalar":
        return [Sample((), *_value(_decode(found.result, tuple[float, str], url), url))]
    raise QueryError(f"the query gives a {found.result_type or 'result without a type'}; it must give a vector")


def _labels(metric: Mapping[str, str]) -> Labels:
    """Names and values are shared: the next answer has the same ones."""
    return labels_of([(sys.intern(name), sys.intern(value)) for name, value in metric.items()])


def _value(value: tuple[float, str], url: str) -> tuple[int, float]:
    try:
        return round(value[0] * 1000), float(value[1])
    except (ValueError, OverflowError) as exc:
        raise UpstreamError(f"{url}: the answer is not a Prometheus API's ({exc}); check the URL") from exc


def _decode(data: msgspec.Raw, wanted: Any, url: str) -> Any:
    try:
        return msgspec.json.decode(data, type=wanted)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise UpstreamError(f"{url}: the answer is not a Prometheus API's ({exc}); check the URL") from exc


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _read_secret(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as exc:
        raise UpstreamError(f"{path}: the credential cannot be read ({exc.strerror})") from exc


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
