"""Reading: lists with selectors and pages, watches, tables, describe, events."""

from typing import Any

from tests.cluster.scenarios.manifests import (
    APPS,
    BATCH,
    CORE,
    NETWORKING,
    PARTIAL,
    PARTIAL_LIST,
    TABLE,
    config_map,
    deployment,
    obj,
    pod,
    service,
    workload,
)
from tests.cluster.steps import Http, Kubectl, Step

MERGE = "application/merge-patch+json"
CMS = f"{CORE}/configmaps"
_AT = "2026-01-01T00:00:00Z"
_RUNNING = {
    "status": {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "hostIP": "10.0.0.9",
        "podIPs": [{"ip": "10.1.2.3"}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _AT}],
        "containerStatuses": [
            {
                "name": "web",
                "ready": True,
                "restartCount": 2,
                "image": "nginx:1.27",
                "imageID": "x",
                "containerID": "c://1",
                "started": True,
                "state": {"running": {"startedAt": _AT}},
                "lastState": {
                    "terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": _AT, "finishedAt": _AT}
                },
            }
        ],
    }
}


def _state(**state: Any) -> dict[str, Any]:
    status = {"name": "web", "ready": False, "restartCount": 0, "image": "i", "imageID": "", "state": state}
    return {"status": {"phase": "Pending", "containerStatuses": [status]}}


def _event(name: str, kind: str, about: str, **fields: Any) -> dict[str, Any]:
    return obj(
        "Event",
        name,
        involvedObject={"kind": kind, "namespace": "$NS", "name": about},
        reason="Because",
        message=f"something about {about}",
        type="Normal",
        firstTimestamp=_AT,
        lastTimestamp=_AT,
        count=3,
        source={"component": "tester"},
        **fields,
    )


