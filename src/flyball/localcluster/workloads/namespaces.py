"""Namespaces: what each is born with, and how it goes."""

from collections import Counter
from collections.abc import Mapping
from functools import partial

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import is_terminating

ROOT_CA = "kube-root-ca.crt"
DELETION_POLL_S = 0.5


_WELL = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)


def deletion_conditions(
    before: list[Object], left: Mapping[Resource, list[Object]], problems: list[str], now: str
) -> list[Object]:
    """What keeps a namespace from going.

    Args:
        left: what is still there after its deletion.
        problems: why something could not be deleted.
        now: RFC 3339.

    Source: kubernetes pkg/controller/namespace/deletion/status_condition_utils.go.
    """
    ill: dict[str, tuple[str, str]] = {}
    if problems:
        message = f"Failed to delete all resource types, {len(problems)} remaining: {', '.join(sorted(problems))}"
        ill["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", message)
    counts = sorted(f"{r.plural}.{r.group} has {len(items)} resource instances" for r, items in left.items() if items)
    if counts:
        message = f"Some resources are remaining: {', '.join(counts)}"
        ill["NamespaceContentRemaining"] = ("SomeResourcesRemain", message)
    holding = Counter(f for items in left.values() for item in items for f in item["metadata"].get("finalizers") or [])
    if holding:
        named = ", ".join(sorted(f"{finalizer} in {n} resource instances" for finalizer, n in holding.items()))
        message = f"Some content in the namespace has finalizers remaining: {named}"
        ill["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)
    old = {found["type"]: found for found in before}
    made = []
    for kind, reason, message in _WELL:
        status = "True" if kind in ill else "False"
        reason, message = ill.get(kind, (reason, message))
        same = old.get(kind, {}).get("status") == status
        since = old[kind]["lastTransitionTime"] if same else now
        made.append({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
    return made


class NamespaceController(Controller):
    """Gives every namespace its CA bundle and default service account, and empties those that are deleted."""

    name = "namespace-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._namespaces = informers.of(NAMESPACES)
        self._namespaces.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)[1]))
        informers.of(CONFIG_MAPS).add_handler(partial(self._on_gift, ROOT_CA))
        informers.of(SERVICE_ACCOUNTS).add_handler(partial(self._on_gift, "default"))
        self._gifts = {resource: informers.of(resource) for resource in (CONFIG_MAPS, SERVICE_ACCOUNTS)}

    def _on_gift(self, name: str, change: str, old: Object | None, _new: Object | None) -> None:
        if change == "DELETED" and old is not None and old["metadata"]["name"] == name:
            self.queue.add(old["metadata"]["namespace"])

    async def reconcile(self, key: str) -> None:
        """Provide for one namespace, or empty it."""
        namespace = self._namespaces.cache.get(("", key))
        if namespace is None:
            return
        if is_terminating(namespace):
            await self._empty(namespace)
            return
        ca_pem = self.client.access.ca_pem
        if ca_pem:
            await self._provide(CONFIG_MAPS, (key, ROOT_CA), {"data": {"ca.crt": ca_pem}})
        await self._provide(SERVICE_ACCOUNTS, (key, "default"), {})

    async def _provide(self, resource: Resource, key: Key, content: Object) -> None:
        current = self._gifts[resource].cache.get(key)
        wanted = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": key[1], "namespace": key[0]},
            **content,
        }
        if current is None:
            try:
                await self.client.create(resource, wanted)
            except KubeApiError as exc:
                if exc.code != 409:
                    raise
        elif any(current.get(name) != value for name, value in content.items()):
            await self.client.patch(resource, key[1], content, key[0])

    async def _empty(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        left: dict[Resource, list[Object]] = {}
        problems: list[str] = []
        for resource in await self._deletable():
            try:
                if await self._delete_all(resource, name):
                    left[resource] = await self.client.list(resource, name)
            except FlyballError as exc:  # one kind that refuses must not keep the others
                problems.append(str(exc))
        await self._report(namespace, left, problems)
        if problems or any(left.values()):
            self.queue.add_after(name, DELETION_POLL_S)
            return
        body = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
        try:
            await self.client.update(NAMESPACES, body, subresource="finalize")
        except KubeApiError as exc:
            if exc.code != 404:
                raise

    async def _delete_all(self, resource: Resource, namespace: str) -> bool:
        """Whether there was anything to delete, or to wait for."""
        items = await self.client.list(resource, namespace)
        for item in items:
            if is_terminating(item):
                continue
            try:
                await self.client.delete(resource, item["metadata"]["name"], namespace, uid=item["metadata"]["uid"])
            except KubeApiError as exc:
                if exc.code not in (404, 409):
                    raise
        return bool(items)

    async def _report(self, namespace: Object, left: dict[Resource, list[Object]], problems: list[str]) -> None:
        before = (namespace.get("status") or {}).get("conditions") or []
        conditions = deletion_conditions(before, left, problems, clock.rfc3339(clock.now_ms()))
        if conditions != before and (problems or any(left.values())):
            change = {"status": {"conditions": conditions}}
            await self.client.patch(NAMESPACES, namespace["metadata"]["name"], change, subresource="status")

    async def _deletable(self) -> list[Resource]:
        found: list[Resource] = []
        for version in await self.client.group_versions():
            try:
                offered = await self.client.resources(version)
            except FlyballError:
                continue  # an aggregated API whose backend is away must not keep a namespace from going
            found += [item for item, verbs in offered if item.namespaced and {"list", "delete"} <= verbs]
        # Pods last: their controllers would only make new ones.
        return sorted(found, key=lambda item: item == PODS)
