"""Claims as directories; the API is a fake that remembers."""

import asyncio

import pytest

from flyball.errors import ConfigError
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
