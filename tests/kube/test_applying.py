from pathlib import Path

from flyball.errors import ConfigError
from flyball.kube.applying import read_manifests, three_way_patch


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


def test_one_bad_document_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [unclosed")
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\njust text\n")
    found = [obj for _, obj in read_manifests(tmp_path)]
    assert [isinstance(obj, ConfigError) for obj in found] == [True, False, True]
    assert "a.yaml" in str(found[0])
