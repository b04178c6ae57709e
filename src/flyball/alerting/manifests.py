"""What installs Alertmanager's part on a cluster."""

from dataclasses import dataclass

from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, container, part

PORT = 9093
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


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied. The configuration is a Secret: it names receivers' keys."""
    arguments = [
        *("alertmanager", "--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/var/lib/flyball"),
        *(f"--web.listen-address=0.0.0.0:{PORT}", f"--web.external-url=http://{chosen.host}:{PORT}"),
        "--config.auto-reload-interval=30s",
    ]
    main = container(
        "alertmanager",
        chosen,
        arguments,
        ports=[{"name": "http", "containerPort": PORT}],
        resources=kube.resources("20m", "96Mi", "512Mi"),
        livenessProbe=kube.probe("/-/healthy", 5),
        readinessProbe=kube.probe("/-/ready", 3),
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/alertmanager", "readOnly": True},
            {"name": "data", "mountPath": "/var/lib/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    )
    volumes = [{"name": "config", "secret": {"secretName": chosen.name}}, kube.scratch()]
    pod = kube.restricted_pod(chosen.name, main, volumes, token=False)
    return [
        kube.namespace(chosen.namespace),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        part("v1", "Secret", chosen.name, chosen.namespace, stringData={"alertmanager.yml": chosen.config}),
        kube.service(chosen, PORT),
        kube.stateful_set(chosen, "alertmanager", pod, chosen.storage),
        kube.network_policy(chosen, ("http",)),
    ]