_JOB = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
_TABLED = [
    deployment("web"),
    workload("StatefulSet", "db", serviceName="db"),
    workload("DaemonSet", "agent"),
    workload("ReplicaSet", "rs"),
    service(
        "web", ports=[{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    ),
    service("edge", type="LoadBalancer"),
    service("outside", type="ExternalName", externalName="example.com", ports=None, selector=None),
    obj("Job", "once", "batch/v1", spec={**_JOB, "completions": 3}),
    obj(
        "CronJob",
        "often",
        "batch/v1",
        spec={"schedule": "*/5 * * * *", "timeZone": "UTC", "jobTemplate": {"spec": _JOB}},
    ),
    obj("Secret", "hush", stringData={"a": "b"}),
    config_map("settings", a="1"),
    obj(
        "Ingress",
        "way",
        "networking.k8s.io/v1",
        spec={
            "ingressClassName": "c",
            "tls": [{"hosts": ["a.example"]}],
            "rules": [
                {
                    "host": "a.example",
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "web", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ],
        },
    ),
    obj(
        "PodDisruptionBudget",
        "kept",
        "policy/v1",
        spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    ),
    obj(
        "PersistentVolumeClaim",
        "disk",
        spec={
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    ),
    obj("NetworkPolicy", "wall", "networking.k8s.io/v1", spec={"podSelector": {"matchLabels": {"app": "web"}}}),
    obj(
        "Role",
        "reader",
        "rbac.authorization.k8s.io/v1",
        rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    ),
    obj(
        "RoleBinding",
        "reader",
        "rbac.authorization.k8s.io/v1",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": "$NS"}],
    ),
    obj("ResourceQuota", "budget", spec={"hard": {"count/secrets": "9"}}),
    obj("Lease", "lead", "coordination.k8s.io/v1", spec={"holderIdentity": "me"}),
    obj(
        "EndpointSlice",
        "slice",
        "discovery.k8s.io/v1",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        ports=[{"name": "http", "port": 80, "protocol": "TCP"}],
    ),
    obj(
        "Endpoints",
        "ends",
        subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}],
    ),
]
_KINDS = [
    "deployments",
    "statefulsets",
    "daemonsets",
    "replicasets",
    "services",
    "jobs",
    "cronjobs",
    "secrets",
    "configmaps",
    "ingresses",
    "poddisruptionbudgets",
    "persistentvolumeclaims",
    "networkpolicies",
    "roles",
    "rolebindings",
    "resourcequotas",
    "leases",
    "endpointslices",
    "endpoints",
    "serviceaccounts",
]
_DESCRIBED = [
    "deployment/web",
    "statefulset/db",
    "daemonset/agent",
    "replicaset/rs",
    "service/web",
    "service/edge",
    "job/once",
    "cronjob/often",
    "secret/hush",
    "configmap/settings",
    "ingress/way",
    "pdb/kept",
    "pvc/disk",
    "networkpolicy/wall",
    "role/reader",
    "rolebinding/reader",
    "quota/budget",
    "lease/lead",
    "endpointslice/slice",
    "sa/default",
]

SCENARIOS: dict[str, list[Step]] = {
    "lists": [
        *(Http("POST", CMS, config_map(f"n{i}", {"even": str(i % 2 == 0).lower(), "n": str(i)})) for i in range(5)),
        Http("GET", f"{CMS}?limit=2", save="page"),
        Http("GET", f"{CMS}?limit=2&continue=${{page.metadata.continue}}", save="next"),
        Http("GET", f"{CMS}?limit=20&continue=${{next.metadata.continue}}"),
        Http("GET", f"{CMS}?continue=nonsense"),
        Http("GET", f"{CMS}?limit=-1"),
        Http("GET", f"{CMS}?limit=many"),
        Http("GET", f"{CMS}?labelSelector=even%3Dtrue", save="even"),
        Http("GET", f"{CMS}?labelSelector=even%21%3Dtrue"),
        Http("GET", f"{CMS}?labelSelector=n%20in%20(1,2)"),
        Http("GET", f"{CMS}?labelSelector=n%20notin%20(1,2),even"),
        Http("GET", f"{CMS}?labelSelector=!even"),
        Http("GET", f"{CMS}?labelSelector=n%20gt%202"),
        Http("GET", f"{CMS}?labelSelector=n%3E2"),
        Http("GET", f"{CMS}?labelSelector=a%20b%20c"),
        Http("GET", f"{CMS}?labelSelector=n%3D%3Da%20b"),
        Http("GET", f"{CMS}?fieldSelector=metadata.name%3Dn1"),
        Http("GET", f"{CMS}?fieldSelector=metadata.name%21%3Dn1,metadata.namespace%3D$NS"),
        Http("GET", f"{CMS}?fieldSelector=data.a%3Dn1"),
        Http("GET", f"{CMS}?fieldSelector=metadata.name"),
        Http("GET", f"{CMS}?resourceVersion=0&labelSelector=n%3D1"),
        Http("GET", f"{CMS}?resourceVersion=${{even.metadata.resourceVersion}}&labelSelector=n%3D1"),
        Http("GET", f"{CMS}?resourceVersion=99999999&timeoutSeconds=1"),
        Http("GET", f"{CMS}?resourceVersion=x"),
        Http("GET", f"{CMS}?resourceVersionMatch=Exact"),
        Http("GET", f"{CMS}?resourceVersion=0&resourceVersionMatch=Exact"),
        Http("GET", f"{CMS}?resourceVersion=1&resourceVersionMatch=Sometimes"),
        Http("GET", f"{CMS}?limit=1", accept=PARTIAL_LIST),
        Http("GET", f"{CMS}/n1", accept=PARTIAL),
        Http("GET", f"{CMS}?labelSelector=n%3D1", accept=TABLE),
        Http("GET", f"{CMS}?labelSelector=n%3D1&includeObject=None", accept=TABLE),
        Http("GET", f"{CMS}?labelSelector=n%3D1&includeObject=Object", accept=TABLE),
        Http("GET", f"{CMS}/n1", accept=TABLE),
        Http("GET", f"{CMS}/n1?includeObject=Sometimes", accept=TABLE),
        Http("GET", "/api/v1/configmaps?fieldSelector=metadata.namespace%3D$NS,metadata.name%3Dn2"),
        Http("POST", f"{CORE}/pods", pod("p", {"app": "p"}, nodeName="here")),
        *(
            Http("GET", f"{CORE}/pods?fieldSelector={field}")
            for field in (
                "spec.nodeName%3Dhere",
                "status.phase%3DPending",
                "status.phase%21%3DPending",
                "spec.restartPolicy%3DAlways",
                "spec.schedulerName%3Ddefault-scheduler",
                "spec.serviceAccountName%3Ddefault",
                "status.podIP%3D",
                "spec.hostNetwork%3Dfalse",
                "spec.nosuch%3Dx",
            )
        ),
        Http("GET", f"{APPS}/deployments?fieldSelector=spec.replicas%3D1"),
        Http("GET", f"{CORE}/secrets?fieldSelector=type%3DOpaque"),
        Http("GET", f"{CORE}/services?fieldSelector=spec.type%3DClusterIP"),
        Kubectl("get configmaps --chunk-size=2 -l even"),
        Kubectl("get configmaps -l even=true -o name"),
        Kubectl("get configmaps -l even -L even,n --sort-by=.metadata.name --no-headers"),
        Kubectl("get configmaps --field-selector metadata.name=n1 --show-labels"),
        Kubectl("get configmaps --field-selector data.x=n1"),
        Kubectl("get cm -l nosuch=x"),
        Kubectl("get cm,pods -l n=1"),
    ],
    "watches": [
        Http("GET", CMS, save="start"),
        Http("POST", CMS, config_map("w", {"on": "yes"}, k="1")),
        Http("PATCH", f"{CMS}/w", {"data": {"k": "2"}}, MERGE),
        Http("PATCH", f"{CMS}/w", {"metadata": {"labels": {"on": "no"}}}, MERGE),
        Http("PATCH", f"{CMS}/w", {"metadata": {"labels": {"on": "yes"}}}, MERGE),
        Http("DELETE", f"{CMS}/w"),
        Http("GET", f"{CMS}?watch=true&timeoutSeconds=1&resourceVersion=${{start.metadata.resourceVersion}}"),
        Http(
            "GET",
            f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=${{start.metadata.resourceVersion}}&labelSelector=on%3Dyes",
        ),
        Http(
            "GET",
            f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=${{start.metadata.resourceVersion}}&fieldSelector=metadata.name%3Dother",
        ),
        Http(
            "GET", f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=${{start.metadata.resourceVersion}}", accept=TABLE
        ),
        Http(
            "GET", f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=${{start.metadata.resourceVersion}}", accept=PARTIAL
        ),
        Http("GET", f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=0"),
        Http(
            "GET",
            f"{CMS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan",
        ),
        Http("GET", f"{CMS}?watch=1&timeoutSeconds=1&sendInitialEvents=true"),
        Http("GET", f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=x"),
        Http("GET", f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion=99999999"),
        Http("GET", f"{CMS}/kube-root-ca.crt?watch=1&timeoutSeconds=1&resourceVersion=0"),
        Http("GET", "/api/v1/watch/namespaces/$NS/configmaps?timeoutSeconds=1&watch=1"),
    ],
    "tables": [
        *(Kubectl("create -f -", body) for body in _TABLED),
        *(Kubectl(f"get {kind} -o wide") for kind in _KINDS),
        Http("POST", f"{CORE}/pods", pod("running", {"app": "web"}, nodeName="here")),
        Http("PATCH", f"{CORE}/pods/running/status", _RUNNING, MERGE),
        Http("POST", f"{CORE}/pods", pod("pulling")),
        Http("PATCH", f"{CORE}/pods/pulling/status", _state(waiting={"reason": "ErrImagePull", "message": "m"}), MERGE),
        Http("POST", f"{CORE}/pods", pod("ended")),
        Http(
            "PATCH",
            f"{CORE}/pods/ended/status",
            {
                **_state(terminated={"exitCode": 3}),
                "status": {**_state(terminated={"exitCode": 3})["status"], "phase": "Failed"},
            },
            MERGE,
        ),
        Http("POST", f"{CORE}/pods", pod("evicted")),
        Http(
            "PATCH",
            f"{CORE}/pods/evicted/status",
            {"status": {"phase": "Failed", "reason": "Evicted", "message": "m"}},
            MERGE,
        ),
        Http("POST", f"{CORE}/pods", pod("gated", schedulingGates=[{"name": "example.com/gate"}])),
        Http(
            "POST",
            f"{CORE}/pods",
            pod("preparing", initContainers=[{"name": "init", "image": "i"}, {"name": "init2", "image": "i"}]),
        ),
        Http(
            "PATCH",
            f"{CORE}/pods/preparing/status",
            {
                "status": {
                    "phase": "Pending",
                    "initContainerStatuses": [
                        {
                            "name": "init",
                            "image": "i",
                            "imageID": "",
                            "ready": False,
                            "restartCount": 1,
                            "state": {"running": {"startedAt": _AT}},
                        }
                    ],
                }
            },
            MERGE,
        ),
        Http(
            "PATCH",
            f"{APPS}/deployments/web/status",
            {
                "status": {
                    "replicas": 3,
                    "readyReplicas": 1,
                    "updatedReplicas": 2,
                    "availableReplicas": 1,
                    "unavailableReplicas": 2,
                    "conditions": [
                        {
                            "type": "Available",
                            "status": "False",
                            "reason": "R",
                            "message": "m",
                            "lastTransitionTime": _AT,
                            "lastUpdateTime": _AT,
                        }
                    ],
                }
            },
            MERGE,
        ),
        Http("PATCH", f"{APPS}/statefulsets/db/status", {"status": {"replicas": 1, "readyReplicas": 1}}, MERGE),
        Http(
            "PATCH",
            f"{APPS}/daemonsets/agent/status",
            {
                "status": {
                    "desiredNumberScheduled": 3,
                    "currentNumberScheduled": 2,
                    "numberReady": 1,
                    "numberMisscheduled": 0,
                    "updatedNumberScheduled": 2,
                    "numberAvailable": 1,
                }
            },
            MERGE,
        ),
        Http(
            "PATCH",
            f"{BATCH}/jobs/once/status",
            {"status": {"active": 1, "succeeded": 2, "failed": 1, "startTime": _AT}},
            MERGE,
        ),
        Http(
            "PATCH",
            f"{CORE}/services/edge/status",
            {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}},
            MERGE,
        ),
        Http(
            "PATCH",
            f"{NETWORKING}/ingresses/way/status",
            {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}},
            MERGE,
        ),
        Kubectl("get pods"),
        Kubectl("get pods -o wide"),
        Kubectl("get deployments,statefulsets,daemonsets,jobs,services,ingresses -o wide"),
        Kubectl("get all"),
        *(Kubectl(f"describe {name}") for name in _DESCRIBED),
        *(Kubectl(f"describe pod {name}") for name in ("running", "pulling", "ended", "preparing")),
        Kubectl("describe pod nosuch"),
    ],
    "events": [
        Http("POST", f"{CORE}/pods", pod("p")),
        Http("POST", f"{CORE}/events", _event("one", "Pod", "p")),
        Http("POST", f"{CORE}/events", _event("two", "ConfigMap", "c", metadata=None) | {"type": "Warning"}),
        Http(
            "POST",
            f"{CORE}/events",
            {**_event("far", "Pod", "p"), "involvedObject": {"kind": "Pod", "namespace": "other", "name": "p"}},
        ),
        Http("POST", f"{CORE}/events", {"metadata": {"name": "bare"}}),
        Http(
            "POST",
            "/apis/events.k8s.io/v1/namespaces/$NS/events",
            obj(
                "Event",
                "new",
                "events.k8s.io/v1",
                eventTime="2026-01-01T00:00:00.000000Z",
                reportingController="example.com/c",
                reportingInstance="c-1",
                action="Acting",
                reason="Because",
                note="a note",
                type="Normal",
                regarding={"kind": "Pod", "namespace": "$NS", "name": "p"},
            ),
        ),
        Http(
            "POST",
            "/apis/events.k8s.io/v1/namespaces/$NS/events",
            obj("Event", "incomplete", "events.k8s.io/v1", reason="R"),
        ),
        Http("GET", f"{CORE}/events/new"),
        Http("GET", "/apis/events.k8s.io/v1/namespaces/$NS/events/one"),
        Http("GET", f"{CORE}/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod"),
        Http("GET", f"{CORE}/events?fieldSelector=type%3DWarning"),
        Http("GET", f"{CORE}/events?fieldSelector=reason%3DBecause,source%3Dtester"),
        Http("GET", f"{CORE}/events?fieldSelector=message%3Dx"),
        Http("GET", "/apis/events.k8s.io/v1/namespaces/$NS/events?fieldSelector=regarding.name%3Dp"),
        Kubectl("get events"),
        Kubectl("get events -o wide"),
        Kubectl("get events.events.k8s.io"),
        Kubectl("events"),
        Kubectl("events --for pod/p"),
        Kubectl("describe pod p"),
    ],
}
