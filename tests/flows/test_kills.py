"""Kill -9 in every part of a run: what it leaves in the end is what an unkilled run leaves. In full: `benchmarks.kills`."""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.kills.comparing import Difference, compare, read_home
from benchmarks.kills.homes import Wheel, kill
from benchmarks.kills.victims import STRIKES
from tests import builders
from tests.builders import Ran

VICTIMS = ("commit", "group", "flow", "checkpoint", "trainer", "publish")


class Hasty(random.Random):
    """Waits no longer than the small run lasts."""

    def uniform(self, a: float, b: float) -> float:
        return super().uniform(a, min(b, 0.2))


@dataclass(frozen=True)
class Killed:
    """Who was killed in which order, how the last run ended, and how its home differs from an unkilled one."""

    victims: tuple[str, ...]
    codes: tuple[int, ...]
    difference: Difference
    runs: list[str]


@pytest.fixture(scope="module")
def unkilled(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return builders.run(builders.write_config(tmp_path_factory.mktemp("unkilled"), model, train__save_every=1))


@pytest.fixture(scope="module")
def killed(unkilled: Ran, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """One home, killed in its stages, in a commit, while a checkpoint is written, in training and in publishing."""
    wheel, draw = Wheel(tmp_path_factory.mktemp("killed"), "scripted"), Hasty(1)
    path = builders.write_config(wheel.folder, model, file="scripted.toml", train__save_every=1, home=str(wheel.home))
    assert path == wheel.config
    wheel.begin(None)
    victims: list[str] = []
    codes: list[int] = []
    for victim in VICTIMS:
        run = wheel.start()
        try:
            if STRIKES[victim](wheel, run, draw):
                victims.append(victim)
            codes.append(run.wait(300))
        finally:
            if run.poll() is None:
                kill(run.pid, group=True)
    codes.append(wheel.start().wait(300))
    home = read_home(wheel.home)
    difference = compare(home, read_home(unkilled.config.home))
    runs = [one["status"] for one in builders.open_store(wheel.home / "store.duckdb").query("SELECT status FROM runs")]
    return Killed(tuple(victims), tuple(codes), difference, runs)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("DELETE FROM pairs WHERE chosen_id = (SELECT min(chosen_id) FROM pairs)", "lost"),
        ("INSERT INTO judgements FROM judgements LIMIT 1", "doubled"),
        ("UPDATE responses SET text = 'x' WHERE response_id = (SELECT min(response_id) FROM responses)", "different"),
    ],
)
def test_the_comparison_finds_what_is_wrong(unkilled: Ran, tmp_path: Path, sql: str, what: str) -> None:
    reference = read_home(unkilled.config.home)
    shutil.copytree(unkilled.config.home, tmp_path / "home")
    with builders.open_store(tmp_path / "home" / "store.duckdb").connect() as connection:
        connection.execute(sql)
    found = compare(read_home(tmp_path / "home"), reference)
    assert {name for name in ("lost", "doubled", "different") if getattr(found, name)} == {what}
    assert found.said


def test_every_kill_struck(killed: Killed) -> None:
    assert killed.victims == VICTIMS
    died = [
        code for code, victim in zip(killed.codes, VICTIMS, strict=False) if victim not in {"trainer", "checkpoint"}
    ]
    assert set(died) == {-signal.SIGKILL}


def test_the_same_command_ends_it(killed: Killed) -> None:
    assert killed.codes[-1] == 0


def test_nothing_is_lost_doubled_or_different(killed: Killed) -> None:
    assert killed.difference.none, killed.difference.said


def test_every_killed_run_is_called_killed(killed: Killed) -> None:
    assert killed.runs.count("completed") == 1
    assert "running" not in killed.runs
