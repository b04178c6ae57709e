"""Watches monitors and rules: keeps the scrape configuration in one Secret, the rule files in ConfigMaps."""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube import EventRecorder, Informer, KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, NAMESPACES, POD_MONITORS, PROMETHEUS_RULES, SECRETS, SERVICE_MONITORS
from flyball.model.scrapeconfigs import ScrapeConfig, to_document
from flyball.operator.rules import pack, rule_file
from flyball.operator.translate import Secrets, translate_pod_monitor, translate_service_monitor

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SECRET_NAME = "flyball-scrape-config"
SECRET_KEY = "prometheus.yml"
RULES_PREFIX = "flyball-rulefiles-"
RULES_LABEL = "flyball.dev/rulefiles"
SETTLE_S = 0.2
RESYNC_S = 30.0  # Secrets that monitors name are not watched
SIZE_MAX = 900_000  # a Secret holds 1 MiB


class Operator:
    """Writes the Secret ``flyball-system/flyball-scrape-config``, key ``prometheus.yml``, and the ConfigMaps
    ``flyball-system/flyball-rulefiles-N``, a key a PrometheusRule.

    One wrong object is left out, with an Event that names the field; what it said before is not kept, as upstream.
    ``base`` jobs come first.
    """

    def __init__(self, client: KubeClient, base: Sequence[ScrapeConfig] = (), *, resync_s: float = RESYNC_S) -> None:
        self._client, self._base, self._resync_s = client, tuple(base), resync_s
        self._monitors: tuple[tuple[Informer[dict[str, Any]], Callable[..., list[ScrapeConfig]], str, str], ...] = (
            (Informer(client, SERVICE_MONITORS), translate_service_monitor, "ServiceMonitor", "endpoints"),
            (Informer(client, POD_MONITORS), translate_pod_monitor, "PodMonitor", "podMetricsEndpoints"),
        )
        self._rules: Informer[dict[str, Any]] = Informer(client, PROMETHEUS_RULES)
        self._recorder = EventRecorder(client, "flyball-operator")
        self._wake = asyncio.Event()
        self._written = ""
        self._written_rules: list[dict[str, str]] = []
        self._refused: dict[tuple[str, str], str] = {}
        self._counts = dict.fromkeys(("writes", "failures", "jobs", "rule_files"), 0)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and the monitors that are left out."""
        return {**self._counts, "refused": {f"{kind} {name}": why for (kind, name), why in self._refused.items()}}

    async def run(self) -> None:
        """Watches and writes until cancelled."""
        informers = [self._rules, *(informer for informer, *_ in self._monitors)]
        for informer in informers:
            informer.add_handler(lambda *_: self._wake.set())
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"operator {informer.resource}")
            group.create_task(self._keep(), name="operator")

    async def _keep(self) -> None:
        self._wake.set()  # the base jobs must not wait for the monitors' definitions to exist
        delay_s = 1.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._resync_s):  # wait_for may lose a cancellation
                    await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(SETTLE_S)
            try:
                await self.reconcile()
                delay_s = 1.0
            except FlyballError as exc:
                self._counts["failures"] += 1
                log.warning("operator_failed retry_in_s=%.0f error=%s", delay_s, exc)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, self._resync_s)
                self._wake.set()

    async def reconcile(self) -> None:
        """Translates every monitor and rule and writes what changed.

        Raises:
            FlyballError: the API server does not take it.
        """
        await self._reconcile_jobs()
        await self._reconcile_rules()

    async def _reconcile_jobs(self) -> None:
        jobs = list(self._base)
        size = 0
        for informer, translate, kind, field in self._monitors:
            for (namespace, name), monitor in sorted(informer.cache.items()):
                key = (kind, f"{namespace}/{name}")
                try:
                    secrets = await self._secrets(monitor, namespace, field)
                    found = translate(monitor, secrets)
                    size += sum(len(json.dumps(to_document(job))) for job in found)
                    if size > SIZE_MAX:
                        raise ConfigError(f"{kind} {namespace}/{name}: all monitors together exceed {SIZE_MAX} bytes")
                except (ConfigError, TypeError, AttributeError, ValueError) as exc:
                    await self._refuse(key, monitor, exc)
                    continue
                self._refused.pop(key, None)
                jobs += found
        # JSON is YAML, and is read ten times as fast.
        text = json.dumps({"scrape_configs": [to_document(job) for job in jobs]}, indent=1)
        self._counts["jobs"] = len(jobs)
        if text != self._written:
            data = {SECRET_KEY: base64.b64encode(text.encode()).decode()}
            await self._write(SECRETS, SECRET_NAME, {}, type="Opaque", data=data)
            self._written = text

    async def _reconcile_rules(self) -> None:
        files = []
        for (namespace, name), obj in sorted(self._rules.cache.items()):
            key = ("PrometheusRule", f"{namespace}/{name}")
            try:
                files.append(rule_file(obj))
            except (ConfigError, TypeError, AttributeError, ValueError) as exc:
                await self._refuse(key, obj, exc)
                continue
            self._refused.pop(key, None)
        self._counts["rule_files"] = len(files)
        packed = pack(files)
        if packed == self._written_rules:
            return
        for number, data in enumerate(packed):
            await self._write(CONFIG_MAPS, f"{RULES_PREFIX}{number}", {RULES_LABEL: "true"}, data=data)
        for old in await self._client.list(CONFIG_MAPS, NAMESPACE, label_selector=f"{RULES_LABEL}=true"):
            number = old["metadata"]["name"].removeprefix(RULES_PREFIX)
            if number.isdigit() and int(number) >= len(packed):
                await self._client.delete(CONFIG_MAPS, old["metadata"]["name"], NAMESPACE)
        self._written_rules = packed

    async def _refuse(self, key: tuple[str, str], obj: Mapping[str, Any], exc: Exception) -> None:
        message = str(exc) if isinstance(exc, ConfigError) else f"{' '.join(key)}: {exc}"
        if self._refused.get(key) != message:
            self._refused[key] = message
            log.warning("operator_refused error=%s", message)
            head = {"apiVersion": "monitoring.coreos.com/v1", "kind": key[0]}
            await self._recorder.event({**head, **obj}, "Warning", "InvalidConfiguration", message)

    async def _secrets(self, monitor: Mapping[str, Any], namespace: str, field: str) -> Secrets:
        """The Secrets that a monitor's endpoints name, read now."""
        values: dict[str, dict[str, str] | None] = {}
        for endpoint in (monitor.get("spec") or {}).get(field) or ():
            for name in _secret_names(endpoint):
                if name not in values:
                    try:
                        secret = await self._client.get(SECRETS, name, namespace)
                        values[name] = secret.get("data") or {}
                    except KubeApiError as exc:
                        if exc.code != 404:
                            raise
                        values[name] = None

        def find(_namespace: str, name: str, key: str) -> str:
            data = values.get(name)
            if data is None:
                raise ConfigError(f"there is no Secret {namespace}/{name}; create it")
            if key not in data:
                raise ConfigError(f'the Secret {namespace}/{name} has no key "{key}"; add it')
            return base64.b64decode(data[key]).decode()

        return find

    async def _write(self, resource: Resource, name: str, labels: Mapping[str, str], **content: Any) -> None:
        """Replaces the content of an object of ours, which is made with its namespace when it is missing."""
        self._counts["writes"] += 1
        try:
            held = await self._client.get(resource, name, NAMESPACE)
            await self._client.update(resource, {**held, **content}, NAMESPACE)
            return
        except KubeApiError as exc:
            if exc.code != 404:
                raise
        try:
            await self._client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        except KubeApiError as exc:
            if exc.code != 409:
                raise
        own = {"app.kubernetes.io/managed-by": "flyball", **labels}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": own}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        await self._client.create(resource, {**head, "metadata": metadata, **content}, NAMESPACE)


def _secret_names(value: object) -> list[str]:
    """Every ``{name, key}`` below a value."""
    if isinstance(value, Mapping):
        own = [str(value["name"])] if value.get("name") and value.get("key") else []
        return own + [name for item in value.values() for name in _secret_names(item)]
    return [name for item in value for name in _secret_names(item)] if isinstance(value, list) else []
