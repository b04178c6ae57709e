"""Failure ``Status`` objects of the Kubernetes API, in kube-apiserver's words."""

from collections.abc import Sequence
from typing import Any

from flyball.errors import FlyballError

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiFailure(FlyballError):  # noqa: N818 - it is an answer, as an HTTP exception is
    """An answer other than success: ``code`` is the HTTP status, ``body()`` the Status object."""

    def __init__(
        self, code: int, message: str, *, reason: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = _REASONS.get(code, "") if reason is None else reason
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def qualified(group: str, plural: str) -> str:
    """``deployments.apps``; the core group adds nothing."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, plural: str, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    if plural:
        details["kind"] = plural
    details.update(more)
    return details


def not_found(group: str, plural: str, name: str) -> ApiFailure:
    return ApiFailure(404, f'{qualified(group, plural)} "{name}" not found', details=_details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> ApiFailure:
    return ApiFailure(
        409,
        f'{qualified(group, plural)} "{name}" already exists',
        reason="AlreadyExists",
        details=_details(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiFailure:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiFailure(
        409,
        f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}',
        details=_details(group, plural, name),
    )


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[dict[str, str]] = ()) -> ApiFailure:
    details = _details(group, plural, name)
    if causes:
        details["causes"] = list(causes)
    return ApiFailure(403, f'{qualified(group, plural)} "{name}" is forbidden: {why}', details=details)


def invalid(group: str, kind: str, name: str, causes: Sequence[dict[str, str]]) -> ApiFailure:
    """422 with one cause per wrong field; a cause has ``reason``, ``message`` and ``field``."""
    parts = [f"{cause['field']}: {cause['message']}" for cause in causes]
    text = parts[0] if len(parts) == 1 else "[" + ", ".join(parts) + "]"
    return ApiFailure(
        422,
        f'{qualified(group, kind)} "{name}" is invalid: {text}',
        details=_details(group, kind, name, causes=list(causes)),
    )


def unprocessable() -> ApiFailure:
    """A JSON patch that cannot be applied: upstream does not say why."""
    return ApiFailure(422, "the server rejected our request due to an error in our request", details={})


class BadRequestError(ApiFailure):
    """The request, or the object in it, cannot be read."""


def bad_request(message: str) -> BadRequestError:
    return BadRequestError(400, message)


def bad_patch(message: str) -> ApiFailure:
    """A patch that leads to no object of its kind."""
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": "patch"}
    return invalid("", "", "", [cause])


class NoSuchPathError(ApiFailure):
    """Nothing at all is served there: answered in plain text, as Go's router does."""


def no_such_path() -> ApiFailure:
    return NoSuchPathError(404, "404 page not found")


def no_such_resource() -> ApiFailure:
    """The group and version are served, but not this resource."""
    return ApiFailure(404, "the server could not find the requested resource", details={})


def method_not_allowed() -> ApiFailure:
    return ApiFailure(405, "the server does not allow this method on the requested resource", details={})


def not_acceptable(available: Sequence[str]) -> ApiFailure:
    shown = ", ".join(available)
    return ApiFailure(406, f"406: Not Acceptable\n\nAvailable representations: {shown}", details={})


def unsupported_patch_type() -> ApiFailure:
    """A patch of no known kind: the router itself refuses it, without a list."""
    return ApiFailure(415, "415: Unsupported Media Type", details={})


def unsupported_media_type(accepted: Sequence[str]) -> ApiFailure:
    return ApiFailure(
        415,
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )
