"""The Kubernetes API from the client's side: client, credentials, informers, events, kinds.

Nothing here knows which server answers. It promises not to retry a write: a write whose answer was lost is the
caller's to judge.
"""

from flyball.kube.client import KubeClient, ObjectList, WatchEvent
from flyball.kube.config import Access, in_cluster_access, kubeconfig_access
from flyball.kube.events import EventRecorder
from flyball.kube.informer import Informer
from flyball.kube.kinds import Resource

__all__ = [
    "Access",
    "EventRecorder",
    "Informer",
    "KubeClient",
    "ObjectList",
    "Resource",
    "WatchEvent",
    "in_cluster_access",
    "kubeconfig_access",
]
