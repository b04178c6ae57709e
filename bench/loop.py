"""From a step in the load to the scale write: the whole chain, as `flyball demo` measures it."""

import json
import subprocess
import sys

from bench.report import report

RUNS = 3


def main() -> None:
    reactions = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "flyball", "demo", "--json", "--seconds", "40"]
        demo = subprocess.run(command, capture_output=True, text=True)
        if demo.returncode:
            raise SystemExit(demo.stderr)
        summary = json.loads(demo.stdout.splitlines()[-1])
        reactions.append(summary["first_scale_up_s"])
    report("loop", "load step to scale write", sorted(reactions)[RUNS // 2], "s", aim=20)
    report("loop", "worst of the runs", max(reactions), "s", aim=20)


if __name__ == "__main__":
    main()
