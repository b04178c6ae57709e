"""One line a case, as JSON with ``--json``, else for people."""

import json
import sys


def report(
    bench: str,
    case: str,
    ours: float,
    unit: str,
    *,
    aim: float | None = None,
    theirs: float | None = None,
    peer: str = "none",
    peer_version: str = "",
) -> None:
    """``ratio`` is above 1 where we are better; null without a peer, or against nothing at all."""
    lower_is_better = unit in ("s", "ms", "MB", "%", "bytes", "changes") or unit.endswith("/round")
    better, worse = (theirs, ours) if lower_is_better else (ours, theirs)
    ratio = better / worse if better is not None and worse else None
    line = {
        "bench": bench,
        "case": case,
        "peer": peer,
        "peer_version": peer_version,
        "ours": round(ours, 4),
        "theirs": theirs,
        "unit": unit,
        "ratio": ratio,
    }
    if "--json" in sys.argv:
        print(json.dumps(line))
    else:
        note = (
            ""
            if aim is None
            else f"  (aim {aim:g} {unit}: {'met' if (ours <= aim) == lower_is_better or ours == aim else 'missed'})"
        )
        beside = "" if theirs is None else f"  {peer} {theirs:.3f}" + (f", ratio {ratio:.2f}" if ratio else "")
        print(f"{bench:<10} {case:<24} {ours:10.3f} {unit}{beside}{note}")
