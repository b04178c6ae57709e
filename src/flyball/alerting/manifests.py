"""What installs Alertmanager's part on a cluster."""

from dataclasses import dataclass

from flyball.alerting.configsecret import SECRET_NAME
from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, container, part

PORT = 9093
CLUSTER_PORT = 9094
#: What ``flyball operator`` makes of AlertmanagerConfigs; it need not be there.
GENERATED = "/etc/alertmanager-generated"
NOBODY = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@dataclass(frozen=True, slots=True)
class Installation(kube.Installation):
    """What may be chosen.

    Attributes:
        config: Alertmanager's text as it is.
        storage: size of the volume for silences and the notification log.
    """

    name: str = "flyball-alertmanager"
    replicas: int = 1
    config: str = NOBODY
    storage: str = "1Gi"

    @property
    def peers(self) -> str:
        """The name of the Service that has each replica's own address, ready or not."""
        return f"{self.name}-peers"

    @property
    def targets(self) -> list[str]:
        """host:port of each replica: replicas share silences and what was told, and each is told of every alert."""
        return [f"{self.name}-{number}.{self.peers}.{self.namespace}.svc:{PORT}" for number in range(self.replicas)]


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied. The configuration is a Secret: it names receivers' keys."""
    arguments = [
        *("alertmanager", "--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/var/lib/flyball"),
        *(f"--web.listen-address=0.0.0.0:{PORT}", f"--web.external-url=http://{chosen.host}:{PORT}"),
        *("--config.auto-reload-interval=30s", f"--config.generated={GENERATED}"),
        *(f"--cluster.listen-address=0.0.0.0:{CLUSTER_PORT}", f"--cluster.advertise-address=$(POD_IP):{CLUSTER_PORT}"),
        *("--cluster.peer-name=$(POD_NAME)", f"--cluster.peer={chosen.peers}.{chosen.namespace}.svc:{CLUSTER_PORT}"),
    ]
    of_pod = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP"}
    main = container(
        "alertmanager",
        chosen,
        arguments,
        env=[{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in of_pod.items()],
        ports=[{"name": "http", "containerPort": PORT}, {"name": "cluster", "containerPort": CLUSTER_PORT}],
        resources=kube.resources("20m", "96Mi", "512Mi"),
        livenessProbe=kube.probe("/-/healthy", 5),
        readinessProbe=kube.probe("/-/ready", 3),
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/alertmanager", "readOnly": True},
            {"name": "generated", "mountPath": GENERATED, "readOnly": True},
            {"name": "data", "mountPath": "/var/lib/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    )
    volumes = [
        {"name": "config", "secret": {"secretName": chosen.name}},
        {"name": "generated", "secret": {"secretName": SECRET_NAME, "optional": True}},
        kube.scratch(),
    ]
    pod = kube.restricted_pod(chosen.name, main, volumes, token=False)
    return [
        kube.namespace(chosen.namespace),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        part("v1", "Secret", chosen.name, chosen.namespace, stringData={"alertmanager.yml": chosen.config}),
        kube.service(chosen, PORT),
        _peers(chosen),
        kube.stateful_set(chosen, "alertmanager", pod, chosen.storage, chosen.peers),
        kube.network_policy(chosen, ("http", "cluster")),
    ]


def _peers(chosen: Installation) -> Object:
    """Replicas find each other before they are ready."""
    ports = [
        {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"},
        {"name": "cluster", "port": CLUSTER_PORT, "targetPort": "cluster", "protocol": "TCP"},
    ]
    labels = kube.labels_of(chosen.name)
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels, "ports": ports}
    return part("v1", "Service", chosen.peers, chosen.namespace, labels, spec=spec)
