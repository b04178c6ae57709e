"""Templates of alert labels and annotations: Go's text/template with Prometheus' functions.

Source: the template reference of Prometheus' documentation; numbers print as Go's fmt prints them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote_plus, urlsplit

from flyball.errors import FlyballError
from flyball.model.durations import parse_duration_ms
from flyball.model.gotemplate import Struct, Template, TemplateError
from flyball.model.labels import Labels
from flyball.model.templatefunctions import HUMANIZE, SHARED

Samples = Sequence[tuple[Labels, float]]
VARIABLES = ("$labels", "$externalLabels", "$externalURL", "$value")


@dataclass(frozen=True, slots=True)
class Context:
    """What templates see beside the sample.

    Attributes:
        query: the vector of an expression's text, at the time of the evaluation.
        at_ms: that time.
    """

    query: Callable[[str], Samples]
    at_ms: int
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""


def expand(text: str, labels: Mapping[str, str], value: float, context: Context) -> str:
    """The text with its actions carried out; an error becomes part of the text, as upstream's."""
    if "{{" not in text:
        return text
    data = Struct(
        Labels=dict(labels),
        ExternalLabels=dict(context.external_labels),
        ExternalURL=context.external_url,
        Value=value,
    )
    values = dict(zip(VARIABLES, (data["Labels"], data["ExternalLabels"], context.external_url, value), strict=True))
    try:
        return _parsed(text).render(data, values, functions=_functions(context))
    except FlyballError as exc:
        return f"<error expanding template: {exc}>"


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Template:
    nothing = Context(lambda _: (), 0)
    return Template(text, delimiters=("{{", "}}"), functions=_functions(nothing), variables=VARIABLES)


def check_template(text: str) -> str:
    """Why the template does not parse; empty when it does."""
    try:
        _parsed(text)
    except TemplateError as exc:
        return str(exc)
    return ""


def _functions(context: Context) -> dict[str, Callable[..., Any]]:
    return {
        **_FUNCTIONS,
        "query": lambda text: [Struct(Labels=dict(labels), Value=value) for labels, value in context.query(text)],
        "now": lambda: context.at_ms / 1000,
        "externalURL": lambda: context.external_url,
        "pathPrefix": lambda: urlsplit(context.external_url).path,
    }


def _first(samples: Sequence[Any]) -> Any:
    if not samples:
        raise TemplateError("first() called on vector with no elements")
    return samples[0]


def _split_port(host_port: str) -> tuple[str, str] | None:
    """Host and port; None when it is not ``host:port`` or ``[host]:port``."""
    host, colon, port = host_port.rpartition(":")
    if not colon:
        return None
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return None if ":" in host else (host, port)


def _strip_port(host_port: str) -> str:
    found = _split_port(host_port)
    return found[0] if found else host_port


def _strip_domain(host_port: str) -> str:
    host, port = _split_port(host_port) or (host_port, "")
    if ":" in host or re.fullmatch(r"\d+(\.\d+){3}", host):
        return host_port
    return host.split(".")[0] + (f":{port}" if port else "")


def _parse_duration(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    return sign * parse_duration_ms(text.removeprefix("-")) / 1000


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **SHARED,
    **HUMANIZE,
    "first": _first,
    "label": lambda name, sample: sample["Labels"].get(name, ""),
    "value": lambda sample: sample["Value"],
    "strvalue": lambda sample: sample["Labels"].get("__value__", ""),
    "sortByLabel": lambda name, samples: sorted(samples, key=lambda sample: sample["Labels"].get(name, "")),
    "args": lambda *values: {f"arg{number}": value for number, value in enumerate(values)},
    "title": lambda text: re.sub(r"\b[^\W\d_]", lambda found: found.group().upper(), text),
    "graphLink": lambda expr: f"/graph?g0.expr={quote_plus(expr)}&g0.tab=0",
    "tableLink": lambda expr: f"/graph?g0.expr={quote_plus(expr)}&g0.tab=1",
    "stripPort": _strip_port,
    "stripDomain": _strip_domain,
    "parseDuration": _parse_duration,
    "urlQueryEscape": partial(quote_plus, safe=""),
}

__all__ = ["Context", "Samples", "check_template", "expand"]
