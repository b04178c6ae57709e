"""Target groups as files and HTTP endpoints give them: ``[{"targets": ["host:port"], "labels": {...}}]``."""

from collections.abc import Mapping

from prometheus_client import Counter

from flyball.errors import ConfigError
from flyball.model.reader import Reader, mapping_of, text_mapping_of
from flyball.model.scrapeconfigs import TargetGroup
from flyball.model.yaml_loader import load_yaml

#: Counted by those sections that ask somebody; the groups that are known stay.
REFRESHES_FAILED = Counter(
    "prometheus_sd_refresh_failures", "Times that a section could not be asked.", ["mechanism", "config"]
)


def read_groups(text: str, what: str, source: str, meta: Mapping[str, str]) -> list[TargetGroup]:
    """The groups of a JSON or YAML text (JSON is YAML).

    Args:
        source: the groups are named ``source:0``, ``source:1``...
        meta: labels that every group carries.

    Raises:
        ConfigError: the text is not a list of groups; names the group and the field.
    """
    document = load_yaml(text, what)
    if not isinstance(document, list):
        raise ConfigError(f"{what}: must be a list of target groups")
    groups = []
    for index, item in enumerate(document):
        where = f"{what}: group {index}"
        reader = Reader(mapping_of(item, where), where)
        targets = reader.texts("targets")
        labels = text_mapping_of(reader.take("labels") or {}, f"{where}: labels")
        reader.finish()
        groups.append(
            TargetGroup(
                source=f"{source}:{index}",
                labels={**labels, **meta},
                targets=tuple({"__address__": address} for address in targets),
            )
        )
    return groups
