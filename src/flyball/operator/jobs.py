"""What all kinds of monitors have in common: relabelling, selection, limits and discovery of a scrape job."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyball.errors import ConfigError
from flyball.model.durations import parse_duration_ms
from flyball.model.quantities import parse_quantity
from flyball.model.reader import parse_size_bytes
from flyball.model.scrapeconfigs import parse_relabel_config
from flyball.model.selectors import selector_of
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.prometheus import Prometheus

META = "__meta_kubernetes_"
_INVALID = re.compile(r"[^a-zA-Z0-9_]")

LIMITS = {
    "sampleLimit": "sample_limit",
    "targetLimit": "target_limit",
    "labelLimit": "label_limit",
    "labelNameLengthLimit": "label_name_length_limit",
    "labelValueLengthLimit": "label_value_length_limit",
    "keepDroppedTargets": "keep_dropped_targets",
}
_ESCAPING = {"AllowUTF8": "allow-utf-8", "Underscores": "underscores", "Dots": "dots", "Values": "values"}

Relabeling = dict[str, Any]


def enforced(limit: str) -> str:
    """The Prometheus object's field that bounds a limit: ``enforcedSampleLimit`` of ``sampleLimit``."""
    return f"enforced{limit[0].upper()}{limit[1:]}"


def rule(source: str | Sequence[str], target: str = "", **fields: Any) -> Relabeling:
    """One relabelling rule."""
    document: Relabeling = {"source_labels": [source] if isinstance(source, str) else list(source)}
    if target:
        document["target_label"] = target
    return document | fields


def constant(target: str, value: object) -> Relabeling:
    return {"target_label": target, "replacement": value}


def copy_if_set(source: str, target: str) -> Relabeling:
    return rule(source, target, regex="(.+)", replacement="${1}")


def clean(label: object) -> str:
    """A label's name as discovery writes it."""
    return _INVALID.sub("_", str(label))


FIRST_RULE = rule("job", "__tmp_prometheus_job_name")
RUNNING_FILTER = rule(f"{META}pod_phase", action="drop", regex="(Failed|Succeeded)")


