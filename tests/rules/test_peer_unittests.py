"""The unit tests of rules that other projects ship in their Go modules, through promtool and through ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flyball.cli import main

pytestmark = pytest.mark.peer

TOOL = Path(__file__).parents[2] / "tools" / "promtool.py"
FILES = {
    "github.com/prometheus/prometheus@v0.314.0": "cmd/promtool/testdata/*.yml",
    "k8s.io/kube-state-metrics/v2@v2.20.0": "tests/rules/*.yaml",
}


@pytest.mark.parametrize("flags", [(), ("--ignore-unknown-fields",)])
@pytest.mark.parametrize("module", FILES)
def test_ours_passes_what_promtool_passes(module: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    promtool = subprocess.run([sys.executable, TOOL], check=True, capture_output=True, text=True).stdout.strip()
    download = ["go", "mod", "download", "-json", module]
    found = subprocess.run(download, check=True, capture_output=True, text=True, cwd=tmp_path)
    files = [
        file for file in Path(json.loads(found.stdout)["Dir"]).glob(FILES[module]) if "\ntests:" in file.read_text()
    ]
    assert files
    for file in files:
        theirs = subprocess.run([promtool, "test", "rules", *flags, file], capture_output=True, text=True)
        ours = CliRunner().invoke(main, ["test", "rules", *flags, str(file)])
        assert ours.exit_code == theirs.returncode, (file.name, ours.output, theirs.stdout + theirs.stderr)
