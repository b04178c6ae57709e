"""Thousands of situations that upstream's own controller judged (run.py --record) are judged the same by us."""

import lzma
import sys
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.parity.ours import differences, judge  # noqa: E402

RECORDED = [
    msgspec.json.decode(line) for line in lzma.decompress((HERE / "recorded.jsonl.xz").read_bytes()).splitlines()
]


@pytest.mark.parametrize("profile", ["<=1.32", "1.33-1.36", "1.37"])
def test_upstream_and_we_agree(profile: str) -> None:
    cases = [(case, verdict) for judged_by, case, verdict in RECORDED if judged_by == profile]
    assert len(cases) == 1000
    assert sum(bool(verdict["writes"]) for _, verdict in cases) > 300
    wrong = {case["id"]: found for case, verdict in cases if (found := differences(verdict, judge(case, profile)))}
    assert not wrong


def test_a_difference_is_seen() -> None:
    _, case, verdict = next(entry for entry in RECORDED if entry[2]["writes"])
    ours = judge(case, RECORDED[0][0])
    assert not differences(verdict, ours)
    assert differences(verdict | {"writes": [ours["writes"][0] + 1]}, ours)
