"""Series of objects, beside what kube-state-metrics 2.20.0 makes of the same objects.

The recording holds the objects of upstream's own unit tests (internal/store, Apache-2.0) and the whole text that its
generators wrote for each.
"""

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from flyball.exporters.kubestate import KINDS
from flyball.exporters.kubestate.exporter import KindState

RECORDING = Path(__file__).parent / "kube_state_metrics_2.20.0.jsonl.gz"
CASES = [json.loads(line) for line in gzip.decompress(RECORDING.read_bytes()).splitlines()]
KIND_OF = {kind.resource.kind: kind for kind in KINDS}
NOT_SERVED = {
    "kube_pod_nodeselectors",  # opt-in upstream
    "kube_persistentvolume_csi_attributes",  # opt-in upstream
}
#: Steps beyond a field's range, such as */120 minutes: kube-state-metrics' reader of schedules refuses them, and
#: Kubernetes runs them.
TAKEN_BY_KUBERNETES = ("*/120 4-22 * * *", "0 1 */32,1-7 * 3")
YEAR_1 = -62135596800.0  # a time that is absent: upstream shows Go's zero time, we show nothing
SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Found = dict[str, dict[frozenset[tuple[str, str]], float]]


def parsed(text: str) -> Found:
    found: Found = defaultdict(dict)
    for line in text.splitlines():
        match = SERIES.fullmatch(line)
        if match is not None and not line.startswith("#"):
            found[match[1]][frozenset(LABEL.findall(match[2] or ""))] = float(match[3])
    return dict(found)


def expected(text: str) -> Found:
    found = {
        name: {labels: value for labels, value in series.items() if value != YEAR_1}
        for name, series in parsed(text).items()
        if name not in NOT_SERVED and not name.endswith(("_labels", "_annotations"))
    }
    return {name: series for name, series in found.items() if series}


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES}))
def test_the_series_are_those_of_kube_state_metrics(kind: str) -> None:
    for case in CASES:
        if case["kind"] == kind:
            state = KindState(KIND_OF[kind])
            state.put(("", "it"), case["object"])
            found, wanted = parsed(b"".join(state.exposition()).decode()), expected(case["text"])
            if case["object"].get("spec", {}).get("schedule") in TAKEN_BY_KUBERNETES:
                assert found.pop("kube_cronjob_next_schedule_time") and wanted.pop("kube_cronjob_schedule_invalid")
            assert found == wanted, case["file"]


def test_a_changed_object_shows_only_what_it_is_now() -> None:
    state = KindState(KIND_OF["Pod"])
    pod = {"metadata": {"namespace": "a", "name": "p", "uid": "u"}, "spec": {}, "status": {"phase": "Running"}}
    state.put(("a", "p"), pod)
    assert (
        'kube_pod_status_phase{namespace="a",pod="p",uid="u",phase="Running"} 1'
        in b"".join(state.exposition()).decode()
    )
    state.put(("a", "p"), {**pod, "status": {}})
    assert "kube_pod_status_phase{" not in b"".join(state.exposition()).decode()
    state.drop(("a", "p"))
    assert [line for line in b"".join(state.exposition()).decode().splitlines() if not line.startswith("#")] == []


def test_label_values_are_escaped() -> None:
    state = KindState(KIND_OF["Namespace"])
    state.put(("", "it"), {"metadata": {"name": 'a"b\\c\nd'}, "status": {"phase": "Active"}})
    shown = b"".join(state.exposition()).decode()
    assert 'kube_namespace_status_phase{namespace="a\\"b\\\\c\\nd",phase="Active"} 1' in shown
