"""Lines in the terminal: two by four dots a character."""

import math
from collections.abc import Sequence

from flyball.clock import rfc3339

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a braille character
Points = Sequence[tuple[int, float]]


def plot(
    lines: Sequence[Points], width: int, height: int, *, low: float | None = None, high: float | None = None
) -> list[str]:
    """Rows of text: the values of every line over time, with the bounds at the left and the times below.

    Args:
        lines: (time in ms, value), ascending; values that are not finite leave a gap.
        width, height: of the drawing, in characters.
        low, high: of the scale, where it is not that of the values.
    """
    finite = [[(at, value) for at, value in line if math.isfinite(value)] for line in lines]
    every = [point for line in finite for point in line]
    if not every:
        return ["no points to plot"]
    start, end = min(at for at, _ in every), max(at for at, _ in every)
    low = min(value for _, value in every) if low is None else low
    high = max(value for _, value in every) if high is None else high
    cells = [[0] * width for _ in range(height)]

    def place(at: int, value: float) -> tuple[int, int]:
        x = (at - start) / (end - start) if end > start else 0.5
        y = (value - low) / (high - low) if high > low else 0.5
        return round(x * (2 * width - 1)), round((1 - y) * (4 * height - 1))

    for line in finite:
        spots = [place(at, value) for at, value in line]
        for (x0, y0), (x1, y1) in zip(spots, spots[1:] or spots, strict=False):
            count = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(count + 1):
                x, y = x0 + (x1 - x0) * step // count, y0 + (y1 - y0) * step // count
                cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    names = [f"{value:g}" for value in (high, low)]
    margin = max(map(len, names))
    rows = []
    for number, row in enumerate(cells):
        name = names[0] if number == 0 else names[1] if number == height - 1 else ""
        rows.append(f"{name:>{margin}} |" + "".join(chr(0x2800 + cell) for cell in row))
    first, last = rfc3339(start), rfc3339(end)
    rows.append(" " * (margin + 2) + first + last.rjust(max(len(last) + 1, width - len(first))))
    return rows
