"""Records what prometheus-operator's own tests generate, with the objects that they generate it from.

Needs Go and its module proxy; takes a few minutes.
Usage: .venv/bin/python tools/operator_goldens/record.py   (writes tests/operator/*goldens.json.xz)
"""

import json
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

MODULE = "github.com/prometheus-operator/prometheus-operator"
VERSION = "v0.93.1"
HERE = Path(__file__).parent
TESTS = HERE.parents[1] / "tests/operator"
SIGNATURE = "\truleConfigMapNames []string,\n) ([]byte, error) {\n"
RECORDING = """\truleConfigMapNames []string,
) (output []byte, failure error) {
\tinputs := dumpInputs(map[string]any{
\t\t"prometheus": cg.prom, "endpointSlice": cg.endpointSliceSupported, "inlineTLS": cg.inlineTLSConfig,
\t\t"objects": store.Objects(),
\t\t"serviceMonitors": sMons, "podMonitors": pMons, "probes": probes, "scrapeConfigs": sCons,
\t\t"additionalScrapeConfigs":       string(additionalScrapeConfigs),
\t\t"additionalAlertRelabelConfigs": string(additionalAlertRelabelConfigs),
\t\t"additionalAlertManagerConfigs": string(additionalAlertManagerConfigs),
\t\t"ruleConfigMapNames":            ruleConfigMapNames})
\tdefer func() { dumpResult(inputs, output, failure) }()
"""
#: By package: what is recorded in which of its files, and where the cases go.
CHANGES = {
    "prometheus": ("goldens.json.xz", {"promcfg.go": {SIGNATURE: RECORDING}}),
    "alertmanager": (
        "alertmanager_goldens.json.xz",
        {
            "amcfg_test.go": {
                "cb.initializeFromAlertmanagerConfig(context.TODO(), ": "recordInitialize(cb, tt.matcherStrategy, ",
                "cb.AddAlertmanagerConfigs(context.Background(), ": "recordAdd(cb, tc.matcherStrategy, ",
                "tc.in.sanitize(": "recordSanitize(tc.in, ",
                "cfg.sanitize(": "recordHTTP(tc.cfg, cfg, ",
                "alertmanagerConfigFromBytes(golden": "recordLoad(golden",
            },
            "operator_test.go": {
                "checkAlertmanagerConfigResource(context.Background(), ": "recordCheck(",
            },
        },
    ),
}


def main() -> None:
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"], check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source"
        shutil.copytree(json.loads(found.stdout)["Dir"], source)
        subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
        shutil.copy(HERE / "objects.go", source / "pkg/assets/objects.go")
        for part in ("apis/monitoring", "client"):  # modules of their own, which the main module's zip leaves out
            name = f"{MODULE}/pkg/{part}"
            edit = ["go", "mod", "edit", f"-dropreplace={name}", f"-require={name}@{VERSION}"]
            subprocess.run(edit, check=True, cwd=source)
        for package, (name, changes) in CHANGES.items():
            recorded = record(source, package, changes)
            out = TESTS / name
            out.write_bytes(lzma.compress(json.dumps(recorded, sort_keys=True).encode(), preset=9))
            print(f"{package}: {len(recorded)} cases in {out.stat().st_size} bytes")


def record(source: Path, package: str, changes: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """The cases of one package, by test."""
    folder, cases = source / "pkg" / package, source.parent / package
    cases.mkdir()
    dump = (HERE / "dump.go").read_text()
    (folder / "dump.go").write_text(dump.replace("package prometheus", f"package {package}"))
    if (HERE / f"{package}.go").exists():
        shutil.copy(HERE / f"{package}.go", folder / "record_test.go")
    for name, replacements in changes.items():
        text = (folder / name).read_text()
        for before, after in replacements.items():
            assert before in text, f"{folder / name} says this otherwise now: {before}"
            text = text.replace(before, after)
        (folder / name).write_text(text)
    settings = {"DUMP_DIR": str(cases), "GOFLAGS": "-mod=mod", "GONOSUMDB": "*", "GOSUMDB": "off"}
    subprocess.run(
        ["nice", "go", "test", "-short", f"./pkg/{package}"], check=True, cwd=source, env={**os.environ, **settings}
    )
    recorded: list[dict[str, Any]] = [json.loads(path.read_text()) for path in cases.iterdir()]
    recorded.sort(key=lambda case: json.dumps(case, sort_keys=True))
    recorded.sort(key=lambda case: case["test"])
    return recorded


if __name__ == "__main__":
    main()
