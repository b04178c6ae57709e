"""Namespaces: what each is born with, and how it goes."""

from functools import partial

from flyball.errors import FlyballError, KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import is_terminating

ROOT_CA = "kube-root-ca.crt"
DELETION_POLL_S = 0.5


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
        left = 0
        for resource in await self._deletable():
            for item in await self.client.list(resource, name):
                left += 1
                if is_terminating(item):
                    continue
                try:
                    await self.client.delete(resource, item["metadata"]["name"], name, uid=item["metadata"]["uid"])
                except KubeApiError as exc:
                    if exc.code not in (404, 409):
                        raise
        if left:
            self.queue.add_after(name, DELETION_POLL_S)
            return
        body = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
        try:
            await self.client.update(NAMESPACES, body, subresource="finalize")
        except KubeApiError as exc:
            if exc.code != 404:
                raise

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
