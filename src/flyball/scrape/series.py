"""From a series as a target writes it to the one that is stored: the target's labels, relabelling, limits. Pure."""

from flyball.errors import ScrapeLimitError
from flyball.exposition import parse_series
from flyball.model.labels import Labels, labels_of
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.relabel import relabel


def stored_labels(text: bytes, type_: str, target: Labels, config: ScrapeConfig) -> Labels | None:
    """The labels under which a series is stored; None when relabelling drops it.

    Args:
        text: the series as written; ``type_`` is that of its family.
        target: the labels of the target.

    Raises:
        ScrapeError: the text is malformed, or a limit of the job is passed.
    """
    scraped = parse_series(text, type_)
    merged = {name: value for name, value in scraped.items() if value}
    for name, value in target:
        if name not in merged:
            if not (config.honor_labels and name in scraped):
                merged[name] = value
        elif not config.honor_labels:
            old = merged[name]
            exported = "exported_" + name
            while exported in merged:
                exported = "exported_" + exported
            merged[exported], merged[name] = old, value
    found: dict[str, str] | None = merged
    if config.metric_relabel_configs:
        found = relabel(merged, config.metric_relabel_configs)
    if found is None or not found.get("__name__"):
        return None
    _check_limits(found, config)
    return labels_of(found)


def _check_limits(labels: dict[str, str], config: ScrapeConfig) -> None:
    wrong = _over_limit(labels, config)
    if wrong:
        raise ScrapeLimitError("label_limit", f'"{labels["__name__"]}": {wrong}')


def _over_limit(labels: dict[str, str], config: ScrapeConfig) -> str:
    if config.label_limit and len(labels) > config.label_limit:
        return f"{len(labels)} labels, over the label_limit {config.label_limit}"
    names_max, values_max = config.label_name_length_limit, config.label_value_length_limit
    for name, value in labels.items():
        # A text of n characters has at most 4 n bytes: most need not be encoded.
        if names_max and len(name) * 4 > names_max and len(name.encode()) > names_max:
            return f'the label name "{name[:80]}" is over label_name_length_limit'
        if values_max and len(value) * 4 > values_max and len(value.encode()) > values_max:
            return f'the value of "{name}" is over label_value_length_limit'
    return ""
