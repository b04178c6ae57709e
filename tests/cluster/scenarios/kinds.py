"""Kinds on which nothing here acts: registered, defaulted and stored as upstream stores them."""

from typing import Any

from tests.cluster.scenarios.manifests import CORE, obj
from tests.cluster.steps import Http, Kubectl, Step

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_CERTIFICATES = "/apis/certificates.k8s.io/v1"
_NETWORKING = "/apis/networking.k8s.io/v1"
_RESOURCE = "/apis/resource.k8s.io/v1"
_STORAGE = "/apis/storage.k8s.io/v1"
_FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
_RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
_DEVICES = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}


def _post(path: str, api_version: str, kind: str, name: str, **fields: Any) -> Step:
    return Http("POST", path, obj(kind, name, api_version, **fields))


def _admission(plural: str, kind: str, name: str, **spec: Any) -> Step:
    return _post(f"{_ADMISSION}/{plural}", "admissionregistration.k8s.io/v1", kind, name, spec=spec)


SCENARIOS: dict[str, list[Step]] = {
    "kinds": [
        _admission(
            "validatingadmissionpolicies",
            "ValidatingAdmissionPolicy",
            "kinds-rule",
            matchConstraints={"resourceRules": [_RULE]},
            validations=[{"expression": "object.spec.replicas < 100"}],
        ),
        _admission(
            "validatingadmissionpolicybindings",
            "ValidatingAdmissionPolicyBinding",
            "kinds-rule",
            policyName="kinds-nosuch",
            validationActions=["Deny"],
        ),
        _post(
            f"{_ADMISSION}/mutatingwebhookconfigurations",
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "kinds-none",
            webhooks=[],
        ),
        _post(
            f"{_CERTIFICATES}/clustertrustbundles",
            "certificates.k8s.io/v1",
            "ClusterTrustBundle",
            "kinds-empty",
            spec={"trustBundle": "none"},
        ),
        _post(
            f"{_CERTIFICATES}/certificatesigningrequests",
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            "kinds-bad",
            spec={"request": "", "signerName": "kinds.example.com/x", "usages": ["client auth"]},
        ),
        _post(
            f"{_NETWORKING}/servicecidrs",
            "networking.k8s.io/v1",
            "ServiceCIDR",
            "kinds-range",
            spec={"cidrs": ["10.200.0.0/24"]},
        ),
        _post(
            f"{_NETWORKING}/ipaddresses",
            "networking.k8s.io/v1",
            "IPAddress",
            "10.200.0.9",
            spec={"parentRef": {"resource": "services", "namespace": "kinds", "name": "x"}},
        ),
        _post(f"{_RESOURCE}/deviceclasses", "resource.k8s.io/v1", "DeviceClass", "gpu", spec={}),
        _post(
            f"{_RESOURCE}/namespaces/$NS/resourceclaims", "resource.k8s.io/v1", "ResourceClaim", "one", spec=_DEVICES
        ),
        _post(
            f"{_RESOURCE}/namespaces/$NS/resourceclaimtemplates",
            "resource.k8s.io/v1",
            "ResourceClaimTemplate",
            "each",
            spec={"spec": _DEVICES},
        ),
        _post(
            f"{_RESOURCE}/resourceslices",
            "resource.k8s.io/v1",
            "ResourceSlice",
            "kinds-slice",
            spec={
                "driver": "gpu.example.com",
                "nodeName": "n",
                "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "d0", "capacity": {"memory": {"value": "1.5Gi"}}}],
            },
        ),
        _post(f"{_STORAGE}/csinodes", "storage.k8s.io/v1", "CSINode", "kinds-n", spec={"drivers": []}),
        _post(f"{_STORAGE}/csidrivers", "storage.k8s.io/v1", "CSIDriver", "kinds.example.com", spec={}),
        _post(
            f"{_STORAGE}/namespaces/$NS/csistoragecapacities",
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            "left",
            storageClassName="fast",
            capacity="1.5Gi",
        ),
        _post(
            f"{_STORAGE}/volumeattachments",
            "storage.k8s.io/v1",
            "VolumeAttachment",
            "kinds-v",
            spec={"attacher": "kinds.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}},
        ),
        _post(
            f"{_STORAGE}/volumeattributesclasses",
            "storage.k8s.io/v1",
            "VolumeAttributesClass",
            "kinds-gold",
            driverName="kinds.example.com",
            parameters={"iops": "100"},
        ),
        _post(
            f"{_FLOW}/prioritylevelconfigurations",
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            "kinds-level",
            spec={"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}},
        ),
        _post(
            f"{_FLOW}/flowschemas",
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            "kinds-flow",
            spec={"priorityLevelConfiguration": {"name": "kinds-level"}},
        ),
        _post(
            "/apis/storagemigration.k8s.io/v1/storageversionmigrations",
            "storagemigration.k8s.io/v1",
            "StorageVersionMigration",
            "kinds-move",
            spec={"resource": {"group": "apps", "resource": "deployments"}},
        ),
        _post(
            f"{CORE}/podtemplates",
            "v1",
            "PodTemplate",
            "mould",
            template={"spec": {"containers": [{"name": "c", "image": "i"}]}},
        ),
        _post(
            "/apis/node.k8s.io/v1/runtimeclasses", "node.k8s.io/v1", "RuntimeClass", "kinds-sandbox", handler="sandbox"
        ),
        Kubectl("get resourceclaims,resourceclaimtemplates,podtemplates,csistoragecapacities -o wide"),
        Kubectl("get deviceclasses/gpu resourceslices/kinds-slice csinodes/kinds-n csidrivers/kinds.example.com"),
        Kubectl("get volumeattachments/kinds-v volumeattributesclasses/kinds-gold flowschemas/kinds-flow"),
        Kubectl("get prioritylevelconfigurations/kinds-level validatingadmissionpolicies/kinds-rule"),
        Kubectl("get servicecidrs/kinds-range ipaddresses/10.200.0.9 runtimeclasses/kinds-sandbox"),
        Kubectl("delete validatingadmissionpolicies/kinds-rule mutatingwebhookconfigurations/kinds-none"),
        Kubectl("delete prioritylevelconfigurations/kinds-level flowschemas/kinds-flow servicecidrs/kinds-range"),
    ],
}
