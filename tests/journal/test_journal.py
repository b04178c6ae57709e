"""The journal: what it acknowledged is there after a kill, it stays bounded, and it says what is wrong."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from flyball.errors import StoreError
from flyball.journal import Entry, Journal, Together
from flyball.scaling import Decision, History, MetricEvaluation, Outcome, Recommendation, ScaleEvent

HISTORY = History((Recommendation(3, 10),), (ScaleEvent(1, 5),), (ScaleEvent(2, 6, True),))


def made(at_ms: int, current: int = 3, desired: int = 3, name: str = "web", value: int = 0) -> Decision:
    return Decision(
        "shop", name, at_ms, current, desired, 1, 10, rescale=current != desired,
        metrics=(MetricEvaluation("Pods", "rps", values={"p0": value}, usage=value, proposal=desired),),
    )  # fmt: skip


def test_newest_first_and_filtered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j" / "journal.db")
    journal.append_decision(made(1, 3, 4))
    journal.append_decision(made(2, 4, 5))
    journal.append_decision(made(3, 1, 2, name="api"))
    assert [record.decision.at_ms for record in journal.decisions()] == [3, 2, 1]
    assert [record.decision.at_ms for record in journal.decisions("shop", "web")] == [2, 1]
    assert [record.decision.at_ms for record in journal.decisions(name="web", limit=1)] == [2]
    assert journal.decisions("other") == []


def test_alike_decisions_are_counted_with_the_newest_figures(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for at_ms in range(1, 6):
        journal.append_decision(made(at_ms, value=at_ms))
    journal.append_decision(made(6, name="api"))
    (record,) = journal.decisions(name="web")
    assert (record.count, record.first_ms, record.last_ms) == (5, 1, 5)
    assert record.decision.metrics[0].values == {"p0": 5}
    journal.append_decision(made(7, 3, 4))
    journal.append_decision(made(8, 3, 4))  # every write stands alone
    assert [record.count for record in journal.decisions(name="web")] == [1, 1, 5]
    assert journal.statistics()["coalesced"] == 4
    # none counts those of more than five minutes, or of a clock that went back
    for at_ms in (300_005, 300_006, 300_007, 300_005):
        journal.append_decision(made(at_ms, name="api"))
    counted = [(record.count, record.first_ms) for record in journal.decisions(name="api")]
    assert counted == [(1, 300_005), (2, 300_006), (2, 6)]


def test_intents_and_outcomes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    decision = made(1, 3, 5)
    record = journal.append_decision(decision, History(), "u1")
    intent = journal.intent(decision, record, "u1", 2)
    (open_one,) = journal.open_intents()
    assert (open_one.id, open_one.uid, open_one.decision) == (intent, "u1", decision)
    assert journal.decisions()[0].outcome is None
    journal.outcome(intent, Outcome(), 3, HISTORY)
    assert journal.open_intents() == []
    assert journal.decisions()[0].outcome == ""
    assert journal.load_history("shop", "web", "u1") == HISTORY
    again = journal.intent(decision, record, "u1", 4)
    journal.outcome(again, Outcome("conflict"), 5)
    assert journal.decisions()[0].outcome == "conflict"


def test_history_belongs_to_one_object(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.save_history("shop", "web", "u1", HISTORY, 1)
    assert journal.load_history("shop", "web", "u1") == HISTORY
    assert journal.load_history("shop", "web") == HISTORY
    assert journal.load_history("shop", "web", "u2") is None
    assert journal.load_history("shop", "api") is None
    journal.forget("shop", "web")
    assert journal.load_history("shop", "web", "u1") is None


def test_survives_a_reopen(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    record = journal.append_decision(made(1, 3, 5), HISTORY, "u1")
    journal.intent(made(1, 3, 5), record, "u1", 2)
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert again.load_history("shop", "web", "u1") == HISTORY
    assert len(again.open_intents()) == len(again.decisions()) == 1


_WRITER = """
import sys
from flyball.journal import Entry, Journal, Together
from flyball.scaling import Decision, History, Recommendation
journal = Journal(sys.argv[1])
at = 0
while True:
    at += 1
    decision = Decision("shop", "web", at, at, at + 1, 1, 10, rescale=True)
    record = journal.append_decision(decision, History((Recommendation(at, at),)), "u")
    journal.intent(decision, record, "u", at)
    print(at, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for _ in range(50):
            process.stdout.readline()
    finally:
        os.kill(process.pid, signal.SIGKILL)
    acknowledged = 50 + len(process.stdout.read().split("\n")) - 1
    process.stdout.close()
    process.wait()
    journal = Journal(path)
    assert len(journal.open_intents()) >= acknowledged
    newest = journal.decisions(limit=1)[0].decision.at_ms
    assert newest >= acknowledged
    history = journal.load_history("shop", "web", "u")
    assert history is not None and history.recommendations[0].at_ms == newest


def test_decisions_of_one_turn_share_a_commit_and_are_there_when_answered(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal.db"), Journal(tmp_path / "journal.db")
    commits: list[str] = []
    journal._db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)

    async def evaluation(together: Together, at: int) -> int:
        await asyncio.sleep(0)
        record = await together.append(Entry(made(at, 1, 2, name=f"n{at}"), HISTORY, "u"))
        assert other.load_history("shop", f"n{at}", "u") == HISTORY
        return record

    async def work() -> None:
        together = Together(journal)
        records = await asyncio.gather(*(evaluation(together, at) for at in range(1, 21)))
        assert len(commits) == 1 and len(set(records)) == 20
        assert [record.decision.at_ms for record in other.decisions()] == list(range(20, 0, -1))
        # what one of them trips over is its own; who gave up meanwhile harms nobody
        bad = Entry(msgspec.structs.replace(made(30), at_ms=1 << 70))
        wanted = [bad, Entry(made(31, 1, 2)), Entry(made(32, 1, 2, name="gone"))]
        tasks = [asyncio.create_task(together.append(entry)) for entry in wanted]
        await asyncio.sleep(0)
        tasks[2].cancel()
        failed, kept, _ = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(failed, OverflowError) and kept == other.decisions(name="web")[0].id
        journal.close()
        with pytest.raises(StoreError):
            await together.append(Entry(made(33)))

    asyncio.run(work())


def test_torn_tail_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    for at_ms in range(1, 20):
        journal.append_decision(made(at_ms, at_ms, at_ms + 1))
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    log = (tmp_path / "journal.db-wal").read_bytes()
    (tmp_path / "copy.db-wal").write_bytes(log[:-100])
    torn = Journal(copy)
    assert [record.decision.at_ms for record in torn.decisions()] == list(range(18, 0, -1))
    torn.append_decision(made(99, 1, 2))


def test_retention_per_hpa_and_in_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", keep_per_hpa=5, keep=40)
    journal.append_decision(made(1, 1, 2, name="quiet"))
    for at_ms in range(2, 60):
        journal.append_decision(made(at_ms, at_ms, at_ms + 1))
    assert [record.decision.at_ms for record in journal.decisions(name="web")] == [59, 58, 57, 56, 55]
    assert len(journal.decisions(name="quiet")) == 1  # a busy one pushes out only its own
    for at_ms in range(200):
        journal.append_decision(made(at_ms, 1, 2, name=f"n{at_ms}"))
    assert len(journal.decisions(limit=1000)) <= 40 + 64


def test_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"file/journal\.db cannot be used: .* make .*file writable"):
        Journal(tmp_path / "file" / "journal.db")


def test_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="move a damaged file away"):
        Journal(path)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(StoreError, match="has format 9"):
        Journal(newer)


def test_a_history_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.save_history("shop", "web", "u", HISTORY, 1)
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("UPDATE histories SET body = 'nonsense'")
    assert journal.load_history("shop", "web", "u") is None


def test_records_are_plain_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.append_decision(made(1, 3, 4))
    assert msgspec.json.decode(msgspec.json.encode(journal.decisions()))[0]["decision"]["desired"] == 4
