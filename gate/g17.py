"""PromQL truth: upstream's own scenarios, the compliance tester's queries, and drawn queries beside a real Prometheus.

Every eval of promqltest passes; at least 99 % of the compliance queries, and all that are drawn, are answered as by
Prometheus 3.14 (to a relative 1e-9, errors alike in kind).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from flyball.promql.scenarios import run as run_scenarios
from gate.report import demand

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("FLYBALL_SHARED") or ROOT.parent / "shared")
EVALS, QUERIES, EACH, AT_ONCE = 2214, 100_000, 2_000, 2
_PEER = "tests/promql/test_differential.py"
_COMPLIANCE = "tests/promql/test_compliance.py"


def _scenarios() -> str:
    passed, failed = 0, []
    for path in sorted((SHARED / "promqltest").glob("*.test")):
        outcome = run_scenarios(path.read_text())
        passed += outcome.passed
        failed += [f"{path.name}:{line}: {query}: {reason}" for line, query, reason in outcome.failures]
    demand(not failed and passed == EVALS, f"{passed} of {EVALS} evals pass:\n" + "\n".join(failed))
    return f"promqltest: {passed} of {EVALS} evals"


def _asked(test: str, **variables: str) -> "subprocess.Popen[str]":
    """A test beside a real Prometheus, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "peer", "-p", "no:cacheprovider", test]
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _verdict(process: "subprocess.Popen[str]") -> str:
    """What differs; empty when nothing does."""
    text, _ = process.communicate()
    if process.returncode == 0:
        return ""
    found = re.findall(r"^E +(.* from \d+ to \d+ step .*)$", text, re.MULTILINE)
    return "\n".join(dict.fromkeys(found)) or text[-4000:]


def run(quick: bool = False) -> list[str]:
    lines = [_scenarios()]
    found = _verdict(_asked(_COMPLIANCE))
    demand(not found, f"compliance queries differ:\n{found}")
    lines.append("compliance queries: all alike")
    chunks = QUERIES // EACH // (10 if quick else 1)
    seeds = list(range(chunks))
    failures = []
    while seeds:
        batch = [_asked(_PEER, FLYBALL_QUERIES=str(EACH), FLYBALL_SEED=str(s)) for s in seeds[:AT_ONCE]]
        for seed, process in zip(seeds, batch, strict=False):
            if found := _verdict(process):
                failures.append(f"seed {seed}: {found}")
        seeds = seeds[AT_ONCE:]
        print(f"  {(chunks - len(seeds)) * EACH} queries, {len(failures)} chunks with differences", flush=True)
    demand(not failures, "\n".join(failures))
    lines.append(f"differential: {chunks * EACH} queries, all alike")
    return lines
