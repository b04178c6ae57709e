"""What the real prometheus-adapter answers in the scenario; ``python -m tests.adapter.record`` writes it down."""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .real import real_adapter
from .scenario import CONFIG, REQUESTS, comparable, objects, series
from .world import world

FILE = Path(__file__).parent / "golden.jsonl"
ROOT = Path(__file__).parents[2]


def binary() -> Path:
    """The real prometheus-adapter, built from its module when it is not there yet."""
    tool = [sys.executable, str(ROOT / "tools" / "prometheus_adapter.py")]
    return Path(subprocess.run(tool, check=True, capture_output=True, text=True).stdout.strip())


async def recorded(adapter: Path) -> list[str]:
    """One JSON line for each request."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with (
            world(directory, CONFIG, objects=objects(), series=series) as found,
            real_adapter(
                adapter, directory / "real", directory / "config.yaml", found.prometheus.url, directory / "kubeconfig"
            ) as real,
        ):
            for path, accept in REQUESTS:
                status, body = await real.ask(path, {"Accept": accept} if accept else None)
                line = {"path": path, "status": status, "body": comparable(body, path)}
                lines.append(json.dumps(line | ({"accept": accept} if accept else {})))
    return lines


if __name__ == "__main__":
    FILE.write_text("\n".join(asyncio.run(recorded(binary()))) + "\n")
