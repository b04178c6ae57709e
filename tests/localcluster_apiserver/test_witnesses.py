"""The official Python client and lightkube, which know nothing of us, against the embedded API server."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import lightkube
import pytest
from kubernetes.client.exceptions import ApiException
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import PatchType
from tests.cluster.control_plane import EmbeddedControlPlane, write_kubeconfig

LABELS = {"app": "web"}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("witness")
    with EmbeddedControlPlane(directory) as cluster:
        path = directory / "witness.kubeconfig"
        write_kubeconfig(path, cluster.base, cluster.token, cluster.ca)
        yield path


@pytest.fixture
def official(kubeconfig: Path) -> Iterator[kubernetes.client.ApiClient]:
    with kubernetes.config.new_client_from_config(str(kubeconfig)) as client:
        yield client


@pytest.fixture
def light(kubeconfig: Path) -> lightkube.Client:
    return lightkube.Client(lightkube.KubeConfig.from_file(str(kubeconfig)).get(), field_manager="witness")


def deployment(name: str) -> dict:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_the_official_client_creates_reads_patches_scales_and_deletes(official: kubernetes.client.ApiClient) -> None:
    apps = kubernetes.client.AppsV1Api(official)
    made = apps.create_namespaced_deployment("default", deployment("official"))
    assert made.spec.strategy.rolling_update.max_surge == "25%"
    assert made.metadata.creation_timestamp.tzinfo is not None
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:1.28"}]}}}}
    patched = apps.patch_namespaced_deployment("official", "default", patch)
    assert [c.image for c in patched.spec.template.spec.containers] == ["nginx:1.28"]
    assert patched.metadata.generation == 2
    scale = apps.patch_namespaced_deployment_scale("official", "default", {"spec": {"replicas": 5}})
    assert (scale.spec.replicas, scale.status.selector) == (5, "app=web")
    listed = apps.list_namespaced_deployment("default", label_selector="nosuch", limit=1)
    assert listed.items == [] and int(listed.metadata.resource_version) > 0
    made.spec.replicas = 9
    with pytest.raises(ApiException) as conflict:
        apps.replace_namespaced_deployment("official", "default", made)
    assert conflict.value.status == 409
    apps.delete_namespaced_deployment("official", "default")
    with pytest.raises(ApiException) as gone:
        apps.read_namespaced_deployment("official", "default")
    assert gone.value.status == 404


def test_the_official_clients_watch_sees_every_change_in_order(official: kubernetes.client.ApiClient) -> None:
    core = kubernetes.client.CoreV1Api(official)
    start = core.list_namespaced_config_map("default").metadata.resource_version

    def change() -> None:
        for value in ("1", "2"):
            body = {"metadata": {"name": "watched"}, "data": {"k": value}}
            if value == "1":
                core.create_namespaced_config_map("default", body)
            else:
                core.patch_namespaced_config_map("watched", "default", body)
        core.delete_namespaced_config_map("watched", "default")

    changing = threading.Thread(target=change)
    changing.start()
    seen = []
    watch = kubernetes.watch.Watch()
    selector = "metadata.name=watched"
    for event in watch.stream(
        core.list_namespaced_config_map, "default", field_selector=selector, resource_version=start, timeout_seconds=20
    ):
        seen.append((event["type"], event["object"].data["k"]))
        if event["type"] == "DELETED":
            watch.stop()
    changing.join()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_the_official_dynamic_client_discovers_kinds_and_applies_server_side(
    official: kubernetes.client.ApiClient,
) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(official)
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    made = maps.server_side_apply(body=body, name="applied", namespace="default", field_manager="one")
    assert made.metadata.managedFields[0].manager == "one"
    with pytest.raises(kubernetes.dynamic.exceptions.ConflictError):
        maps.server_side_apply(
            body={**body, "data": {"a": "2"}}, name="applied", namespace="default", field_manager="two"
        )
    forced = maps.server_side_apply(
        body={**body, "data": {"a": "2"}},
        name="applied",
        namespace="default",
        field_manager="two",
        force_conflicts=True,
    )
    assert forced.data.a == "2"
    scaler = dynamic.resources.get(api_version="autoscaling/v2", kind="HorizontalPodAutoscaler")
    assert scaler.namespaced and "hpa" in scaler.short_names


def test_lightkube_creates_applies_patches_and_lists_in_pages(light: lightkube.Client) -> None:
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=LABELS), spec=PodSpec(containers=[Container(name="web", image="nginx")])
    )
    spec = DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=LABELS), template=template)
    made = light.create(Deployment(metadata=ObjectMeta(name="light", namespace="default"), spec=spec))
    assert made.spec.template.spec.containers[0].imagePullPolicy == "Always"
    scale = light.get(Deployment.Scale, "light", namespace="default")
    scale.spec.replicas = 4
    assert light.replace(scale, "light", namespace="default").spec.replicas == 4
    merged = light.patch(Deployment, "light", {"metadata": {"labels": {"a": "b"}}}, patch_type=PatchType.MERGE)
    assert merged.metadata.labels == {"a": "b"} and merged.spec.replicas == 4
    for number in range(5):
        body = ConfigMap(metadata=ObjectMeta(name=f"page-{number}", namespace="default", labels={"set": "pages"}))
        body.apiVersion, body.kind = "v1", "ConfigMap"
        light.apply(body)
    pages = light.list(ConfigMap, namespace="default", labels={"set": "pages"}, chunk_size=2)
    assert [item.metadata.name for item in pages] == [f"page-{number}" for number in range(5)]
    with pytest.raises(ApiError) as missing:
        light.get(Pod, "nosuch", namespace="default")
    assert missing.value.status.reason == "NotFound"
    light.delete(Deployment, "light", namespace="default")


def test_lightkubes_watch_resumes_where_its_list_ended(light: lightkube.Client) -> None:
    listed = light.list(ConfigMap, namespace="default")
    list(listed)
    light.create(ConfigMap(metadata=ObjectMeta(name="later", namespace="default"), data={"k": "1"}))
    for kind, found in light.watch(ConfigMap, namespace="default", resource_version=listed.resourceVersion):
        assert (kind, found.metadata.name, found.data) == ("ADDED", "later", {"k": "1"})
        break


def test_lightkubes_asynchronous_client_reads_too(kubeconfig: Path) -> None:
    async def read() -> list[str]:
        client = lightkube.AsyncClient(lightkube.KubeConfig.from_file(str(kubeconfig)).get())
        return [found.metadata.name async for found in client.list(ConfigMap, namespace="kube-system")]

    assert "extension-apiserver-authentication" in asyncio.run(read())
