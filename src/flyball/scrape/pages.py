"""Pages that targets of a job have in common: the pods of one Deployment expose the same lines with other values.

What is known of a page is kept once for all of them: a target whose page is known already is not parsed, and its texts
take no memory of their own.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flyball.exposition import Exposition, Format, Samples, parse_values

#: Of one job. A page that is not among them is parsed, nothing worse.
PAGES_MAX = 8
_NOTHING = Samples(np.empty(0), None)


class KnownPages:
    """The pages of one job that were met last."""

    def __init__(self) -> None:
        self._pages: OrderedDict[int, tuple[Format, Exposition]] = OrderedDict()

    def find(self, body: bytes, format_: Format) -> tuple[Exposition, Samples] | None:
        """The page whose lines are those of the body, and the body's samples."""
        lines = body.count(b"\n") + 1
        for key, page in self._candidates(format_, lines):
            samples = parse_values(page.layout, body) if page.layout is not None else None
            if samples is not None:
                self._pages.move_to_end(key)
                return page, samples
        return None

    def _candidates(self, format_: Format, lines: int) -> Iterator[tuple[int, Exposition]]:
        for key, (known_format, page) in list(reversed(self._pages.items())):
            if known_format is format_ and page.layout is not None and len(page.layout.prefixes) == lines:
                yield key, page

    def add(self, exposition: Exposition, format_: Format) -> Exposition:
        """Keeps a page that was parsed; returns it without its samples."""
        page = replace(exposition, samples=_NOTHING)
        if page.layout is not None:
            self._pages[id(page)] = (format_, page)
            if len(self._pages) > PAGES_MAX:
                self._pages.popitem(last=False)
        return page
