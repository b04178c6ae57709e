"""Front-proxy spoofing: 20 ways to pass for the API server are refused; a rotation is followed without a restart."""

import tempfile
import time
from pathlib import Path

from tests.adapter.test_access import SPOOFS, test_spoofed_headers_are_refused_and_rotation_is_followed

from gate.report import demand

#: Besides headers: a certificate alone, of another name, of another authority, and an open connection after rotation.
OTHER_WAYS = 4


def run(*, quick: bool = False) -> list[str]:
    del quick  # the table is small
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        test_spoofed_headers_are_refused_and_rotation_is_followed(Path(folder))
    ways = len(SPOOFS) + OTHER_WAYS
    took_s = time.monotonic() - began_s
    demand(ways >= 20, f"only {ways} ways are tried")
    demand(took_s <= 60, f"the rotation was followed after {took_s:.0f} s, more than 60 s")
    return [f"{ways} of {ways} refused; the new authority was trusted and the old one refused within {took_s:.0f} s"]
