"""Series are listed early for a metric that nobody knows, ever more rarely."""

from flyball.adapter.unknown import NAMES_MAX, UnknownMetrics


def test_each_name_is_a_reason_ever_more_rarely_and_all_together_not_more_often_than_the_least_time() -> None:
    unknown = UnknownMetrics(2.0, 60.0)
    reasons = [at for at in range(1000, 1400) if unknown.is_reason("a", at)]
    assert reasons == [1000, 1002, 1006, 1014, 1030, 1062, 1122, 1182, 1242, 1302, 1362]
    assert unknown.is_reason("b", 1400) and not unknown.is_reason("c", 1401) and unknown.is_reason("c", 1402)
    unknown.known({"b", "other"})
    assert unknown.is_reason("b", 1404) and not unknown.is_reason("c", 1405)
    unknown.forget()
    assert unknown.is_reason("c", 1406)


def test_inventing_names_gives_no_more_listings() -> None:
    unknown = UnknownMetrics(2.0, 600.0)
    names = [f"n{number}" for number in range(NAMES_MAX)]
    assert all(unknown.is_reason(name, 2.0 * number) for number, name in enumerate(names))
    began_s = 2.0 * NAMES_MAX
    reasons = [number for number in range(1000) if unknown.is_reason(f"more-{number}", began_s + number)]
    assert reasons == [0, 2, 6, 14, 30, 62, 126, 254, 510]
