"""ClusterRoles that are made of others: the rules of all that their selectors choose."""

from flyball.kube import KubeClient
from flyball.kube.kinds import CLUSTER_ROLES
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import labels_of, name_of
from flyball.model.selectors import selector_of


def aggregated(role: Object, others: list[Object]) -> list[Object]:
    """The rules of the chosen roles in the order of their names, each once."""
    chosen = [selector_of(one) for one in role["aggregationRule"].get("clusterRoleSelectors") or []]
    rules: list[Object] = []
    for other in sorted(others, key=name_of):
        if name_of(other) != name_of(role) and any(one.matches(labels_of(other)) for one in chosen):
            rules += [rule for rule in other.get("rules") or [] if rule not in rules]
    return rules


class ClusterRoleController(Controller):
    """Writes the rules of every role that is made of others."""

    name = "clusterrole-aggregation-controller"
    workers = 1

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._roles = informers.of(CLUSTER_ROLES)
        self._roles.add_handler(self._changed)

    def _changed(self, *_: object) -> None:
        for key, role in self._roles.cache.items():
            if role.get("aggregationRule"):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Bring one role's rules up to date."""
        role = self._roles.cache.get(key)
        if role is None or not role.get("aggregationRule"):
            return
        rules = aggregated(role, list(self._roles.cache.values()))
        if rules != (role.get("rules") or []):
            change = {"metadata": {"uid": role["metadata"]["uid"]}, "rules": rules}
            await self.client.patch(CLUSTER_ROLES, key_of(role)[1], change)
