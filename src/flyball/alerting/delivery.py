"""Making the requests that receivers are told by: HTTP through the one client, mail in a thread."""

import asyncio
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from flyball import clock
from flyball.alerting.config import Missing
from flyball.alerting.receivers.email import Email
from flyball.alerting.receivers.sending import (
    Answer,
    DeliveryError,
    HttpIntegration,
    Integration,
    Notification,
    Post,
    Secret,
    check_status,
)
from flyball.alerting.templates import Expand
from flyball.errors import FlyballError
from flyball.http.calling import Caller
from flyball.http.client import read_capped
from flyball.model.clients import HttpClientConfig

_ANSWER_MAX = 1 << 20
_USER_AGENT = "flyball"


class Send(Protocol):
    """Delivers a notification once and returns what is to be kept for the group's next one.

    Raises:
        DeliveryError: it did not arrive, or it is not known whether it did.
        FlyballError: it cannot be made, as a template fails.
    """

    async def __call__(
        self, integration: Integration, told: Notification, expand: Expand, timeout_s: float
    ) -> Mapping[str, str]: ...


async def send(integration: Integration, told: Notification, expand: Expand, timeout_s: float) -> Mapping[str, str]:
    """As ``Send`` says."""
    if isinstance(integration, Missing):
        raise DeliveryError(integration.problem, retry=False)
    if isinstance(integration, Email):
        await asyncio.to_thread(integration.send, told, expand, secret_value, timeout_s)
        return {}
    http: HttpIntegration = integration  # type: ignore[assignment]
    post = http.message(told, expand, secret_value)
    return http.accepted(await _posted(post, min(timeout_s, post.timeout_ms / 1000 or timeout_s)))


async def _posted(post: Post, timeout_s: float) -> Answer:
    host = urlsplit(post.url).hostname or "the receiver"
    headers = {"Content-Type": "application/json", "User-Agent": _USER_AGENT}
    try:
        caller = _caller(post.http)
        options = await caller.options(post.url, timeout_s)
        options["headers"] = headers | options["headers"]
        async with (
            caller.session(timeout_s=timeout_s) as session,
            session.post(post.url, data=msgspec.json.encode(post.body), **options) as answer,
        ):
            found = Answer(answer.status, answer.content_type, await read_capped(answer, _ANSWER_MAX, host))
            check_status(found, host, _retry_after_s(answer.headers.get("Retry-After", ""), found))
            return found
    except TimeoutError as exc:
        message = f"{host} did not answer within {timeout_s:g} s"
        raise DeliveryError(message, retry=True, reason="contextDeadlineExceeded") from exc
    except aiohttp.InvalidURL as exc:
        raise DeliveryError("the URL is not one; mend it in the receiver", retry=False) from exc
    except (aiohttp.ClientError, OSError, ssl.SSLError) as exc:
        # some of aiohttp's errors name the URL, which may be a secret
        raise DeliveryError(f"{host}: {str(exc).replace(post.url, '<url>') or type(exc).__name__}", retry=True) from exc
    except DeliveryError:
        raise
    except FlyballError as exc:
        raise DeliveryError(str(exc), retry=True) from exc


def _retry_after_s(header: str, answer: Answer) -> float | None:
    """Seconds or a date; Telegram says it in the body."""
    if header.strip().isdecimal():
        return float(header)
    try:
        if header:
            return max(0.0, parsedate_to_datetime(header).timestamp() - clock.now_ms() / 1000)
        if answer.status == 429 and answer.content_type == "application/json":
            return float(msgspec.json.decode(answer.body)["parameters"]["retry_after"])
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError):
        pass
    return None


def secret_value(secret: Secret) -> str:
    """The value; a file is read at every use, so that a new secret holds at once.

    Raises:
        DeliveryError: the file cannot be read.
    """
    if not secret.file:
        return secret.value
    try:
        return Path(secret.file).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "is not text"
        raise DeliveryError(
            f"cannot read the secret {secret.file}: {why}; mend the file or its path", retry=True
        ) from exc


@lru_cache(maxsize=128)
def _caller(http: HttpClientConfig) -> Caller:
    """One for each section, since it keeps the token."""
    return Caller(http)
