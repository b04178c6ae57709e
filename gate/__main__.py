"""``python -m gate N [N ...]``: runs the gates, prints what each counted, exits 1 when one fails.

Gate N is ``gate.gNN.run(options)``; it returns lines to print and raises ``GateError`` when something is not as it must
be. ``--quick`` runs a tenth of the counts, to try a change.
"""

import argparse
import importlib
import sys
import time

from gate.report import GateError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gate", description=__doc__)
    parser.add_argument("numbers", nargs="+", type=int, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a tenth of the counts")
    options = parser.parse_args()
    failed = 0
    for number in options.numbers:
        started_s = time.monotonic()
        try:
            gate = importlib.import_module(f"gate.g{number:02d}")
        except ModuleNotFoundError:
            print(f"gate {number}: there is none yet")
            failed += 1
            continue
        title = (gate.__doc__ or "").strip().splitlines()[0]
        try:
            lines, verdict = gate.run(quick=options.quick), "passed"
        except GateError as exc:
            lines, verdict, failed = [str(exc)], "FAILED", failed + 1
        print(f"gate {number}: {title}")
        for line in lines:
            print(f"  {line}")
        print(f"gate {number}: {verdict} in {time.monotonic() - started_s:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
