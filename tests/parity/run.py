"""Random cases through upstream and through us: ``python -m tests.parity.run [--cases N] [--profile P] [--seed S]``.

Prints each mismatch with its case, then one line a profile; exits 1 when there was any mismatch.
"""

import argparse
import json
import lzma
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.parity.build import RELEASES, build
from tests.parity.cases import random_case
from tests.parity.ours import differences, judge

CHUNK = 500
_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


class Upstream:
    """Upstream's controller as a child process that answers in the order of the questions."""

    def __init__(self, profile: str) -> None:
        self._process = subprocess.Popen([build(profile)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def verdicts(self, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One verdict a case."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None

        def feed() -> None:
            for case in cases:
                stdin.write(_encode(case) + b"\n")
            stdin.flush()

        feeder = threading.Thread(target=feed)
        feeder.start()
        answers = [_decode(stdout.readline()) for _ in cases]
        feeder.join()
        return answers

    def close(self) -> None:
        """End the child."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def compare(profile: str, count: int, seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[str]]]:
    """(case, upstream's verdict, differences) of every random case."""
    rng = random.Random(f"{seed} {profile}")
    upstream = Upstream(profile)
    try:
        for start in range(0, count, CHUNK):
            cases = [random_case(rng, start + at) for at in range(min(CHUNK, count - start))]
            for case, theirs in zip(cases, upstream.verdicts(cases), strict=True):
                yield case, theirs, differences(theirs, judge(case, profile))
    finally:
        upstream.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="per profile")
    parser.add_argument("--profile", choices=list(RELEASES), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=3, help="mismatches to print")
    parser.add_argument("--record", type=Path, help="keep cases and verdicts in this file (xz)")
    arguments = parser.parse_args()
    wrong = 0
    kept: list[bytes] = []
    for profile in arguments.profile or list(RELEASES):
        mismatches = scaled = 0
        for case, theirs, found in compare(profile, arguments.cases, arguments.seed):
            scaled += bool(theirs["writes"])
            if arguments.record:
                kept.append(_encode([profile, case, theirs]))
            if found:
                mismatches += 1
                if mismatches <= arguments.show:
                    print(json.dumps(case))
                    print(*found, sep="\n  ")
        wrong += mismatches
        print(f"{profile}: {arguments.cases} cases, {scaled} scaled, {mismatches} mismatches", flush=True)
    if arguments.record:
        arguments.record.write_bytes(lzma.compress(b"\n".join(kept) + b"\n", preset=9))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
