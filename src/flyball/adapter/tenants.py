"""MetricRules: rules that teams add for their own namespace, and see and change nothing beyond it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from flyball import clock
from flyball.adapter.confinement import confined_series
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube import Informer, KubeClient, Resource
from flyball.metricrules import AdapterConfig, MetricRule, Refusal, parse_metric_rule

log = logging.getLogger(__name__)

METRIC_RULES = Resource("flyball.dev", "v1alpha1", "metricrules", "MetricRule")
RULES_PER_NAMESPACE_MAX = 200


class _MetricRule(msgspec.Struct):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    status: dict[str, Any] | None = None


class TenantRules:
    """Follows the MetricRules; ``changed`` is called when they differ.

    Args:
        namespace_label: the label of series that names their namespace, as the cluster's scraping sets it. Tenants
            cannot choose it.
    """

    def __init__(self, client: KubeClient, changed: Callable[[], None], namespace_label: str = "namespace") -> None:
        self._client, self._changed, self._label = client, changed, namespace_label
        self._informer: Informer[_MetricRule] = Informer(client, METRIC_RULES, type=_MetricRule)
        self._informer.add_handler(self._on_change)
        self._rules: dict[tuple[str, str], MetricRule | Refusal] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follows them once their definition is installed."""
        await self._informer.run()

    @property
    def config(self) -> AdapterConfig:
        """The rules in force and those refused."""
        found = [self._rules[key] for key in sorted(self._rules)]
        return AdapterConfig(
            rules=tuple(item for item in found if isinstance(item, MetricRule)),
            refusals=tuple(item for item in found if isinstance(item, Refusal)),
        )

    def _on_change(self, _change: str, old: _MetricRule | None, new: _MetricRule | None) -> None:
        current = new or old
        assert current is not None
        key = str(current.metadata.get("namespace", "")), str(current.metadata.get("name", ""))
        if new is None:
            self._rules.pop(key, None)
            self._changed()
            return
        if old is not None and old.spec == new.spec:
            return  # our own write of the status
        taken = self._taken(key, new.spec)
        self._rules[key] = taken
        if isinstance(taken, Refusal):
            log.warning("metric_rule_refused name=%s/%s error=%s", *key, taken.message)
        task = asyncio.create_task(self._tell(key, taken, new), name="metric rule status")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed()

    def _taken(self, key: tuple[str, str], spec: dict[str, Any]) -> MetricRule | Refusal:
        namespace, name = key
        where = f"MetricRule {namespace}/{name}"
        if sum(space == namespace for space, _ in self._rules) > RULES_PER_NAMESPACE_MAX:
            return Refusal(where, f"{where}: the namespace has more than {RULES_PER_NAMESPACE_MAX} rules; remove some")
        try:
            rule = parse_metric_rule(spec, where, namespace, self._label)
            confined_series(rule)
        except ConfigError as exc:
            return Refusal(where, str(exc))
        return rule

    async def _tell(self, key: tuple[str, str], taken: MetricRule | Refusal, obj: _MetricRule) -> None:
        accepted = isinstance(taken, MetricRule)
        condition = {
            "type": "Accepted",
            "status": "True" if accepted else "False",
            "reason": "Accepted" if accepted else "Refused",
            "message": "" if isinstance(taken, MetricRule) else taken.message,
            "observedGeneration": obj.metadata.get("generation", 0),
            "lastTransitionTime": clock.rfc3339(clock.now_ms()),
        }
        try:
            status = {"status": {"conditions": [condition]}}
            await self._client.patch(METRIC_RULES, key[1], status, key[0], subresource="status")
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                log.warning("metric_rule_status_failed name=%s/%s error=%s", *key, exc)
        except FlyballError as exc:
            log.warning("metric_rule_status_failed name=%s/%s error=%s", *key, exc)


def metric_rule_definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    text = {"type": "string"}

    def mapping(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    spec = {
        **mapping(
            type={"type": "string", "enum": ["Custom", "External"], "default": "Custom"},
            seriesQuery={"type": "string", "minLength": 1, "maxLength": 4096},
            seriesFilters={"type": "array", "maxItems": 50, "items": mapping(**{"is": text, "isNot": text})},
            name=mapping(matches=text, **{"as": text}),
            resources=mapping(
                template=text,
                overrides={"type": "object", "additionalProperties": mapping(group=text, resource=text)},
            ),
            metricsQuery={"type": "string", "minLength": 1, "maxLength": 8192},
            notFinite={"type": "string", "enum": ["omit", "error"]},
            maxAge=text,
        ),
        "required": ["seriesQuery", "metricsQuery"],
    }
    columns = [
        {"name": "Type", "type": "string", "jsonPath": ".spec.type"},
        {"name": "Accepted", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Accepted")].status'},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    schema = mapping(
        apiVersion=text,
        kind=text,
        metadata={"type": "object"},
        spec=spec,
        status={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    )
    version = {
        "name": METRIC_RULES.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": {**schema, "required": ["spec"]}},
    }
    names = {"kind": "MetricRule", "listKind": "MetricRuleList", "plural": "metricrules", "singular": "metricrule"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "metricrules.flyball.dev"},
        "spec": {"group": "flyball.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }
