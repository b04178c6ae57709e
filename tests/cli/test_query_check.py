"""``flyball query`` against a served API; ``flyball check`` on files."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flyball.cli import main
from flyball.cli.plot import plot
from flyball.cli.query import series_name
from flyball.http.server import serve
from flyball.model.labels import labels_of
from flyball.store import Head
from flyball.web.prometheus_api import create_app

T0_S = 1_700_000_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a thread of its own, with a metric that grows by 1 a second."""
    head = Head()
    for pod in ("a", "b"):
        for at in range(120):
            head.append(labels_of({"__name__": "m", "pod": pod}), (T0_S + at) * 1000, float(at))
    found: list[str] = []
    up, down = threading.Event(), threading.Event()

    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            server = await serve(create_app(head, executor=executor), port=0)
            found.append(f"http://127.0.0.1:{server.port}")
            up.set()
            await asyncio.to_thread(down.wait)
            await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    up.wait(10)
    yield found[0]
    down.set()
    thread.join(10)


def flyball(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=text)


def test_an_instant_query(url: str) -> None:
    at = str(T0_S + 60)
    result = flyball("query", "m", "--url", url, "--time", at)
    assert result.output.splitlines() == [f'm{{pod="{pod}"}}\t60\t{at}' for pod in "ab"]
    result = flyball("query", "sum(m)", "--url", url, "--time", at, "-o", "json")
    assert json.loads(result.stdout)["result"] == [{"metric": {}, "value": [T0_S + 60, "120"]}]
    assert flyball("query", "1+1", "--url", url, "--time", at).output == f"scalar\t2\t{at}\n"


def test_a_range_as_table_and_plot(url: str) -> None:
    window = ("--start", str(T0_S), "--end", str(T0_S + 100), "--step", "20s")
    result = flyball("query", "sum(m)", "--url", url, *window)
    assert [line.split("\t")[1] for line in result.output.splitlines()] == ["0", "40", "80", "120", "160", "200"]
    result = flyball("query", "m", "--url", url, *window, "-o", "plot")
    assert result.exit_code == 0 and result.output.count("100 |") == 2 and "2023-11-14T22:13:20Z" in result.output


def test_what_goes_wrong_is_said(url: str) -> None:
    for arguments, part in (
        (("sum(", "--url", url), "bad_data"),
        (("m", "--url", "http://127.0.0.1:1"), "is a server running there"),
        (("m", "--url", url, "-o", "plot"), "--last"),
        (("m", "--url", url, "--start", "yesterday"), "RFC 3339"),
    ):
        result = flyball("query", *arguments)
        assert result.exit_code != 0 and part in result.output, result.output


def test_a_plot_is_a_line_through_its_points() -> None:
    rows = plot([[(0, 0.0), (1000, 1.0)]], 10, 3)
    assert [row[0] for row in rows[:3]] == ["1", " ", "0"]
    drawn = [[ord(char) - 0x2800 for char in row.split("|")[1]] for row in rows[:3]]
    assert drawn[2][0] and drawn[0][-1] and not drawn[0][0] and not drawn[2][-1]
    assert plot([[(0, float("nan"))]], 10, 3) == ["no points to plot"]
    assert len(plot([[(0, 5.0)]], 10, 3)) == 4


def test_names_of_series() -> None:
    assert series_name({"__name__": "a", "b": 'c"d'}) == 'a{b="c\\"d"}'
    assert series_name({}) == "{}" and series_name({"__name__": "up"}) == "up"


def test_check_config(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text("rule_files: [r.yml]\nscrape_configs: [{job_name: a}]\n")
    (tmp_path / "r.yml").write_text("groups: [{name: g, rules: [{record: a, expr: up}]}]\n")
    bad.write_text("scrape_configs: [{job_name: a, scheme: x}]\nfoo: 1\n")
    result = flyball("check", "config", str(good))
    assert result.exit_code == 0 and "1 jobs, 1 rule groups, 1 rules" in result.output
    result = flyball("check", "config", str(good), str(bad))
    assert result.exit_code == 1 and '"foo"' in result.output and "scheme" in result.output


@pytest.mark.parametrize(
    ("page", "code", "part"),
    [
        ("# HELP a_total x\n# TYPE a_total counter\na_total 1\n", 0, "1 samples of 1 families"),
        ("# TYPE requests counter\nrequests 1\n", 3, 'counter metrics should have "_total" suffix'),
        ("a 1\n", 3, "no help text"),
        ("# HELP t_ms x\n# TYPE t_ms gauge\nt_ms 1\n", 3, "abbreviated"),
        ("# HELP t_minutes x\n# TYPE t_minutes gauge\nt_minutes 1\n", 3, 'use base unit "seconds"'),
        ("# HELP aB x\n# TYPE aB gauge\naB 1\n", 3, "snake_case"),
        ('# HELP g x\n# TYPE g gauge\ng{le="1"} 1\n', 3, '"le" label'),
        ("a{ 1\n", 1, "line 1"),
        ('a{b="1",b="2"} 1\n', 1, "given twice"),
        ("# TYPE a gauge\na 1\n# EOF\n", 0, "1 samples"),
        ("# TYPE a gauge\na -x\n# EOF\n", 1, "line 2"),
    ],
)
def test_check_metrics(page: str, code: int, part: str) -> None:
    result = flyball("check", "metrics", text=page)
    assert (result.exit_code, part in result.output) == (code, True), result.output
