import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.localcluster_apiserver.support import cluster

from flyball.errors import ConfigError
from flyball.kube import KubeClient, kubeconfig_access
from flyball.kube.applying import apply_paths, read_manifests, three_way_patch


def test_nothing_is_patched_when_the_live_object_only_adds_defaults() -> None:
    wanted = {"spec": {"ports": [{"port": 80}]}}
    live = {"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}, "status": {}}
    assert three_way_patch(wanted, wanted, live) == {}


def test_a_field_that_was_applied_and_is_no_longer_wanted_is_removed() -> None:
    before = {"spec": {"replicas": 3, "paused": True}}
    assert three_way_patch(before, {"spec": {"paused": True}}, before) == {"spec": {"replicas": None}}


def test_a_field_that_somebody_else_set_is_left_alone() -> None:
    assert three_way_patch({"spec": {}}, {"spec": {}}, {"spec": {"replicas": 7}}) == {}


def test_a_changed_list_is_replaced() -> None:
    assert three_way_patch({}, {"a": [1, 2]}, {"a": [1]}) == {"a": [1, 2]}


def test_elements_that_the_server_added_to_an_applied_list_stay() -> None:
    volumes = [{"name": "mine", "emptyDir": {}}]
    live = {"volumes": [*volumes, {"name": "kube-api-access-x", "projected": {}}]}
    assert three_way_patch({"volumes": volumes}, {"volumes": volumes}, live) == {}
    assert three_way_patch({"volumes": []}, {"volumes": volumes}, live) == {"volumes": volumes}
    assert three_way_patch({"args": ["a"]}, {"args": ["a"]}, {"args": ["a", "b"]}) == {"args": ["a"]}


def test_one_bad_document_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [unclosed")
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\njust text\n")
    found = [obj for _, obj in read_manifests(tmp_path)]
    assert [isinstance(obj, ConfigError) for obj in found] == [True, False, True]
    assert "a.yaml" in str(found[0])


def test_every_file_of_kube_prometheus_is_read(shared: Path) -> None:
    manifests = shared / "kube-prometheus"
    found = list(read_manifests(manifests))
    assert not [str(obj) for _, obj in found if isinstance(obj, ConfigError)]
    files = {Path(where) for where, _ in found}
    assert files == set(manifests.rglob("*.yaml")) and any(path.parent.name == "setup" for path in files)


@pytest.mark.real
def test_the_whole_of_kube_prometheus_is_applied_in_one_go_twice(shared: Path, tmp_path: Path) -> None:
    manifests = shared / "kube-prometheus"

    async def main() -> tuple[list[str], list[str]]:
        async with cluster(tmp_path) as api:
            access = kubeconfig_access(tmp_path / "kubeconfig")
            client = KubeClient(replace(access, server=api.base))
            try:
                for _ in range(2):
                    done, failed = await apply_paths(client, (manifests,))
                    assert failed == []
                return done, failed
            finally:
                await client.close()

    done, _ = asyncio.run(main())
    assert len(done) > 120 and all(line.endswith((" unchanged", " configured")) for line in done)
    assert sum(line.endswith(" unchanged") for line in done) > 0.9 * len(done)
