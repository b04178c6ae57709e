"""Which events are one, and which are too many."""

from flyball.kube.events import BURST_MAX, REFILL_MS, REMEMBERED_MAX, SIMILAR_MAX, SIMILAR_WINDOW_MS, Correlator

POD = ("v1", "Pod", "default", "web", "uid")


def test_a_repeat_is_the_same_event_with_a_higher_count():
    correlator = Correlator()
    first, _, _ = correlator.observe(POD, "Normal", "Pulled", "pulled", 1_000)
    again, message, room = correlator.observe(POD, "Normal", "Pulled", "pulled", 2_000)
    assert again is first and (again.count, again.first_ms, message, room) == (2, 1_000, "pulled", True)


def test_from_the_tenth_on_similar_events_are_combined_into_one():
    correlator = Correlator()
    told = [correlator.observe(POD, "Normal", "Pulled", f"image {n}", n) for n in range(SIMILAR_MAX + 2)]
    assert all(one.count == 1 for one, _, _ in told[: SIMILAR_MAX - 1])
    assert told[-1][0] is told[SIMILAR_MAX - 1][0] and told[-1][0].count == 3
    assert told[-1][1] == f"(combined from similar events): image {SIMILAR_MAX + 1}"


def test_events_about_others_or_for_other_reasons_are_not_similar():
    correlator = Correlator()
    for n in range(SIMILAR_MAX - 1):
        correlator.observe(POD, "Normal", "Pulled", f"image {n}", n)
    other = (*POD[:-1], "another uid")
    assert correlator.observe(other, "Normal", "Pulled", "image", 9)[1] == "image"
    assert correlator.observe(POD, "Normal", "Killing", "image", 9)[1] == "image"


def test_after_a_pause_a_similar_event_is_news():
    correlator = Correlator()
    for n in range(SIMILAR_MAX):
        correlator.observe(POD, "Normal", "Pulled", f"image {n}", n)
    later = SIMILAR_WINDOW_MS + SIMILAR_MAX
    assert correlator.observe(POD, "Normal", "Pulled", "image", later)[1] == "image"


def test_a_burst_is_told_and_then_one_in_five_minutes_but_all_are_counted():
    correlator = Correlator()
    rooms = [correlator.observe(POD, "Warning", "BackOff", "again", 1_000)[2] for _ in range(BURST_MAX + 5)]
    assert rooms == [True] * BURST_MAX + [False] * 5
    assert correlator.observe(POD, "Normal", "Pulled", "pulled", 1_000)[2]  # the other type has its own allowance
    told, _, room = correlator.observe(POD, "Warning", "BackOff", "again", 1_000 + REFILL_MS)
    assert room and told.count == BURST_MAX + 6
    assert not correlator.observe(POD, "Warning", "BackOff", "again", 1_001 + REFILL_MS)[2]


def test_what_is_remembered_is_bounded():
    correlator = Correlator()
    for n in range(REMEMBERED_MAX + 10):
        correlator.observe((*POD[:-1], str(n)), "Normal", "Pulled", "pulled", n)
    assert len(correlator) == REMEMBERED_MAX
