"""The environment and the command line, from the manifest alone."""

import pytest

from flyball.localcluster.node import environment as env
from flyball.localcluster.node import images

POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "flyball",
        "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}],
    },
}


def build(container, objects=None):
    return env.container_environment(
        POD,
        POD["spec"]["containers"][0] | container,
        {"BASE": "b"},
        lambda kind, name: (objects or {}).get((kind, name)),
        pod_ip="127.10.0.2",
        capacity={"cpu": "4"},
    )


def field(path):
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_values_expand_in_order_and_keep_what_is_unknown():
    got = build({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A) $$(A) $(C) $(BASE)"}]})
    assert got["B"] == "1 $(A) $(C) b"


def test_the_downward_api():
    names = ["metadata.name", "metadata.uid", "metadata.labels['app']", "status.podIP", "spec.nodeName"]
    got = build({"env": [{"name": str(i), **field(path)} for i, path in enumerate(names)]})
    assert [got[str(i)] for i in range(5)] == ["p", "u", "web", "127.10.0.2", "flyball"]


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "requests.cpu"}, "0"),
    ],
)
def test_resources_round_up_to_their_divisor(ref, wanted):
    assert build({"env": [{"name": "R", "valueFrom": {"resourceFieldRef": ref}}]})["R"] == wanted


def test_references_are_read_and_missing_ones_named():
    ref = {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "k"}}}
    objects = {("ConfigMap", "cfg"): {"k": "v"}, ("Secret", "s"): {"x": "y"}}
    got = build({"env": [ref], "envFrom": [{"secretRef": {"name": "s"}, "prefix": "S_"}]}, objects)
    assert (got["K"], got["S_x"]) == ("v", "y")
    with pytest.raises(env.MissingReferenceError, match="cfg"):
        build({"env": [ref]})


def test_mount_paths_become_real_ones():
    mounts = [("/app", "/v/a"), ("/app/conf", "/v/c")]
    assert env.rewrite_argument("/app/main.py", mounts) == "/v/a/main.py"
    assert env.rewrite_argument("--file=/app/conf/x", mounts) == "--file=/v/c/x"
    assert env.rewrite_argument("/application /other/app", mounts) == "/application /other/app"
    assert env.rewrite_argument("cd /app && python /app/conf/x", mounts) == "cd /v/a && python /v/c/x"
    assert env.rewrite_environment({"PYTHONPATH": "/app:/x", "U": "http://h/app"}, mounts) == {
        "PYTHONPATH": "/v/a:/x",
        "U": "http://h/app",
    }


def test_service_variables_name_the_port_that_is_really_served():
    service = {
        "metadata": {"name": "my-web"},
        "spec": {"clusterIP": "127.11.0.1", "ports": [{"port": 80, "name": "http"}]},
    }
    got = env.service_environment([(service, lambda port: 30000 + port)])
    assert (got["MY_WEB_SERVICE_HOST"], got["MY_WEB_SERVICE_PORT_HTTP"]) == ("127.11.0.1", "30080")


def test_images_and_programs():
    assert images.repository("docker.io/library/python:3.13@sha256:ab") == "python"
    assert images.command_line("redis:7", [], ["--port", "1"])[:1] == ["redis-server"]
    with pytest.raises(images.NotRunnableError, match=r"example\.org/x"):
        images.command_line("example.org/x", [], [])
    assert images.takes_bind_shim(["/usr/bin/python3", "x.py"])
    assert not images.takes_bind_shim(["/usr/bin/python3", "-I", "x.py"])
    assert images.takes_bind_shim(["/bin/sh", "-c", "exec python x.py"])
    assert not images.takes_bind_shim(["/bin/sleep", "1"])
