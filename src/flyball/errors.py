"""One error tree; the class says who must act.

FlyballError
  ConfigError          the operator: a file, flag or object is wrong        exit 2
  QueryError           the caller: the request is wrong                     400
    QueryLimitError    the caller: the request is too large                 422
  NotFoundError        the caller: no such thing                            404
  UpstreamError        retry: another system failed                         503
    KubeApiError       the Kubernetes API answered with a Status
    ScrapeError        a target could not be read
  StoreError           stop writing: the disk or a file is not usable       500
    DiskFullError      free space; writing resumes by itself                507
"""


class FlyballError(Exception):
    """Base of every error that Flyball raises on purpose. The message names the thing, the value, the remedy."""

    status = 500
    exit_code = 1


class ConfigError(FlyballError):
    """A file, flag or object is wrong; the operator must mend it."""

    exit_code = 2


class QueryError(FlyballError):
    """The request is wrong; the caller must change it."""

    status = 400
    exit_code = 2


class QueryLimitError(QueryError):
    """The request is well formed but larger than a limit allows."""

    status = 422


class NotFoundError(FlyballError):
    """No such thing."""

    status = 404


class UpstreamError(FlyballError):
    """Another system failed; retry, after ``retry_after_s`` where it said so."""

    status = 503

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class KubeApiError(UpstreamError):
    """The Kubernetes API answered with a failure Status.

    Attributes: ``code`` the HTTP status, ``reason`` the Status' machine word (``NotFound``, ``Conflict``,
    ``Expired``...), ``message``, ``details`` the Status' details object.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}


class ScrapeError(UpstreamError):
    """A target could not be read."""


class ScrapeLimitError(ScrapeError):
    """A target gave more than its job allows; ``limit`` is the setting that it passed."""

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class StoreError(FlyballError):
    """The disk or a file is not usable; writing must stop."""


class DiskFullError(StoreError):
    """The free-space reserve is reached; writing resumes by itself when there is room again."""

    status = 507
