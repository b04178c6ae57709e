"""From discovered labels to a target: relabelling, defaults, the URL. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from flyball.errors import ConfigError
from flyball.model.durations import format_duration, parse_duration_ms
from flyball.model.labels import Labels, labels_of
from flyball.model.scrapeconfigs import ScrapeConfig, TargetGroup
from flyball.relabel import relabel


@dataclass(frozen=True, slots=True)
class Target:
    """Something to scrape.

    Attributes:
        labels: what every series of it carries (job, instance, ...).
        discovered: the labels before relabelling.
    """

    url: str
    labels: Labels
    discovered: Mapping[str, str]
    interval_ms: int
    timeout_ms: int

    @property
    def key(self) -> tuple[str, Labels]:
        return self.url, self.labels


def build_targets(
    config: ScrapeConfig, groups: Sequence[TargetGroup]
) -> tuple[list[Target], list[dict[str, str]], list[ConfigError]]:
    """(targets without duplicates, discovered labels of those that relabelling dropped, errors of unusable ones)."""
    found: dict[tuple[str, Labels], Target] = {}
    dropped: list[dict[str, str]] = []
    errors: list[ConfigError] = []
    for group in groups:
        for own in group.targets:
            discovered = {**group.labels, **own}
            discovered.setdefault("job", config.job_name)
            discovered.setdefault("__scheme__", config.scheme)
            discovered.setdefault("__metrics_path__", config.metrics_path)
            discovered.setdefault("__scrape_interval__", format_duration(config.scrape_interval_ms))
            discovered.setdefault("__scrape_timeout__", format_duration(config.scrape_timeout_ms))
            for name, values in config.params.items():
                if values:
                    discovered.setdefault(f"__param_{name}", values[0])
            labels = relabel(discovered, config.relabel_configs)
            if labels is None:
                dropped.append(discovered)
                continue
            try:
                target = _target(config, labels, discovered)
            except ConfigError as exc:
                errors.append(exc)
                continue
            found.setdefault(target.key, target)
    return list(found.values()), dropped, errors


def _target(config: ScrapeConfig, labels: dict[str, str], discovered: Mapping[str, str]) -> Target:
    what = f'job "{config.job_name}": target "{discovered.get("__address__", "")}"'
    address = labels.get("__address__", "")
    if not address:
        raise ConfigError(f"{what}: there is no __address__; set it by relabelling or drop the target")
    if "/" in address:
        raise ConfigError(f'{what}: the __address__ "{address}" is not a host:port')
    scheme = labels.get("__scheme__", "")
    if scheme not in ("http", "https"):
        raise ConfigError(f'{what}: the __scheme__ "{scheme}" is not http or https')
    try:
        interval_ms = parse_duration_ms(labels.get("__scrape_interval__", ""))
        timeout_ms = parse_duration_ms(labels.get("__scrape_timeout__", ""))
    except ConfigError as exc:
        raise ConfigError(f"{what}: {exc}") from exc
    if interval_ms <= 0 or timeout_ms <= 0 or timeout_ms > interval_ms:
        raise ConfigError(f"{what}: the scrape timeout {timeout_ms} ms is not within the interval {interval_ms} ms")
    params = {name: list(values) for name, values in config.params.items()}
    for name, value in labels.items():
        if name.startswith("__param_"):
            params[name[8:]] = [value, *params.get(name[8:], [])[1:]]
    query = urlencode([(name, value) for name in sorted(params) for value in params[name]])
    path = labels.get("__metrics_path__", "/metrics")
    path = path if path.startswith("/") else "/" + path
    url = f"{scheme}://{address}{path}" + (f"{'&' if '?' in path else '?'}{query}" if query else "")
    kept = {name: value for name, value in labels.items() if not name.startswith("__")}
    kept.setdefault("instance", address)
    return Target(url, labels_of(kept), dict(discovered), interval_ms, timeout_ms)
