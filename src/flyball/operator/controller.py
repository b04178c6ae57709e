"""Watches monitors and keeps the generated scrape configuration in one Secret."""

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube import EventRecorder, Informer, KubeClient
from flyball.kube.kinds import NAMESPACES, POD_MONITORS, SECRETS, SERVICE_MONITORS
from flyball.model.scrapeconfigs import ScrapeConfig, to_document
from flyball.operator.translate import Secrets, translate_pod_monitor, translate_service_monitor

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SECRET_NAME = "flyball-scrape-config"
SECRET_KEY = "prometheus.yml"
SETTLE_S = 0.2
RESYNC_S = 30.0  # Secrets that monitors name are not watched
SIZE_MAX = 900_000  # a Secret holds 1 MiB


class Operator:
    """Writes the Secret ``flyball-system/flyball-scrape-config``, key ``prometheus.yml``.

    One wrong monitor is left out, with an Event that names the field; the last good jobs of it are not kept, as
    upstream. ``base`` jobs come first.
    """

    def __init__(self, client: KubeClient, base: Sequence[ScrapeConfig] = (), *, resync_s: float = RESYNC_S) -> None:
        self._client, self._base, self._resync_s = client, tuple(base), resync_s
        self._monitors: tuple[tuple[Informer[dict[str, Any]], Callable[..., list[ScrapeConfig]], str, str], ...] = (
            (Informer(client, SERVICE_MONITORS), translate_service_monitor, "ServiceMonitor", "endpoints"),
            (Informer(client, POD_MONITORS), translate_pod_monitor, "PodMonitor", "podMetricsEndpoints"),
        )
        self._recorder = EventRecorder(client, "flyball-operator")
        self._wake = asyncio.Event()
        self._written = ""
        self._refused: dict[tuple[str, str], str] = {}
        self._counts = dict.fromkeys(("writes", "failures", "jobs"), 0)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and the monitors that are left out."""
        return {**self._counts, "refused": {f"{kind} {name}": why for (kind, name), why in self._refused.items()}}

    async def run(self) -> None:
        """Watches and writes until cancelled."""
        for informer, *_ in self._monitors:
            informer.add_handler(lambda *_: self._wake.set())
        async with asyncio.TaskGroup() as group:
            for informer, *_ in self._monitors:
                group.create_task(informer.run(), name=f"operator {informer.resource}")
            group.create_task(self._keep(), name="operator")

    async def _keep(self) -> None:
        self._wake.set()  # the base jobs must not wait for the monitors' definitions to exist
        delay_s = 1.0
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), self._resync_s)
            except TimeoutError:
                pass
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
        """Translates every monitor and writes the Secret when it changed.

        Raises:
            FlyballError: the API server does not take it.
        """
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
                    message = str(exc) if isinstance(exc, ConfigError) else f"{kind} {namespace}/{name}: {exc}"
                    if self._refused.get(key) != message:
                        self._refused[key] = message
                        log.warning("operator_monitor_refused error=%s", message)
                        head = {"apiVersion": "monitoring.coreos.com/v1", "kind": kind}
                        await self._recorder.event({**head, **monitor}, "Warning", "InvalidConfiguration", message)
                    continue
                self._refused.pop(key, None)
                jobs += found
        # JSON is YAML, and is read ten times as fast.
        text = json.dumps({"scrape_configs": [to_document(job) for job in jobs]}, indent=1)
        self._counts["jobs"] = len(jobs)
        if text != self._written:
            await self._write(text)
            self._counts["writes"] += 1
            self._written = text

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

    async def _write(self, text: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": SECRET_NAME,
                "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/managed-by": "flyball"},
            },
            "type": "Opaque",
            "data": {SECRET_KEY: base64.b64encode(text.encode()).decode()},
        }
        try:
            await self._client.patch(SECRETS, SECRET_NAME, {"data": body["data"]}, NAMESPACE)
            return
        except KubeApiError as exc:
            if exc.code != 404:
                raise
        try:
            await self._client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        except KubeApiError as exc:
            if exc.code != 409:
                raise
        await self._client.create(SECRETS, body, NAMESPACE)


def _secret_names(value: object) -> list[str]:
    """Every ``{name, key}`` below a value."""
    if isinstance(value, Mapping):
        own = [str(value["name"])] if value.get("name") and value.get("key") else []
        return own + [name for item in value.values() for name in _secret_names(item)]
    return [name for item in value for name in _secret_names(item)] if isinstance(value, list) else []
