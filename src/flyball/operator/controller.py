"""Watches monitoring objects: keeps prometheus.yml in one Secret, the rule files in ConfigMaps, the objects' status."""

import asyncio
import base64
import contextlib
import gzip
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from flyball import clock
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube import EventRecorder, Informer, KubeClient, Resource
from flyball.kube.client import APPLY_PATCH
from flyball.kube.kinds import (
    ALERTMANAGER_CONFIGS,
    ALERTMANAGERS,
    CONFIG_MAPS,
    KNOWN,
    NAMESPACES,
    NODES,
    POD_MONITORS,
    PROBES,
    PROMETHEUS_AGENTS,
    PROMETHEUS_RULES,
    PROMETHEUSES,
    SCRAPE_CONFIGS,
    SECRETS,
    SERVICE_MONITORS,
    STATEFUL_SETS,
    THANOS_RULERS,
)
from flyball.operator.alertmanagers import CONFIG_KEY, alerting, config_secret_name
from flyball.operator.assets import ReadAssets, references
from flyball.operator.engines import (
    FIELD_MANAGER,
    UNSERVED,
    Engine,
    kubelet_objects,
    objects_of,
    status_of,
    unserved_status,
    with_times,
)
from flyball.operator.generation import Generated, Key, Memo, generate, key_of
from flyball.operator.prometheus import IMPLIED
from flyball.operator.rules import pack

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SECRET_NAME = "flyball-scrape-config"
SECRET_KEY = "prometheus.yaml.gz"
ALERTING_SECRET_NAME = "flyball-alertmanager-generated"
RULES_PREFIX = "flyball-rulefiles-"
RULES_LABEL = "flyball.dev/rulefiles"
SETTLE_S = 0.2
RESYNC_S = 30.0  # Secrets and ConfigMaps that monitors name are not watched
SIZE_MAX = 900_000  # a Secret holds 1 MiB

_COUNTS = ("reconciliations", "failures", "writes", "status_writes", "jobs", "rule_files")
CONFIGURED = (SERVICE_MONITORS, POD_MONITORS, PROBES, SCRAPE_CONFIGS, PROMETHEUS_RULES)
WATCHED = (PROMETHEUSES, ALERTMANAGERS, ALERTMANAGER_CONFIGS, *CONFIGURED)


