"""Cron times beside the Go package that kube-controller-manager reads them with."""

import random
import shutil

import pytest
from tests.cluster.cron_cases import answers, cases
from tests.model.test_cron import answer_of, recorded

pytestmark = pytest.mark.cluster
COUNT = 20_000


@pytest.mark.skipif(shutil.which("go") is None, reason="no real control plane: Go is not on the PATH")
def test_twenty_thousand_cron_times_fire_when_go_says():
    known = recorded()
    asked = [(at_s, zone, text) for at_s, zone, text, _ in known] + list(cases(random.Random(25), COUNT))
    theirs = answers(asked)
    assert theirs[: len(known)] == [answer for *_, answer in known]
    wrong = [(case, go) for case, go in zip(asked, theirs, strict=True) if answer_of(*case) != go]
    assert not wrong, wrong[:10]
