"""Records what prometheus-operator's own tests generate, with the objects that they generate it from.

Needs Go and its module proxy; takes a few minutes.
Usage: .venv/bin/python tools/operator_goldens/record.py   (writes tests/operator/goldens.json.xz)
"""

import json
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

MODULE = "github.com/prometheus-operator/prometheus-operator"
VERSION = "v0.93.1"
HERE = Path(__file__).parent
OUT = HERE.parents[1] / "tests/operator/goldens.json.xz"
SIGNATURE = "\truleConfigMapNames []string,\n) ([]byte, error) {\n"
RECORDING = """\truleConfigMapNames []string,
) (output []byte, failure error) {
\tinputs := cg.dumpInputs(map[string]any{
\t\t"serviceMonitors": sMons, "podMonitors": pMons, "probes": probes, "scrapeConfigs": sCons,
\t\t"additionalScrapeConfigs":       string(additionalScrapeConfigs),
\t\t"additionalAlertRelabelConfigs": string(additionalAlertRelabelConfigs),
\t\t"additionalAlertManagerConfigs": string(additionalAlertManagerConfigs),
\t\t"ruleConfigMapNames":            ruleConfigMapNames}, store)
\tdefer func() { dumpResult(inputs, output, failure) }()
"""


def main() -> None:
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"], check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory() as directory:
        source, cases = Path(directory) / "source", Path(directory) / "cases"
        shutil.copytree(json.loads(found.stdout)["Dir"], source)
        subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
        cases.mkdir()
        shutil.copy(HERE / "dump.go", source / "pkg/prometheus/dump.go")
        shutil.copy(HERE / "objects.go", source / "pkg/assets/objects.go")
        generator = source / "pkg/prometheus/promcfg.go"
        text = generator.read_text()
        assert text.count(SIGNATURE) == 1, "GenerateServerConfiguration has another signature now"
        generator.write_text(text.replace(SIGNATURE, RECORDING))
        for part in ("apis/monitoring", "client"):  # modules of their own, which the main module's zip leaves out
            name = f"{MODULE}/pkg/{part}"
            edit = ["go", "mod", "edit", f"-dropreplace={name}", f"-require={name}@{VERSION}"]
            subprocess.run(edit, check=True, cwd=source)
        settings = {"DUMP_DIR": str(cases), "GOFLAGS": "-mod=mod", "GONOSUMDB": "*", "GOSUMDB": "off"}
        subprocess.run(
            ["nice", "go", "test", "-short", "./pkg/prometheus"], check=True, cwd=source, env={**os.environ, **settings}
        )
        recorded = [json.loads(path.read_text()) for path in cases.iterdir()]
    recorded.sort(key=lambda case: json.dumps(case, sort_keys=True))
    recorded.sort(key=lambda case: case["test"])
    OUT.write_bytes(lzma.compress(json.dumps(recorded, sort_keys=True).encode(), preset=9))
    print(f"{len(recorded)} cases in {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