def by_label_selector(selector: Spec, role: str, where: str) -> list[Relabeling]:
    """Rules that keep the objects that a label selector means.

    Raises:
        ConfigError: an operator that does not exist.
    """

    def value_and_presence(label: object) -> list[str]:
        return [f"{META}{role}_label_{clean(label)}", f"{META}{role}_labelpresent_{clean(label)}"]

    rules = [
        rule(value_and_presence(label), action="keep", regex=f"({value});true")
        for label, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        operator, labels = term.get("operator"), value_and_presence(term.get("key", ""))
        if operator in ("In", "NotIn"):
            values = "|".join(map(str, term.get("values") or ()))
            rules.append(rule(labels, action="keep" if operator == "In" else "drop", regex=f"({values});true"))
        elif operator in ("Exists", "DoesNotExist"):
            rules.append(rule(labels[1], action="keep" if operator == "Exists" else "drop", regex="true"))
        else:
            raise ConfigError(
                f'{where}.matchExpressions[{index}].operator: "{operator}" is not an operator; '
                "use In, NotIn, Exists or DoesNotExist"
            )
    return rules


def relabelings(rules: Iterable[Spec] | None, where: str) -> list[Relabeling]:
    """A user's rules in Prometheus' words.

    Raises:
        ConfigError: a field that does not exist, or a rule that Prometheus refuses.
    """
    found = []
    for index, given in enumerate(rules or ()):
        document: Relabeling = {}
        for field, value in given.items():
            name = _RELABEL_FIELDS.get(field)
            if name is None:
                raise ConfigError(f'{where}[{index}]: unknown field "{field}"; remove it')
            if value not in (None, [], 0) and (value != "" or field in ("separator", "replacement")):
                document[name] = str(value).lower() if field == "action" else value
        parse_relabel_config(document, f"{where}[{index}]")
        found.append(document)
    return found


_RELABEL_FIELDS = {
    "sourceLabels": "source_labels",
    "separator": "separator",
    "regex": "regex",
    "modulus": "modulus",
    "targetLabel": "target_label",
    "replacement": "replacement",
    "action": "action",
}


class Job:
    """One job on its way: what the Prometheus object adds to a monitor's own words.

    Args:
        monitor: the object; its Secrets are looked up in its namespace.
        where: begins every error.
    """

    def __init__(self, prometheus: Prometheus, monitor: Mapping[str, Any], client: ClientConfig, where: str) -> None:
        self.prometheus, self.monitor, self.client, self.where = prometheus, monitor, client, where
        self.spec: Spec = monitor.get("spec") or {}
        self.namespace = str((monitor.get("metadata") or {}).get("namespace", ""))
        self.scrape_class = prometheus.scrape_class(self.spec.get("scrapeClass"))
        self._enforced = prometheus.enforced_label(monitor)

    def enforced(self, rules: list[Relabeling]) -> list[Relabeling]:
        """The namespace's label is written last, so that no rule before it can lie."""
        return [*rules, constant(self._enforced, self.namespace)] if self._enforced else rules

    def relabel_configs(
        self, rules: list[Relabeling], of_user: Iterable[Spec] | None, where: str, shard_label: str = "__address__"
    ) -> Document:
        """The kind's own rules, the scrape class', the user's, the enforced one, and what shares targets out."""
        return {"relabel_configs": rules + self.user_rules(of_user, where) + self.sharding(shard_label)}

    def user_rules(self, rules: Iterable[Spec] | None, where: str) -> list[Relabeling]:
        """The scrape class' rules, the user's, then the enforced one."""
        return relabelings(
            self.scrape_class.get("relabelings"), f"{self.prometheus}: spec.scrapeClasses.relabelings"
        ) + self.enforced(relabelings(rules, where))

    def metric_relabelings(self, rules: Iterable[Spec] | None, where: str) -> Document:
        found = relabelings(
            self.scrape_class.get("metricRelabelings"), f"{self.prometheus}: spec.scrapeClasses.metricRelabelings"
        ) + self.enforced(relabelings(rules, where))
        return {"metric_relabel_configs": found} if found else {}

    def honor_timestamps(self, wanted: bool | None) -> Document:
        override = bool(self.prometheus.spec.get("overrideHonorTimestamps"))
        if wanted is None and not override:
            return {}
        return {"honor_timestamps": bool(wanted) and not override}

    def honor_labels(self, wanted: object) -> Document:
        return {"honor_labels": bool(wanted) and not self.prometheus.spec.get("overrideHonorLabels")}

    def intervals(self, spec: Spec, interval: str = "interval") -> Document:
        """Interval and time-out, where they are set.

        Raises:
            ConfigError: not a duration, or a time-out above the interval.
        """
        found: Document = {}
        lengths_ms: dict[str, int] = {}
        for field, name in ((interval, "scrape_interval"), ("scrapeTimeout", "scrape_timeout")):
            if spec.get(field):
                found[name] = spec[field]
                try:
                    lengths_ms[name] = parse_duration_ms(str(spec[field]))
                except ConfigError as exc:
                    raise ConfigError(f"{self.where}.{field}: {exc}") from exc
        if lengths_ms.get("scrape_timeout", 0) > lengths_ms.get("scrape_interval", lengths_ms.get("scrape_timeout", 0)):
            raise ConfigError(
                f'{self.where}.scrapeTimeout: "{spec.get("scrapeTimeout")}" is above the interval of '
                f'"{spec.get(interval)}"; lower it'
            )
        return found

    def limits(self) -> Document:
        """The lower of what the monitor wants and what the Prometheus object enforces."""
        found: Document = {}
        for field, name in LIMITS.items():
            wanted = self._count(self.spec, field)
            most = self._count(self.prometheus.spec, enforced(field))
            if not most:
                limit = wanted
            elif not wanted:  # from 2.45 on the global section holds for every job
                limit = most if self.prometheus.version < (2, 45) else None
            else:
                limit = min(wanted, most)
            if limit is not None:
                found[name] = limit
        return found

    def body_size_limit(self) -> Document:
        wanted, enforced = self.spec.get("bodySizeLimit"), self.prometheus.spec.get("enforcedBodySizeLimit")
        if wanted and enforced:
            wanted = min((wanted, enforced), key=parse_size_bytes)
        return {"body_size_limit": wanted or enforced} if wanted or enforced else {}

    def protocols(self) -> Document:
        """Formats of the exposition, and what becomes of histograms."""
        document = scrape_protocols(self.spec, self.prometheus)
        fallback = self.spec.get("fallbackScrapeProtocol") or self.scrape_class.get("fallbackScrapeProtocol")
        if fallback:
            document["fallback_scrape_protocol"] = fallback
        for field, name in (
            ("scrapeNativeHistograms", "scrape_native_histograms"),
            ("nativeHistogramBucketLimit", "native_histogram_bucket_limit"),
            ("convertClassicHistogramsToNHCB", "convert_classic_histograms_to_nhcb"),
        ):
            if self.spec.get(field) is not None:
                document[name] = self.spec[field]
        if self.spec.get("nativeHistogramMinBucketFactor") is not None:
            document["native_histogram_min_bucket_factor"] = parse_quantity(
                self.spec["nativeHistogramMinBucketFactor"]
            ).as_float()
        if self.spec.get("scrapeClassicHistograms") is not None:
            renamed = self.prometheus.version >= (3,)
            name = "always_scrape_classic_histograms" if renamed else "scrape_classic_histograms"
            document[name] = self.spec["scrapeClassicHistograms"]
        return document

    def discovery(
        self, role: str, namespaces: Spec | None, *, attach: bool = False, selectors: Sequence[str] = ()
    ) -> Document:
        """One kubernetes_sd_config.

        Args:
            attach: the role can carry its node's labels.
            selectors: roles whose objects the API is to select, where the monitor asks for that.
        """
        document: Document = {"role": role}
        names = self.prometheus.namespaces(namespaces, self.namespace)
        if names:
            document["namespaces"] = {"names": names}
        api = self.prometheus.spec.get("apiserverConfig")
        if api:
            document["api_server"] = api.get("host")
            document |= self.client.of({**api, "followRedirects": None, "enableHttp2": None, "oauth2": None})
        metadata = self.spec.get("attachMetadata") or self.scrape_class.get("attachMetadata")
        if attach and metadata is not None and self.prometheus.version >= ((2, 35) if role == "pod" else (2, 37)):
            document["attach_metadata"] = {"node": bool(metadata.get("node"))}
        if self.spec.get("selectorMechanism") == "RoleSelector" and selectors:
            label = str(selector_of(self.spec.get("selector") or {}))
            document["selectors"] = [{"role": name, "label": label} for name in selectors]
        return {"kubernetes_sd_configs": [document]}

    def sharding(self, label: str = "__address__") -> list[Relabeling]:
        """Rules that leave a target to one shard."""
        return shard_rules(self.prometheus, label) if self.prometheus.sharded else []

    def _count(self, spec: Spec, field: str) -> int | None:
        value = spec.get(field)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ConfigError(f'{self.where}.{field}: "{value}" is not a whole number of at least 0')
        return value


def shard_rules(prometheus: Prometheus, label: str = "__address__") -> list[Relabeling]:
    """A target's hash decides its shard, unless it carries one; ``$(SHARD)`` stands for a shard's number."""
    return [
        rule([label, "__tmp_hash"], "__tmp_hash", regex="(.+);", replacement="$1", action="replace"),
        rule("__tmp_hash", "__tmp_hash", modulus=prometheus.shards, action="hashmod"),
        rule(["__tmp_hash", "__tmp_disable_sharding"], regex="$(SHARD);|.+;.+", action="keep"),
    ]


def scrape_protocols(spec: Spec, prometheus: Prometheus) -> Document:
    wanted = [
        protocol
        for protocol in spec.get("scrapeProtocols") or ()
        if protocol != "PrometheusText1.0.0" or prometheus.version >= (3,)
    ]
    return {"scrape_protocols": wanted} if wanted else {}


def name_schemes(spec: Spec) -> Document:
    """How metric names are checked and escaped."""
    document: Document = {}
    if spec.get("nameValidationScheme"):
        document["metric_name_validation_scheme"] = str(spec["nameValidationScheme"]).lower()
    if spec.get("nameEscapingScheme") in _ESCAPING:
        document["metric_name_escaping_scheme"] = _ESCAPING[spec["nameEscapingScheme"]]
    return document
