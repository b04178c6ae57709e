"""How often Python looks for cycles where there are many series."""

import gc

from flyball.memory import look_for_cycles_rarely
from flyball.model.labels import labels_of
from flyball.store import Head


def test_new_series_do_not_make_python_look_at_all_that_there_are() -> None:
    before = gc.get_threshold()
    looks: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looks.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        look_for_cycles_rarely()
        writer = Head().writer("job", 10_000, "target")
        writer.refs([labels_of({"__name__": f"m{number % 10}", "n": str(number)}) for number in range(50_000)])
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
    assert looks  # it still does, at what is new
    assert 2 not in looks
