"""What a node's kubelet may: what concerns its node, and what its pods name.

A kubelet is a user ``system:node:NAME`` of the group ``system:nodes``. What others than the objects of its pods say
about volumes and devices (resource claims and slices, certificates of pods) is nobody's here.

Source: kubernetes plugin/pkg/auth/authorizer/node, plugin/pkg/auth/authorizer/rbac/bootstrappolicy (NodeRules).
"""

from collections.abc import Callable, Iterator
from typing import Any

from flyball.localcluster.storage import Storage

Object = dict[str, Any]

NODES, NODE_USER = "system:nodes", "system:node:"
MIRROR_POD = "kubernetes.io/config.mirror"
_READ = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")
_LEASES = "kube-node-lease"
# For all nodes alike, by group and resource.
_VERBS: dict[tuple[str, str], tuple[str, ...]] = {
    ("authentication.k8s.io", "tokenreviews"): ("create",),
    ("authorization.k8s.io", "subjectaccessreviews"): ("create",),
    ("authorization.k8s.io", "localsubjectaccessreviews"): ("create",),
    ("", "services"): _READ,
    ("", "events"): ("create", "update", "patch"),
    ("events.k8s.io", "events"): ("create", "update", "patch"),
    ("", "endpoints"): ("get",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("create", *_READ),
    ("certificates.k8s.io", "clustertrustbundles"): _READ,
    ("storage.k8s.io", "csidrivers"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
}


def node_of(user: str, groups: tuple[str, ...]) -> str | None:
    """The node whose kubelet a user is, None for everybody else."""
    return user.removeprefix(NODE_USER) if user.startswith(NODE_USER) and NODES in groups else None


class NodeAuthorizer:
    """Judges by the stored objects."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._judges: dict[tuple[str, str], Callable[[str, Any, str], str | None]] = {
            ("", "secrets"): self._read_named,
            ("", "configmaps"): self._read_named,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._get_named,
            ("storage.k8s.io", "volumeattachments"): self._get_named,
            ("", "serviceaccounts"): self._account,
            ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
        }

    def allows(self, user: str, groups: tuple[str, ...], act: Any) -> tuple[bool, str]:
        """Whether a node may do what a ``rights.Act`` says, and else why not, where that is told; others may not."""
        node = node_of(user, groups)
        if node is None:
            return False, ""
        if not node:
            return False, f'unknown node for user "{user}"'
        resource, _, sub = act.resource.partition("/")
        judge = self._judges.get((act.group, resource))
        if judge is None:
            return act.verb in _VERBS.get((act.group, act.resource), ()), ""
        refused = judge(node, act, sub)
        return refused is None, refused or ""

    # Each says why not, "" without a word, None where the node may.

    def _read_named(self, node: str, act: Any, sub: str) -> str | None:
        if act.verb not in _READ:
            return "can only read resources of this type"
        if sub:
            return "cannot read subresource"
        if not act.namespace:
            return "can only read namespaced object of this type"
        return self._related(node, act)

    def _get_named(self, node: str, act: Any, sub: str) -> str | None:
        if act.verb != "get":
            return "can only get individual resources of this type"
        return "cannot get subresource" if sub else self._related(node, act)

    def _claim(self, node: str, act: Any, sub: str) -> str | None:
        if sub != "status":
            return self._get_named(node, act, sub)
        return self._related(node, act) if act.verb in ("update", "patch") else "can only get/update/patch this type"

    def _account(self, node: str, act: Any, sub: str) -> str | None:
        if act.verb == "get" and not sub:
            return self._read_named(node, act, sub)
        if act.verb != "create" or not act.name:
            return "can only create tokens for individual service accounts"
        if sub != "token":
            return "can only create token subresource of serviceaccount"
        return self._related(node, act)

    def _lease(self, node: str, act: Any, _sub: str) -> str | None:
        if act.verb not in _OWN:
            return "can only get, create, update, patch, or delete a node lease"
        if act.namespace != _LEASES:
            return f'can only access leases in the "{_LEASES}" system namespace'
        if act.verb != "create" and act.name != node:
            return "can only access node lease with the same name as the requesting node"
        return None

    def _csi_node(self, node: str, act: Any, sub: str) -> str | None:
        if sub:
            return "cannot authorize CSINode subresources"
        if act.verb not in _OWN:
            return "can only get, create, update, patch, or delete a CSINode"
        if act.verb != "create" and act.name != node:
            return "can only access CSINode with the same name as the requesting node"
        return None

    def _node(self, node: str, act: Any, sub: str) -> str | None:
        if (not sub and act.verb in ("create", "update", "patch")) or (
            sub == "status" and act.verb in ("update", "patch")
        ):
            return None
        if sub or act.verb not in _READ:
            return ""
        if not act.name:
            return f"node '{node}' cannot read all nodes, only its own Node object"
        return None if act.name == node else f"node '{node}' cannot read '{act.name}', only its own Node object"

    def _pod(self, node: str, act: Any, sub: str) -> str | None:
        if sub == "status" and act.verb in ("update", "patch"):
            return None
        if sub == "eviction" and act.verb == "create":
            return None
        if sub:
            return ""
        if act.verb in ("create", "delete"):
            return None
        if act.verb == "get":
            return self._related(node, act)
        if act.verb not in _READ:
            return ""
        if act.node == node:
            return None
        return self._related(node, act) if act.name else "can only list/watch pods with spec.nodeName field selector"

    def _related(self, node: str, act: Any) -> str | None:
        if not act.name:
            return "No Object name found"
        wanted = (act.resource.partition("/")[0], act.namespace, act.name)
        if wanted in self._of_node(node):
            return None
        return f"no relationship found between node '{node}' and this object"

    def _of_node(self, node: str) -> Iterator[tuple[str, str, str]]:
        """(plural, namespace, name) of what the node's pods are and name."""
        claims = set()
        for record in self._storage.records("/pods"):
            pod = record.object
            if pod["spec"].get("nodeName") != node:
                continue
            namespace = pod["metadata"]["namespace"]
            yield "pods", namespace, pod["metadata"]["name"]
            if MIRROR_POD in (pod["metadata"].get("annotations") or {}):
                continue  # a node could make such a pod itself, and so give itself what it names
            yield "serviceaccounts", namespace, pod["spec"].get("serviceAccountName", "")
            for plural, name in _named(pod["spec"]):
                yield plural, namespace, name
            for claim in _claims(pod):
                claims.add((namespace, claim))
                yield "persistentvolumeclaims", namespace, claim
        for record in self._storage.records("/persistentvolumes"):
            spec = record.object["spec"]
            bound = spec.get("claimRef") or {}
            if (bound.get("namespace"), bound.get("name")) in claims:
                yield "persistentvolumes", "", record.object["metadata"]["name"]
                for plural, name in _named(spec):
                    yield plural, str(bound["namespace"]), name
        for record in self._storage.records("storage.k8s.io/volumeattachments"):
            if record.object["spec"].get("nodeName") == node:
                yield "volumeattachments", "", record.object["metadata"]["name"]


_REFERENCES = {
    "secretKeyRef": "secrets",
    "secretRef": "secrets",
    "nodePublishSecretRef": "secrets",
    "nodeStageSecretRef": "secrets",
    "nodeExpandSecretRef": "secrets",
    "secret": "secrets",
    "azureFile": "secrets",
    "configMapKeyRef": "configmaps",
    "configMapRef": "configmaps",
    "configMap": "configmaps",
}


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """(plural, name) of the secrets and configurations that a pod's or a volume's spec names, wherever."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
        return
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "imagePullSecrets":
            yield from (("secrets", str(one.get("name"))) for one in item or ())
        elif key in _REFERENCES and isinstance(item, dict):
            name = item.get("secretName") or item.get("name")
            if name:
                yield _REFERENCES[key], str(name)
        else:
            yield from _named(item)


def _claims(pod: Object) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            yield volume["persistentVolumeClaim"]["claimName"]
        elif volume.get("ephemeral"):
            yield f"{pod['metadata']['name']}-{volume['name']}"
