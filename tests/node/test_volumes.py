"""Claims as directories; the API is a fake that remembers."""

import asyncio

import pytest

from flyball.errors import ConfigError
from flyball.localcluster.node import volumes
from flyball.localcluster.node.environment import MissingReferenceError
from flyball.localcluster.node.podobjects import PodObjects

from .fakes import FakeClient, pod


def test_a_claim_is_the_directory_of_its_volume_once_it_is_bound(tmp_path):
    client = FakeClient()
    one = pod("p")
    one["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    objects = PodObjects(client, "default")
    claim = {"metadata": {"name": "data", "namespace": "default"}, "spec": {}}
    volume = {"metadata": {"name": "pv", "namespace": None}, "spec": {"hostPath": {"path": str(tmp_path)}}}

    def path():
        asyncio.run(objects.fetch(one))
        return objects.claim_path("data")

    with pytest.raises(MissingReferenceError, match='"data" not found'):
        path()
    client.put("PersistentVolumeClaim", claim)
    with pytest.raises(MissingReferenceError, match="not bound"):
        path()
    claim["spec"]["volumeName"] = "pv"
    client.put("PersistentVolume", volume)
    assert path() == tmp_path
    volume["spec"] = {"nfs": {"server": "elsewhere", "path": "/"}}
    with pytest.raises(ConfigError, match="neither hostPath nor local"):
        path()


def with_token(name):
    one = pod(name)
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "here", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    one["spec"]["volumes"] = [{"name": "kube-api-access-x", "projected": {"sources": sources}}]
    one["spec"]["serviceAccountName"] = "robot"
    return one


def test_the_account_volume_has_a_token_that_is_renewed_before_it_ends(tmp_path):
    client, one = FakeClient(), with_token("p")
    root = {"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}, "data": {"ca.crt": "authority"}}
    client.put("ConfigMap", root)
    objects = PodObjects(client, "default")

    def shown():
        asyncio.run(objects.fetch(one))
        made = volumes.prepare(
            one, tmp_path, objects.claim_path, objects.bytes_of, objects.token, pod_ip="127.10.0.2", capacity={}
        )
        return {name: (made["kube-api-access-x"] / name).read_text() for name in ("token", "ca.crt", "namespace")}

    assert shown() == {"token": "token 1", "ca.crt": "authority", "namespace": "default"}
    assert shown()["token"] == "token 1"
    ((namespace, account, spec),) = client.token_requests
    assert (namespace, account, spec["audiences"], spec["expirationSeconds"]) == ("default", "robot", ["here"], 3607)
    assert spec["boundObjectRef"]["uid"] == "uid-p"
    objects, client.token_life_s = PodObjects(client, "default"), 0
    assert [shown()["token"] for _ in range(2)] == ["token 2", "token 3"]
