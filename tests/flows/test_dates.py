"""A wheel that turns every night: each date learns from what arrived since the last, from the champion on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rlrf.config import load_config
from storage import intervals, ledger, reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import Said

FIRST = datetime(2026, 11, 20, 2, tzinfo=UTC)
EVERY = 8
"""New prompts between two dates."""


def date(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def log(path: Path, nights: Iterable[int]) -> Path:
    """A log of chat requests: what the scripted engine knows, some of it before each of these dates."""
    lines = []
    for number in nights:
        for place, one in enumerate(builders.problems("prompts")[EVERY * number : EVERY * (number + 1)]):
            when = FIRST + timedelta(days=number - 1, minutes=place + 1)
            asked = {"messages": [{"role": "user", "content": one.question}]}
            lines.append({"request": asked, "gold": one.answer, "time": when.timestamp()})
    return builders.write_lines(path, lines)


def nightly(folder: Path, model: Path, nights: Iterable[int] = range(3)) -> Path:
    """The configuration, over a log that goes on after the last date that is run here."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"prompt": "request.messages", "reference": "gold", "time": "time"}
    source = {"name": "prod", "path": str(log(folder / "log.jsonl", nights)), "log": True, "columns": columns}
    changes = {"policy": {"model": str(model), "start": "champion"}, "prompts__sources": [source]}
    changes |= {"prompts__window": "since_last", "prompts__per_iteration": None, "pairs__min_pairs": 1}
    return builders.write_config(folder, model, "improving", **changes)


@dataclass(frozen=True)
class Nights:
    """What was said on each, and the store after them."""

    path: Path
    store: Store
    said: dict[str, Said]
    planned: Said

    def asked(self, number: int) -> set[str]:
        """The questions of the iteration of a date."""
        sql = """SELECT q.messages->0->>'content' AS text FROM iterations i JOIN members m ON m.set_key = i.prompts_key
                 JOIN prompts q ON q.prompt_id = m.member_id WHERE i.run_id = ? AND i.arm = 'policy'"""
        runs = [row["run_id"] for row in self.store.query("SELECT run_id FROM runs ORDER BY started_at")]
        return {row["text"] for row in self.store.query(sql, [runs[number]])}


@pytest.fixture(scope="module")
def nights(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Two dates, the second one again, and one on which nothing new had come."""
    path = nightly(tmp_path_factory.mktemp("nights"), model)
    said = {"first": builders.rlrf("run", path, "--as-of", date(0))}
    planned = builders.rlrf("plan", path, "--as-of", date(1))
    said |= {"second": builders.rlrf("run", path, "--as-of", date(1))}
    with temporary_settings(
        restore_defaults={PREFECT_API_URL}
    ):  # where nobody looks, nothing is started for what is done
        said |= {"again": builders.rlrf("run", path, "--as-of", date(1))}
    said |= {"quiet": builders.rlrf("run", path, "--as-of", (FIRST + timedelta(days=1, seconds=1)).isoformat())}
    return Nights(path, open_store(load_config(path).store_path), said, planned)


def known(number: int) -> set[str]:
    return {one.question for one in builders.problems("prompts")[EVERY * number : EVERY * (number + 1)]}


def test_all_came_to_their_ends(nights: Nights) -> None:
    assert {name: said.code for name, said in nights.said.items()} == dict.fromkeys(nights.said, 0), nights.said
    assert [row["status"] for row in reading.runs(nights.store)] == ["completed"] * 4


def test_each_date_learns_from_what_arrived_since_the_last(nights: Nights) -> None:
    assert nights.asked(0) == known(0)
    assert nights.asked(1) == known(1)


def test_each_date_starts_from_the_champion_of_then(nights: Nights) -> None:
    base = nights.store.query("SELECT run_id, base_id FROM iterations WHERE arm = 'policy' ORDER BY created_at")
    promoted = nights.store.query("SELECT policy_id FROM decisions WHERE verdict = 'promote' ORDER BY number")
    assert promoted, "the scripted engine improves"
    settled = [intervals.interval(nights.store, "wheel", FIRST + timedelta(days=number)) for number in (0, 1)]
    assert settled[0] is not None and settled[0].policy_id is None, "there was no champion yet"
    assert settled[1] is not None and settled[1].policy_id == base[1]["base_id"] == promoted[0]["policy_id"]
    champion = ledger.champion(nights.store)
    assert champion is not None and champion.policy_id == promoted[-1]["policy_id"]


def test_a_date_again_does_nothing(nights: Nights) -> None:
    assert "nothing was regenerated" in nights.said["again"].out
    assert nights.asked(2) == nights.asked(1)


def test_a_plan_of_a_date_knows_what_its_run_would_work_on(nights: Nights) -> None:
    assert nights.planned.code == 0
    again = builders.rlrf("plan", nights.path, "--as-of", date(1), "--json")
    assert {step["state"] for step in json.loads(again.out)["steps"]} == {"finished"}


def test_a_quiet_night_is_no_failure(nights: Nights) -> None:
    assert (
        "no prompt arrived after 2026-11-21 02:00:00 until 2026-11-21 02:00:01 UTC: nothing to do"
        in nights.said["quiet"].out
    )
    assert "nothing to do" in reading.runs(nights.store)[0]["reason"]


def test_every_date_is_on_record(nights: Nights) -> None:
    done = intervals.finished(nights.store, "wheel")
    assert done == {FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=1, seconds=1)}


@pytest.mark.parametrize(
    ("text", "said"), [("tomorrow", "is no time"), ("2200-01-01", "is yet to come"), ("1900-01-01", "from 1970")]
)
def test_a_date_that_cannot_be_is_refused(nights: Nights, text: str, said: str) -> None:
    found = builders.rlrf("run", nights.path, "--as-of", text)
    assert found.code == 1
    assert said in found.err.replace("\n", " ")
    assert len(nights.store.query("FROM runs")) == 4


def test_only_the_newest_date_is_done_again_on_purpose(nights: Nights) -> None:
    found = builders.rlrf("run", nights.path, "--from", "judge", "--as-of", date(0))
    assert found.code == 1
    assert "only the newest date is done again" in found.err.replace("\n", " ")


def test_a_date_that_was_killed_before_it_was_marked_as_done_is_marked_by_the_next_run(nights: Nights) -> None:
    with nights.store.connect() as connection:
        connection.execute("UPDATE intervals SET done_at = NULL WHERE as_of = ?", [FIRST + timedelta(days=1)])
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        said = builders.rlrf("run", nights.path, "--as-of", date(1))
    assert "nothing was regenerated" in said.out
    assert FIRST + timedelta(days=1) in intervals.finished(nights.store, "wheel")