class Operator:
    """Writes the Secret ``flyball-scrape-config`` (prometheus.yml, compressed) and the ConfigMaps
    ``flyball-rulefiles-N``, a key a PrometheusRule, all of them in one namespace.

    One wrong object is left out, with an Event and a condition that name the field; what it said before is not kept,
    as upstream.

    Args:
        engines: what Prometheus and Alertmanager objects stand for in the embedded cluster; elsewhere none.
        leads: whether this replica may write.
        namespace: where it writes.
        kubelet_ports: by name, the ports of kubelets, for which a Service is kept; none when somebody else keeps it.
    """

    def __init__(
        self,
        client: KubeClient,
        engines: Sequence[Engine] = (),
        kubelet_ports: Mapping[str, int] | None = None,
        *,
        leads: Callable[[], bool] = lambda: True,
        namespace: str = NAMESPACE,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._client, self._leads, self._resync_s, self._kubelet_ports = client, leads, resync_s, kubelet_ports
        self._namespace = namespace
        self._engines = {engine.kind: engine for engine in engines}
        self._informers: dict[str, Informer[dict[str, Any]]] = {kind.kind: Informer(client, kind) for kind in WATCHED}
        self._namespaces: Informer[dict[str, Any]] = Informer(client, NAMESPACES)
        self._stateful_sets: Informer[dict[str, Any]] = Informer(
            client, STATEFUL_SETS, label_selector="app.kubernetes.io/managed-by=prometheus-operator"
        )
        self._nodes: Informer[dict[str, Any]] = Informer(client, NODES)
        self._recorder = EventRecorder(client, "flyball-operator")
        self._wake = asyncio.Event()
        self._written = b""
        self._written_rules: list[dict[str, str]] = []
        self._written_alerting: dict[str, str] | None = None
        self._refused_alerting: dict[Key, str] = {}
        self._written_objects: dict[Key, Any] = {}
        self._generated, self._memo = Generated({}), Memo()
        self._told: Mapping[Key, str] = {}
        self._counts = dict.fromkeys(_COUNTS, 0)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, what is watched, and the objects that are left out."""
        refused = {**self._generated.refused, **self._refused_alerting}
        watched = [informer.statistics() for informer in self._informers.values()]
        return {
            **self._counts,
            "refused": {f"{kind} {namespace}/{name}": why for (kind, namespace, name), why in refused.items()},
            "synced": all(one["synced"] for one in watched),
            "lists": sum(one["lists"] for one in watched),
            "watches": sum(one["watches"] for one in watched),
            "watch_failures": sum(one["failures"] for one in watched),
            "objects": {kind: len(informer.cache) for kind, informer in self._informers.items()},
            "objects_refused": Counter(kind for kind, _, _ in refused),
            "objects_unselected": Counter(kind for kind, _, _ in self._generated.unselected),
        }

    async def run(self) -> None:
        """Watches and writes until cancelled."""
        informers = [*self._informers.values(), self._namespaces]
        if self._engines:
            informers.append(self._stateful_sets)
        for informer in informers:
            informer.add_handler(lambda *_: self._wake.set())
        if self._kubelet_ports:
            informers.append(self._nodes)
            self._nodes.add_handler(self._node_changed)
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"operator {informer.resource}")
            group.create_task(self._keep(), name="operator")
            if self._engines:
                group.create_task(self._keep_telling_unserved(), name="operator unserved")

    def _node_changed(self, _change: object, old: object, new: object) -> None:
        if old is None or new is None:  # the rest is mostly heartbeats
            self._wake.set()

    async def _keep(self) -> None:
        self._wake.set()
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
        """Generates what changed; the leader writes it.

        Raises:
            FlyballError: the API server does not take it.
        """
        objects = {
            kind: [{"kind": kind, **obj} for obj in informer.cache.values()]
            for kind, informer in self._informers.items()
        }
        namespaces = {name: obj["metadata"].get("labels") or {} for (_, name), obj in self._namespaces.cache.items()}
        assets = await read_assets(self._client, objects)
        generated = generate(objects, namespaces, assets, self._memo)
        self._counts["reconciliations"] += 1
        if not self._leads():
            self._generated = generated
            return
        await self._tell_refused(self._told, generated.refused)
        self._generated, self._told = generated, generated.refused
        await self._write_config(generated.config)
        await self._write_rules(generated.rule_files)
        await self._write_alerting(objects, namespaces, assets)
        if self._kubelet_ports and self._nodes.cache:
            await self._apply(kubelet_objects(list(self._nodes.cache.values()), self._kubelet_ports))
        for kind, engine in self._engines.items():
            for obj in objects[kind]:
                await self._show(engine, obj)
        for resource in CONFIGURED:
            for obj in objects[resource.kind]:
                await self._tell(resource, obj)

    async def _keep_telling_unserved(self) -> None:
        while True:
            try:
                await self.tell_unserved()
            except FlyballError as exc:
                log.warning("operator_failed retry_in_s=%.0f error=%s", self._resync_s, exc)
            await asyncio.sleep(self._resync_s)

    async def tell_unserved(self) -> None:
        """Says on objects of kinds that nothing here stands for that they are not served. Nobody else needs these
        objects, and their definitions are mostly missing: they are listed now and then, not watched.

        Raises:
            FlyballError: the API server does not answer.
        """
        for resource in (THANOS_RULERS, PROMETHEUS_AGENTS) if self._leads() else ():
            try:
                found = await self._client.list(resource)
            except KubeApiError as exc:
                if exc.code != 404:  # there is no definition of it
                    raise
                continue
            for held in found:
                obj = {"apiVersion": resource.api_version, "kind": resource.kind, **held}
                status = unserved_status(obj, clock.rfc3339(clock.now_ms()))
                if (obj.get("status") or {}).get("conditions") != status["conditions"]:
                    await self._set_status(resource, obj, status)
                    await self._recorder.event(obj, "Warning", "NotSupported", UNSERVED[resource.kind])

    async def _tell_refused(self, before: Mapping[Key, str], now: Mapping[Key, str]) -> None:
        for key, why in now.items():
            if before.get(key) != why:
                log.warning("operator_refused error=%s", why)
                head = {"apiVersion": "monitoring.coreos.com/v1", "kind": key[0]}
                obj = self._informers[key[0]].cache.get(key[1:], {"metadata": {"namespace": key[1], "name": key[2]}})
                await self._recorder.event({**head, **obj}, "Warning", "InvalidConfiguration", why)

    async def _write_alerting(
        self,
        objects: Mapping[str, Sequence[dict[str, Any]]],
        namespaces: Mapping[str, Mapping[str, str]],
        assets: ReadAssets,
    ) -> None:
        """The configuration of the first Alertmanager object by name whose own one can be used."""
        refused: dict[Key, str] = {}
        files = self._written_alerting or {} if objects["Alertmanager"] else {}
        for obj in sorted(objects["Alertmanager"], key=key_of):
            namespace = str(obj["metadata"].get("namespace"))
            held = await _get(self._client, SECRETS, config_secret_name(obj), namespace)
            secret = None if held is None else _texts(held.get("data") or {})
            try:
                wanted = alerting(obj, secret, objects["AlertmanagerConfig"], namespaces, assets)
            except ConfigError as exc:
                refused[key_of(obj)] = str(exc)
                continue
            refused |= wanted.refused
            files = {CONFIG_KEY: json.dumps(wanted.config), **wanted.files}
            break
        if files != self._written_alerting:
            # At start there may be one of an Alertmanager object that went away meanwhile.
            if files or await _get(self._client, SECRETS, ALERTING_SECRET_NAME, self._namespace) is not None:
                data = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
                await self._write(SECRETS, ALERTING_SECRET_NAME, {}, type="Opaque", data=data)
            self._written_alerting = files
        await self._tell_refused(self._refused_alerting, refused)
        self._refused_alerting = refused

    async def _write_config(self, config: Mapping[str, Any]) -> None:
        # JSON is YAML, and is read ten times as fast
        text = msgspec.json.encode(config)
        self._counts["jobs"] = len(config["scrape_configs"])
        if text == self._written:
            return
        packed = base64.b64encode(gzip.compress(text, mtime=0)).decode()
        if len(packed) > SIZE_MAX:
            raise FlyballError(
                f"all monitors together make a configuration of {len(packed)} bytes, compressed, and a Secret takes "
                f"{SIZE_MAX}: what was in force stays; remove monitors"
            )
        await self._write(SECRETS, SECRET_NAME, {}, type="Opaque", data={SECRET_KEY: packed})
        self._written = text

    async def _write_rules(self, files: Sequence[tuple[str, str]]) -> None:
        self._counts["rule_files"] = len(files)
        packed = pack(files)
        if packed == self._written_rules:
            return
        for number, data in enumerate(packed):
            await self._write(CONFIG_MAPS, f"{RULES_PREFIX}{number}", {RULES_LABEL: "true"}, data=data)
        for old in await self._client.list(CONFIG_MAPS, self._namespace, label_selector=f"{RULES_LABEL}=true"):
            number = old["metadata"]["name"].removeprefix(RULES_PREFIX)
            if number.isdigit() and int(number) >= len(packed):
                await self._client.delete(CONFIG_MAPS, old["metadata"]["name"], self._namespace)
        self._written_rules = packed

    async def _show(self, engine: Engine, obj: Mapping[str, Any]) -> None:
        """A Prometheus or Alertmanager object's StatefulSet, Service and status."""
        namespace = str(obj["metadata"].get("namespace"))
        if (obj.get("spec") or {}).get("paused"):
            return
        name = f"{engine.name}-{obj['metadata']['name']}"
        held = self._stateful_sets.cache.get((namespace, name))
        if held is None:
            self._written_objects.pop(("StatefulSet", namespace, name), None)  # somebody deleted it
        await self._apply(objects_of(engine, obj))
        refused = self._generated.refused.get(key_of(obj)) or self._refused_alerting.get(key_of(obj), "")
        resource = PROMETHEUSES if engine.kind == "Prometheus" else ALERTMANAGERS
        await self._set_status(resource, obj, status_of(obj, held, refused, clock.rfc3339(clock.now_ms())))

    async def _apply(self, objects: Iterable[dict[str, Any]]) -> None:
        """Writes the objects that changed since they were last written."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        for obj in objects:
            kind, namespace, name = key = key_of(obj)
            if self._written_objects.get(key) != obj:
                resource = KNOWN[obj["apiVersion"], kind]
                await self._client.patch(resource, name, obj, namespace, content_type=APPLY_PATCH, params=params)
                self._written_objects[key] = obj

    async def _tell(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """The conditions of an object, under the Prometheus object that took it; none where there is no such object."""
        key = key_of(obj)
        owner, refused = self._generated.owners.get(key), self._generated.refused.get(key, "")
        before = ((obj.get("status") or {}).get("bindings")) or []
        bindings: list[dict[str, Any]] = []
        if owner is not None and owner.obj is not IMPLIED:
            name = {"group": "monitoring.coreos.com", "resource": "prometheuses"}
            name |= {"namespace": owner.namespace, "name": owner.name}
            accepted = {
                "type": "Accepted",
                "status": "False" if refused else "True",
                "reason": "InvalidConfiguration" if refused else "",
                "message": refused,
            }
            known = [item for binding in before if name.items() <= binding.items() for item in binding["conditions"]]
            bindings = [{**name, "conditions": with_times([accepted], known, obj, clock.rfc3339(clock.now_ms()))}]
        if bindings or before:
            await self._set_status(resource, obj, {"bindings": bindings})

    async def _set_status(self, resource: Resource, obj: Mapping[str, Any], status: dict[str, Any]) -> None:
        before = obj.get("status") or {}
        if all(before.get(name) == value for name, value in status.items()):
            return
        metadata = obj["metadata"]
        self._counts["status_writes"] += 1
        try:
            await self._client.patch(
                resource, metadata["name"], {"status": status}, metadata.get("namespace"), "status"
            )
        except KubeApiError as exc:
            if exc.code != 404:  # gone, or a definition of an older version has no status
                raise

    async def _write(self, resource: Resource, name: str, labels: Mapping[str, str], **content: Any) -> None:
        """Replaces the content of an object of ours, which is made with its namespace when it is missing."""
        self._counts["writes"] += 1
        namespace = self._namespace
        held = await _get(self._client, resource, name, namespace)
        if held is not None:
            await self._client.update(resource, {**held, **content}, namespace)
            return
        own = {"app.kubernetes.io/managed-by": "flyball", **labels}
        metadata = {"name": name, "namespace": namespace, "labels": own}
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **content}
        try:
            await self._client.create(resource, obj, namespace)
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            await self._client.create(NAMESPACES, {"metadata": {"name": namespace}})
            await self._client.create(resource, obj, namespace)


async def read_assets(client: KubeClient, objects: Mapping[str, Iterable[Mapping[str, Any]]]) -> ReadAssets:
    """The Secrets and ConfigMaps that any object names, read now.

    Raises:
        FlyballError: the API server does not answer.
    """
    found: dict[str, dict[tuple[str, str], Mapping[str, str] | None]] = {"Secret": {}, "ConfigMap": {}}
    for kind, items in objects.items():
        for obj in items if kind != "PrometheusRule" else ():
            namespace = str(obj["metadata"].get("namespace"))
            for what, name in references(obj.get("spec")):
                if (namespace, name) not in found[what]:
                    held = await _get(client, SECRETS if what == "Secret" else CONFIG_MAPS, name, namespace)
                    found[what][namespace, name] = None if held is None else held.get("data") or {}
    return ReadAssets(found["Secret"], found["ConfigMap"])


def _texts(data: Mapping[str, str]) -> dict[str, str]:
    """A Secret's values; those that are compressed are unpacked, and lose the ``.gz`` of their names."""
    found = {}
    for name, value in data.items():
        body = base64.b64decode(value)
        found[name.removesuffix(".gz")] = (gzip.decompress(body) if name.endswith(".gz") else body).decode()
    return found


async def _get(client: KubeClient, resource: Resource, name: str, namespace: str) -> dict[str, Any] | None:
    try:
        return await client.get(resource, name, namespace)
    except KubeApiError as exc:
        if exc.code != 404:
            raise
        return None
