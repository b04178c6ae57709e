"""The cases of upstream's own tests, under upstream's names: ``python -m tests.parity.upstream [--record FILE]``.

Compiles the tests of pkg/controller/podautoscaler of the module k8s.io/kubernetes with go/recorder.go beside them,
runs them, and takes down what every case gave to upstream's code and what that answered; ours is judged by the same.
Needs Go 1.26. Upstream's tests must pass in the copy, so that an answer taken down is the answer that they expect.
"""

import argparse
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.parity.build import HERE, go_mod, module_dir, run_go

RELEASE = "v1.37.1"
RECORDED = HERE / "upstream.jsonl.xz"
Case = dict[str, Any]
_TEXT: dict[str, Any] = {"capture_output": True, "text": True}
#: Calls in upstream's tests that are led through the recorder.
_LED = (
    (r"\b(h\d?)\.calc\.(Get\w+Replicas\()", r"(recordedCalculator{\1.calc, t}).\2"),
    (r"\b(hc)\.(stabilizeRecommendation\()", r'(recordedController{&\1, "/" + tc.name}).\2'),
    (r"\b(hc\w*)\.(stabilizeRec\w+s|convertDesired\w+|storeScaleEvent)\(", r'(recordedController{&\1, ""}).\2('),
    (r"(?<![\w.])groupPods\(", "recordGroupPods("),
    (r"(?<![\w.])calculateRequests\(", "recordRequests("),
    (r"(?<![\w.])calculatePodRequestsFromContainers\(", "recordPodRequests("),
    (r"(?<![\w.])buildQuantity\(", "recordQuantity("),
    (r"(?<![\w.])convertDesiredReplicasWithRules\(", "recordLimits("),
    (r"(?<![\w.])calculateScaleUpLimitWithScalingRules\(", "recordUpLimit("),
    (r"(?<![\w.])calculateScaleDownLimitWithBehaviors\(", "recordDownLimit("),
    (r"(?<![\w.])getReplicasChangePerPeriod\(", "recordChange("),
    (r"(?<![\w.])GetResourceUtilizationRatio\(", "recordUtilization("),
    (r"(?<![\w.])GetMetricUsageRatio\(", "recordUsage("),
    (r"(?<![\w.])NewRESTMetricsClient\(", "newRecordedClient("),
)


def record(work: Path) -> tuple[list[str], list[Case]]:
    """The names of all of upstream's tests, and every case in the order of its name and number."""
    upstream = module_dir(f"k8s.io/kubernetes@{RELEASE}", work)
    source = upstream / "pkg/controller/podautoscaler"
    package, metrics = work / "podautoscaler", work / "metrics"
    for into, of, recorder in ((package, source, "recorder.go"), (metrics, source / "metrics", "recorder_metrics.go")):
        into.mkdir()
        for file in of.glob("*.go"):
            text = file.read_text()
            (into / file.name).write_text(_test(text) if file.name.endswith("_test.go") else _code(text))
        shutil.copy(HERE / "go" / recorder, into / "recorder_test.go")
    (work / "go.mod").write_text(go_mod((upstream / "go.mod").read_text(), RELEASE))
    shutil.copy(upstream / "go.sum", work / "go.sum")
    run_go("mod", "tidy", cwd=work)
    cases: list[Case] = []
    tests: list[str] = []
    for name in ("podautoscaler", "metrics"):
        program, found = work / f"{name}.test", work / f"{name}.jsonl"
        run_go("test", "-c", "-o", str(program), f"./{name}", cwd=work)
        listed = subprocess.run(
            [program, "-test.list", "^Test"], env={**os.environ, "PARITY_CASES": os.devnull}, **_TEXT
        )
        tests += listed.stdout.split()
        done = subprocess.run(
            [program],
            cwd=work / name,
            env={**os.environ, "PARITY_CASES": str(found)},
            **_TEXT,
        )
        if done.returncode:
            failed = re.findall(r"^\s*--- FAIL: .*", done.stdout, re.MULTILINE)
            raise SystemExit("upstream's tests fail in the copy:\n" + "\n".join(failed or [done.stdout[-4000:]]))
        cases += [json.loads(line) for line in found.read_text().splitlines()]
    return sorted(tests), sorted(_settled(cases), key=lambda case: (case["name"], case["number"]))


def _settled(cases: list[Case]) -> list[Case]:
    """The cases without what is chance in upstream's tests.

    Its controllers reconcile until their test ends, here the first time of each counts; which of a thousand equal HPAs
    comes first is chance too, and so is the order of a table that is a Go map: its rows are numbered by their content.
    """
    first: dict[int, Case] = {}
    for case in (case for case in cases if case["kind"] == "reconcile"):
        serial = case["in"].pop("controller")
        before = first.get(serial)
        if before is None or _hpa(case) < _hpa(before):
            first[serial] = case
    numbers: dict[str, int] = {}
    for case in sorted(first.values(), key=lambda case: json.dumps(case["in"], sort_keys=True)):
        case["number"] = numbers[case["name"]] = numbers.get(case["name"], 0) + 1
    return [case for case in cases if case["kind"] != "reconcile"] + list(first.values())


def _hpa(case: Case) -> str:
    return str(case["in"]["hpa"]["metadata"]["name"])


def _code(text: str) -> str:
    text = re.sub(r"^(?!.*start :=)(.*)time\.Now\(\)", r"\1harnessNow()", text, flags=re.MULTILINE)
    text = text.replace("metav1.Now()", "metav1.NewTime(harnessNow())")
    return text.replace(") reconcileAutoscaler(", ") reconcile(")


def _test(text: str) -> str:
    text = re.sub(
        r"^(?!//|.*timeoutTime).*", lambda line: line[0].replace("time.Now()", "testsNow"), text, flags=re.MULTILINE
    )
    text = re.sub(r"(func Test\w+\((\w+) \*testing\.T\) \{)", r"\1 begin(\2)", text)
    text = re.sub(r"(\.Run\([^\n]*func\((\w+) \*testing\.T\) \{)", r"\1 begin(\2)", text)
    for pattern, led in _LED:
        text = re.sub(pattern, led, text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=RECORDED, help="keep the cases in this file (xz)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyball-parity-") as name:
        tests, cases = record(Path(name))
    lines = [{"release": RELEASE, "tests": tests}, *cases]
    body = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    arguments.record.write_bytes(lzma.compress(body.encode(), preset=9))
    print(f"{len(cases)} cases of {len({case['name'] for case in cases})} tests in {arguments.record}")


if __name__ == "__main__":
    main()
