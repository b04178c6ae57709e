"""The built-in kinds of the embedded cluster, in the order discovery shows them (preferred version first)."""

from __future__ import annotations

from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""The same of custom resources, in upstream's order."""
CREATE_ONLY = ("create",)


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one API version.

    ``store`` is the key under which objects are kept ("group/plural", the core group empty: "/pods"); versions of one
    kind share it (autoscaling/v1 and v2 HorizontalPodAutoscalers, core and events.k8s.io Events). ``subresources``
    holds names without the plural ("status", "scale", "log"); `SUBRESOURCE_KINDS` says what an unusual one carries.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    store: str = ""

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @property
    def api_version(self) -> str:
        """What an object of this kind writes in ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version


SUBRESOURCE_KINDS: dict[str, tuple[str, str, str]] = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "proxy": ("", "v1", "PodProxyOptions"),
}
"""Subresource name -> (group, version, kind) of its body; all others carry the parent's own kind."""

_C = "cluster"
# kind, plural, short names, subresources, flags ("cluster": not namespaced, "all": category, "create": review kinds)
_ROWS: dict[tuple[str, str], tuple[tuple[str, str, str, str, str], ...]] = {
    ("", "v1"): (
        ("Binding", "bindings", "", "", "create"),
        ("ConfigMap", "configmaps", "cm", "", ""),
        ("Endpoints", "endpoints", "ep", "", ""),
        ("Event", "events", "ev", "", ""),
        ("LimitRange", "limitranges", "limits", "", ""),
        ("Namespace", "namespaces", "ns", "finalize status", _C),
        ("Node", "nodes", "no", "status proxy", _C),
        ("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "status", ""),
        ("PersistentVolume", "persistentvolumes", "pv", "status", _C),
        (
            "Pod",
            "pods",
            "po",
            "attach binding ephemeralcontainers eviction exec log portforward proxy resize status",
            "all",
        ),
        ("PodTemplate", "podtemplates", "", "", ""),
        ("ReplicationController", "replicationcontrollers", "rc", "scale status", "all"),
        ("ResourceQuota", "resourcequotas", "quota", "status", ""),
        ("Secret", "secrets", "", "", ""),
        ("ServiceAccount", "serviceaccounts", "sa", "token", ""),
        ("Service", "services", "svc", "proxy status", "all"),
    ),
    ("apiregistration.k8s.io", "v1"): (("APIService", "apiservices", "", "status", f"{_C} api-extensions"),),
    ("apps", "v1"): (
        ("ControllerRevision", "controllerrevisions", "", "", ""),
        ("DaemonSet", "daemonsets", "ds", "status", "all"),
        ("Deployment", "deployments", "deploy", "scale status", "all"),
        ("ReplicaSet", "replicasets", "rs", "scale status", "all"),
        ("StatefulSet", "statefulsets", "sts", "scale status", "all"),
    ),
    ("events.k8s.io", "v1"): (("Event", "events", "ev", "", ""),),
    ("authentication.k8s.io", "v1"): (
        ("SelfSubjectReview", "selfsubjectreviews", "", "", f"{_C} create"),
        ("TokenReview", "tokenreviews", "", "", f"{_C} create"),
    ),
    ("authorization.k8s.io", "v1"): (
        ("LocalSubjectAccessReview", "localsubjectaccessreviews", "", "", "create"),
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews", "", "", f"{_C} create"),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews", "", "", f"{_C} create"),
        ("SubjectAccessReview", "subjectaccessreviews", "", "", f"{_C} create"),
    ),
    ("autoscaling", "v2"): (("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "status", "all"),),
    ("autoscaling", "v1"): (("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "status", "all"),),
    ("batch", "v1"): (
        ("CronJob", "cronjobs", "cj", "status", "all"),
        ("Job", "jobs", "", "status", "all"),
    ),
    ("certificates.k8s.io", "v1"): (
        ("CertificateSigningRequest", "certificatesigningrequests", "csr", "approval status", _C),
        ("ClusterTrustBundle", "clustertrustbundles", "", "", _C),
        ("PodCertificateRequest", "podcertificaterequests", "", "status", ""),
    ),
    ("networking.k8s.io", "v1"): (
        ("IngressClass", "ingressclasses", "", "", _C),
        ("Ingress", "ingresses", "ing", "status", ""),
        ("IPAddress", "ipaddresses", "ip", "", _C),
        ("NetworkPolicy", "networkpolicies", "netpol", "", ""),
        ("ServiceCIDR", "servicecidrs", "", "status", _C),
    ),
    ("policy", "v1"): (("PodDisruptionBudget", "poddisruptionbudgets", "pdb", "status", ""),),
    ("rbac.authorization.k8s.io", "v1"): (
        ("ClusterRoleBinding", "clusterrolebindings", "", "", _C),
        ("ClusterRole", "clusterroles", "", "", _C),
        ("RoleBinding", "rolebindings", "", "", ""),
        ("Role", "roles", "", "", ""),
    ),
    ("storage.k8s.io", "v1"): (
        ("CSIDriver", "csidrivers", "", "", _C),
        ("CSINode", "csinodes", "", "status", _C),
        ("CSIStorageCapacity", "csistoragecapacities", "", "", ""),
        ("StorageClass", "storageclasses", "sc", "", _C),
        ("VolumeAttachment", "volumeattachments", "", "status", _C),
        ("VolumeAttributesClass", "volumeattributesclasses", "vac", "", _C),
    ),
    ("admissionregistration.k8s.io", "v1"): (
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", "", f"{_C} api-extensions"),
        ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "", "", f"{_C} api-extensions"),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "", f"{_C} api-extensions"),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "status", f"{_C} api-extensions"),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", "", f"{_C} api-extensions"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "", f"{_C} api-extensions"),
    ),
    ("apiextensions.k8s.io", "v1"): (
        ("CustomResourceDefinition", "customresourcedefinitions", "crd crds", "status", f"{_C} api-extensions"),
    ),
    ("scheduling.k8s.io", "v1"): (("PriorityClass", "priorityclasses", "pc", "", _C),),
    ("coordination.k8s.io", "v1"): (("Lease", "leases", "", "", ""),),
    ("node.k8s.io", "v1"): (("RuntimeClass", "runtimeclasses", "", "", _C),),
    ("discovery.k8s.io", "v1"): (("EndpointSlice", "endpointslices", "", "", ""),),
    ("resource.k8s.io", "v1"): (
        ("DeviceClass", "deviceclasses", "", "", _C),
        ("DeviceTaintRule", "devicetaintrules", "", "status", _C),
        ("ResourceClaim", "resourceclaims", "", "status", ""),
        ("ResourceClaimTemplate", "resourceclaimtemplates", "", "", ""),
        ("ResourceSlice", "resourceslices", "", "", _C),
    ),
    ("flowcontrol.apiserver.k8s.io", "v1"): (
        ("FlowSchema", "flowschemas", "", "status", _C),
        ("PriorityLevelConfiguration", "prioritylevelconfigurations", "", "status", _C),
    ),
    ("storagemigration.k8s.io", "v1"): (("StorageVersionMigration", "storageversionmigrations", "", "status", _C),),
    ("monitoring.coreos.com", "v1"): (
        ("Alertmanager", "alertmanagers", "am", "scale status", "prometheus-operator"),
        ("PodMonitor", "podmonitors", "pmon", "status", "prometheus-operator"),
        ("Probe", "probes", "prb", "status", "prometheus-operator"),
        ("Prometheus", "prometheuses", "prom", "scale status", "prometheus-operator"),
        ("PrometheusRule", "prometheusrules", "promrule", "status", "prometheus-operator"),
        ("ServiceMonitor", "servicemonitors", "smon", "status", "prometheus-operator"),
    ),
    ("monitoring.coreos.com", "v1alpha1"): (
        ("AlertmanagerConfig", "alertmanagerconfigs", "amcfg", "status", "prometheus-operator"),
        ("ScrapeConfig", "scrapeconfigs", "scfg", "status", "prometheus-operator"),
    ),
    ("monitoring.coreos.com", "v1beta1"): (
        ("AlertmanagerConfig", "alertmanagerconfigs", "amcfg", "status", "prometheus-operator"),
    ),
}


def _verbs(plural: str, flags: list[str]) -> tuple[str, ...]:
    if "create" in flags:
        return CREATE_ONLY
    if plural == "namespaces":
        return tuple(verb for verb in ALL_VERBS if verb != "deletecollection")
    return ALL_VERBS


def _build() -> tuple[Kind, ...]:
    kinds = []
    for (group, version), rows in _ROWS.items():
        for name, plural, short, subresources, flag_text in rows:
            flags = flag_text.split()
            store = "/events" if plural == "events" else f"{group}/{plural}"
            kinds.append(
                Kind(
                    group=group,
                    version=version,
                    kind=name,
                    plural=plural,
                    singular=name.lower(),
                    short_names=tuple(short.split()),
                    namespaced=_C not in flags,
                    verbs=_verbs(plural, flags),
                    categories=tuple(f for f in flags if f not in (_C, "create")),
                    subresources=tuple(subresources.split()),
                    store=store,
                )
            )
    return tuple(kinds)


KINDS: tuple[Kind, ...] = _build()
_BY_PLURAL = {(k.group, k.version, k.plural): k for k in KINDS}
_BY_KIND = {(k.group, k.version, k.kind): k for k in KINDS}


def find(group: str, version: str, plural: str) -> Kind | None:
    """The built-in kind served at ``/apis/group/version/plural``, or None."""
    return _BY_PLURAL.get((group, version, plural))


def find_kind(group: str, version: str, kind: str) -> Kind | None:
    """The built-in kind by the name objects carry, or None."""
    return _BY_KIND.get((group, version, kind))
