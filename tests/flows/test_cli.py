"""The command line over finished, stopped and hostile stores."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

from storage import ledger, reading
from storage.store import open_store
from tests import builders
from tests.builders import Ran, rlrf
from tests.flows.replies import HOSTILE


@pytest.fixture
def home(wheel: Ran, tmp_path: Path) -> Path:
    """A copy of the finished run's store, to decide on."""
    (tmp_path / "home").mkdir()
    shutil.copy(wheel.config.store_path, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def hostile(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A stopped run whose responses would harm a careless reader."""
    path = builders.write_config(tmp_path_factory.mktemp("hostile"), model, "hostile", explore__n=1, refine__m=1)
    return builders.run(path)


def policies(home: Path) -> dict[str, str]:
    """Ids by name."""
    found = open_store(home / "store.duckdb").query("SELECT name, policy_id FROM policies")
    return {row["name"]: row["policy_id"] for row in found}


def champion(home: Path) -> str:
    policy = ledger.champion(open_store(home / "store.duckdb"))
    assert policy is not None
    return policy.name


def test_a_plan_before_the_run_starts_nothing(model: Path, tmp_path: Path) -> None:
    said = rlrf("plan", builders.write_config(tmp_path, model))
    assert said.code == 0, said.err
    assert "0 of " in said.out
    assert "stages finished, 0 rows kept" in said.out
    for stage in ("ingest", "explore", "refine", "select_pairs", "audit_pairs", "train_policy", "evaluate", "decide"):
        assert stage in said.out
    store = open_store(tmp_path / "home" / "store.duckdb")
    assert set(reading.counts(store).values()) == {0}


def test_a_plan_after_the_run_finds_all_of_it_finished(wheel: Ran) -> None:
    said = rlrf(
        "plan",
        builders.write_config(
            wheel.path.parent, Path(str(wheel.config.policy.model)), "improving", "same.toml", iterations=2
        ),
    )
    assert said.code == 0, said.err
    assert "26 of 26 stages finished" in said.out
    assert "no tokens to generate" in said.out


def test_a_plan_of_a_changed_configuration_says_why(wheel: Ran) -> None:
    folder, model = wheel.path.parent, Path(str(wheel.config.policy.model))
    said = rlrf("plan", builders.write_config(folder, model, "improving", "more.toml", explore__n=5))
    explore = next(line.split() for line in said.out.splitlines() if " explore " in line)
    assert explore[:7] == ["1", "explore", "partly", "reusable", "50", "30", "20"]
    assert " ".join(explore[7:]).endswith("n: 3 -> 5")


def test_status_shows_rows_runs_champion_and_results(wheel: Ran) -> None:
    said = rlrf("status", wheel.config.home)
    assert said.code == 0, said.err
    for words in ("held_out.responses", "completed", "Champion: wheel-1", "iteration 2", "promote +100.0", "keep +0.0"):
        assert words in said.out


def test_show_takes_an_id_or_a_text_and_shows_all_that_came_of_a_prompt(wheel: Ran) -> None:
    prompt_id = wheel.store.value("SELECT prompt_id FROM pairs ORDER BY prompt_id LIMIT 1")
    said = rlrf("show", wheel.config.home, prompt_id[:13])
    assert said.code == 0, said.err
    for words in (f"prompt {prompt_id}", "reference: ", "chosen", "rejected", "refinement ", "arithmetic +1", "score "):
        assert words in said.out
    question = wheel.store.value("SELECT messages->0->>'content' FROM prompts WHERE prompt_id = ?", [prompt_id])
    assert rlrf("show", wheel.config.home, question).out == said.out


def test_show_asks_for_one_prompt(wheel: Ran) -> None:
    said = rlrf("show", wheel.config.home, "how many")
    assert said.code == 1
    assert said.err.startswith("error: 'how many' is the start of an id, or part of the text, of ")


def test_hostile_text_is_shown_and_never_interpreted(hostile: Ran) -> None:
    prompt_id = hostile.store.value("SELECT prompt_id FROM responses LIMIT 1")
    stored = hostile.store.value("SELECT text FROM responses LIMIT 1")
    assert stored == HOSTILE, "the store keeps every character"
    said = rlrf("show", hostile.config.home, prompt_id)
    assert said.code == 0, said.err
    shown = "".join(said.out.split())
    for words in (
        "[bold]x[/]",
        "nul\\x00",
        "\\x1b[31mred",
        "\\x07",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "\\u202eevil",
    ):
        assert words in shown
    for raw in ("\0", "\x1b", "\x07", "\u202e"):
        assert raw not in said.out + said.err + hostile.said.out + hostile.said.err


def test_export_gives_trl_its_columns(wheel: Ran, tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        file = tmp_path / "new" / f"pairs.{suffix}"
        said = rlrf("export", wheel.config.home, file)
        assert said.code == 0, said.err
        kind = "json" if suffix == "jsonl" else "parquet"
        rows = load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        assert set(rows.column_names) == {"prompt", "chosen", "rejected"}
        assert f"{len(rows):,} pairs of set " in said.out
        assert str(file) in said.out
        row = rows[0]
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert [turn["role"] for turn in row["chosen"]] == [turn["role"] for turn in row["rejected"]] == ["assistant"]


def test_export_of_a_named_set(wheel: Ran, tmp_path: Path) -> None:
    sets = wheel.store.query("SELECT pair_set, count(*) AS n FROM pairs GROUP BY ALL")
    for one in sets:
        file = tmp_path / "pairs.jsonl"
        assert rlrf("export", wheel.config.home, file, "--pair-set", one["pair_set"][:12]).code == 0
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rows) == one["n"]


@pytest.mark.parametrize("name", ["pairs.csv", "pairs"])
def test_export_to_an_unknown_format_is_wrong_usage(wheel: Ran, tmp_path: Path, name: str) -> None:
    said = rlrf("export", wheel.config.home, tmp_path / name)
    assert said.code == 2
    assert ".jsonl or .parquet" in said.err
    assert not (tmp_path / name).exists()


def test_export_without_such_a_set(wheel: Ran, tmp_path: Path) -> None:
    said = rlrf("export", wheel.config.home, tmp_path / "pairs.jsonl", "--pair-set", "zzz")
    assert said.code == 1
    assert "no pair set 'zzz'" in said.err


def test_promote_and_roll_back_by_hand(home: Path) -> None:
    ids = policies(home)
    assert champion(home) == "wheel-1"
    assert rlrf("promote", home, ids["wheel-2"][:18], "--reason", "reads better").code == 0
    assert champion(home) == "wheel-2"
    back = rlrf("rollback", home, "--reason", "too terse")
    assert back.code == 0, back.err
    assert "champion: wheel-1" in back.out
    assert "instead of wheel-2" in back.out
    assert champion(home) == "wheel-1"
    assert rlrf("rollback", home, "--reason", "still").code == 0
    assert champion(home) == "tiny"
    last = rlrf("rollback", home, "--reason", "further")
    assert last.code == 1
    assert "no champion before the present one" in last.err
    rows = open_store(home / "store.duckdb").query("SELECT verdict, reason, decided_by FROM decisions ORDER BY number")
    assert [row["verdict"] for row in rows[-3:]] == ["promote", "rollback", "rollback"]
    assert rows[-3]["reason"] == "reads better"
    assert rows[-3]["decided_by"] not in {"", "gate"}


def test_promote_wants_one_policy(home: Path) -> None:
    for prefix, count in (("", 3), ("zzz", 0)):
        said = rlrf("promote", home, prefix, "--reason", "why not")
        assert said.code == 1
        assert f"{prefix!r} starts the ids of {count} policies" in said.err
        assert champion(home) == "wheel-1"


def test_a_decision_without_a_reason_is_wrong_usage(home: Path) -> None:
    assert rlrf("promote", home, "1").code == 2
    assert rlrf("rollback", home).code == 2
    assert champion(home) == "wheel-1"


@pytest.mark.parametrize("command", [["status"], ["show", "x"], ["export", "a.jsonl"], ["rollback", "--reason", "x"]])
def test_a_store_that_is_not_there(tmp_path: Path, command: list[str]) -> None:
    said = rlrf(command[0], tmp_path, *command[1:])
    assert said.code == 1
    assert f"no store at {str(tmp_path / 'store.duckdb')!r}" in said.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_commands_are_wrong_usage() -> None:
    assert rlrf("spin").code == 2


def test_the_installed_command_says_what_it_can_do() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("rlrf"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("run", "plan", "status", "show", "export", "promote", "rollback"):
        assert name in done.stdout
