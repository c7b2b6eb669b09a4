"""`rlrf judge check` and `rlrf judge health`: labelled files in, numbers out, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlrf.records import Failure, Request
from storage import health
from storage.rows import add_prompts
from storage.store import Store, open_store
from tests.builders import Said, rlrf, write_lines
from tests.storage import builders as stored

ROOT = Path(__file__).parents[2]
EXCERPT = ROOT / "tests/data/gsm8k_solutions.jsonl"
WHOLE = ROOT.parent / "shared/data/gsm8k/model_solutions.jsonl"
GSM8K = ("--prompt", "question", "--response", "solution", "--reference", "ground_truth", "--label", "is_correct")
COLUMNS = ("--prompt", "q", "--response", "a", "--reference", "r", "--label", "right")
MATH = ("--judge", "math")

RUBRIC = """
name = "taste"
[[aspects]]
name = "clarity"
definition = "Is it clear?"
success = "Yes."
moderate = "Partly."
failure = "No."
[[aspects]]
name = "depth"
definition = "Does it go deep?"
success = "Yes."
moderate = "Partly."
failure = "No."
"""


def rate(request: Request) -> str | Failure:
    """What the scripted judge says: the ratings that the response's words name, nothing for others."""
    text = request.messages[-1]["content"]
    if "@silence" in text:
        return Failure("", "server_error", "500 [bold]\x1b[31m")
    clarity = next((level for word, level in (("@good", 1), ("@fair", 0), ("@bad", -1)) if word in text), None)
    if clarity is None:
        return "I can't say."
    return json.dumps({name: {"comment": "so", "rating": clarity} for name in ("clarity", "depth")})


def row(answer: str, right: Any = True, reference: Any = "42") -> dict[str, Any]:
    return {"q": "What is 6 * 7?", "a": answer, "r": reference, "right": right}


def check(file: Path, *arguments: str | Path) -> Said:
    return rlrf("judge", "check", file, *arguments)


def found(said: Said) -> dict[str, Any]:
    """The one JSON object on stdout."""
    assert said.code == 0, said.err
    assert said.out.count("\n") == 1
    result: dict[str, Any] = json.loads(said.out)
    return result


@pytest.fixture
def rubric_judge(tmp_path: Path) -> Path:
    """A judge file: a rubric of two aspects, rated by the scripted engine."""
    (tmp_path / "taste.toml").write_text(RUBRIC, encoding="utf-8")
    engine = '{type = "scripted", reply = "tests.flows.test_judge_cli:rate"}'
    path = tmp_path / "judge.toml"
    path.write_text(
        f'[judge]\ntype = "rubric"\nrubric = "{tmp_path / "taste.toml"}"\nengine = {engine}\n', encoding="utf-8"
    )
    return path


def test_the_verifier_agrees_with_the_authors_of_gsm8k() -> None:
    result = found(check(EXCERPT, *MATH, *GSM8K, "--json"))
    assert (result["agreement"], result["n"], result["unrated"], result["alpha"]) == (1.0, 60, 0, 1.0)
    assert sum(count for label in result["confusion"].values() for count in label.values()) == 60
    assert (result["judge"], result["aspect"], result["labels"]) == ("math", "answer", "binary")
    assert result["interval"][0] > 0.9


def test_the_verifier_on_all_of_them() -> None:
    if not WHOLE.is_file():
        pytest.skip("the whole file of GSM8K's published solutions isn't here")
    result = found(check(WHOLE, *MATH, *GSM8K, "--json"))
    assert (result["agreement"], result["n"]) == (1.0, 2638)


def test_unrated_responses_are_counted_and_never_agree(tmp_path: Path) -> None:
    rows = [row("6 * 7 = 42. #### 42"), row("#### 42", False), row("#### 41", False), row("#### 42", True, None)]
    result = found(check(write_lines(tmp_path / "rows.jsonl", rows), *MATH, *COLUMNS, "--json"))
    assert (result["n"], result["unrated"], result["rows"]) == (3, 1, 4)
    assert (result["agreement"], result["agreement_of_all"]) == (pytest.approx(2 / 3), 0.5)
    assert result["confusion"] == {"false": {"-1": 1, "1": 1}, "true": {"1": 1, "unrated": 1}}
    assert result["reasons"] == {"no_reference": 1}


def test_nothing_rated_is_no_agreement(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row("#### 42", True, None)])
    result = found(check(path, *MATH, *COLUMNS, "--json"))
    assert (result["agreement"], result["n"], result["alpha"], result["interval"]) == (None, 0, None, [0.0, 1.0])
    assert check(path, *MATH, *COLUMNS).code == 0


def test_what_people_see(tmp_path: Path) -> None:
    rows = [row("#### 42"), row("#### 41", False), row("#### 42", True, None)]
    said = check(write_lines(tmp_path / "rows.jsonl", rows), *MATH, *COLUMNS)
    assert said.code == 0
    shown = " ".join(said.out.split())
    assert "judge math" in shown
    assert "3 labelled responses" in shown
    assert "1 (no_reference 1)" in shown
    assert "100.0%" in shown


def test_csv_and_text_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "q,a,r,right\nWhat?,#### 42,42,TRUE\nWhat?,#### 41,42,false\nWhat?,#### 41,42,0\n", encoding="utf-8"
    )
    result = found(check(path, *MATH, *COLUMNS, "--json"))
    assert (result["agreement"], result["labels"], result["n"]) == (1.0, "binary", 3)


def test_another_aspect_and_a_changed_judge(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row("6 * 7 = 42. #### 42", 1), row("1 + 1 = 3. #### 42", -1)])
    one = found(check(path, *MATH, *COLUMNS, "--aspect", "arithmetic", "--json"))
    assert (one["aspect"], one["labels"], one["agreement"], one["alpha"]) == ("arithmetic", "scale", 1.0, 1.0)
    other = found(check(path, *MATH, *COLUMNS, "--set", "judge.reveal_values=false", "--json"))
    assert other["judge_key"] != one["judge_key"]
    assert other["data"] == found(check(path, *MATH, *COLUMNS, "--json"))["data"]


def test_labels_per_aspect_of_a_judge_that_asks_a_model(tmp_path: Path, rubric_judge: Path) -> None:
    rows = [
        row("@good", {"clarity": 1, "depth": 0}),
        row("@fair", {"clarity": 0, "depth": 0}),
        row("@bad", {"clarity": -1, "depth": None}),
        row("hm", {"clarity": 1, "depth": 1}),
        row("@silence", {"clarity": 1, "depth": 1}),
    ]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    result = found(check(path, "--judge", rubric_judge, *COLUMNS, "--json"))
    clarity, depth = result["aspects"]["clarity"], result["aspects"]["depth"]
    assert (clarity["agreement"], clarity["n"], clarity["unrated"], clarity["alpha"]) == (1.0, 3, 2, 1.0)
    assert (depth["agreement"], depth["n"], depth["unrated"], depth["labels"]) == (0.5, 2, 2, "binary")
    assert result["aspect"] == "clarity"
    assert set(result["reasons"]) == {"no_json", "judge_failed:server_error"}
    assert result["tokens"]["completion"] > 0
    assert found(check(path, "--judge", rubric_judge, *COLUMNS, "--aspect", "depth", "--json"))["aspect"] == "depth"


def test_the_judge_and_engine_of_a_runs_configuration(tmp_path: Path, rubric_judge: Path) -> None:
    text = rubric_judge.read_text(encoding="utf-8")
    judge, engine = text.splitlines()[:3], text.splitlines()[3].removeprefix("engine = ")
    run = tmp_path / "run.toml"
    run.write_text("\n".join([f"name = 3\nengine = {engine}", *judge]), encoding="utf-8")
    path = write_lines(tmp_path / "rows.jsonl", [row("@good"), row("@bad", False)])
    from_run = found(check(path, "--config", run, *COLUMNS, "--json"))
    assert from_run["agreement"] == 1.0
    assert from_run["judge_key"] == found(check(path, "--judge", rubric_judge, *COLUMNS, "--json"))["judge_key"]


def test_a_draw_is_seeded(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row(f"#### {number}", number == 42) for number in range(30, 60)])
    drawn = [
        found(check(path, *MATH, *COLUMNS, "--limit", "10", "--seed", seed, "--json"))["data"]
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert found(check(path, *MATH, *COLUMNS, "--limit", "10", "--json"))["n"] == 10


def test_a_check_is_kept_once_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [row("#### 42"), row("#### 41", False), row("#### 43")]
    store = open_store(tmp_path / "home" / "store.duckdb")
    for number, some in enumerate((rows, rows[::-1], rows[:2])):
        path = write_lines(tmp_path / f"{number}.jsonl", some)
        result = found(check(path, *MATH, *COLUMNS, "--store", tmp_path / "home", "--json"))
    kept = health.checks_of(store, result["judge_key"])
    assert sorted((one["n"], one["agreement"]) for one in kept) == [(2, 1.0), (3, pytest.approx(2 / 3))]
    assert {one["aspect"] for one in kept} == {"answer"}
    said = rlrf("judge", "health", tmp_path / "home")
    assert said.code == 0, said.err
    assert "Checks on labelled data" in said.out
    assert "66.7%" in said.out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((*MATH, "--prompt", "quest", *COLUMNS[2:]), ["line 1", "'quest'", "'q'"]),
        (("--judge", "mat", *COLUMNS), ["'mat'", "math, multiple_choice"]),
        (("--judge", "nowhere.toml", *COLUMNS), ["nowhere.toml", "No such file"]),
        ((*MATH, *COLUMNS, "--set", "judge.reveal=false"), ["judge.math.reveal", "unknown key"]),
        ((*MATH, *COLUMNS, "--set", "home=x"), ["--set 'home=x'", "judge.*"]),
        ((*MATH, *COLUMNS, "--aspect", "taste"), ["'taste'", "'conciseness'"]),
        ((*MATH, *COLUMNS, "--store", "no-store-here"), ["no store at 'no-store-here'"]),
        (COLUMNS, ["--judge", "--config"]),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path: Path, arguments: tuple[str, ...], parts: list[str]) -> None:
    said = check(write_lines(tmp_path / "rows.jsonl", [row("#### 42")]), *arguments)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ([True, "maybe"], ["line 2", "'maybe'"]),
        ([True, None], ["line 2", "None"]),
        ([True, float("inf")], ["Infinity"]),
        ([True, -1], ["line 1", "line 2", "true and false"]),
        ([1, -1, 5], ["line 3", "5.0", "scale -1 to 1"]),
        ([True, {"taste": True}], ["line 2", "'taste'"]),
        ([True, {}], ["line 2", "no label"]),
        ([True, [1]], ["line 2", "[1]"]),
    ],
    ids=["words", "null", "infinity", "two kinds", "off the scale", "no such aspect", "no label", "a list"],
)
def test_wrong_labels_name_their_row(tmp_path: Path, labels: list[Any], parts: list[str]) -> None:
    said = check(
        write_lines(tmp_path / "rows.jsonl", [row("#### 42", one) for one in labels]), *MATH, *COLUMNS, "--json"
    )
    assert (said.code, said.out) == (1, "")
    for part in parts:
        assert part in said.err


def test_a_response_that_is_no_text_names_its_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row("#### 42"), row("#### 42") | {"a": None}])
    said = check(path, *MATH, *COLUMNS)
    assert said.code == 1
    assert "line 2, column 'a' is None" in said.err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store with one judged set, one of whose reasons would steer a terminal."""
    store: Store = open_store(tmp_path / "home" / "store.duckdb")
    add_prompts(store, [stored.prompt("p")])
    stored.respond(store, "p", [stored.completion(name) for name in "abc"])
    stored.judge(store, stored.judgement("a", 1, 0), stored.judgement("b", 1, 0))
    stored.judge(store, stored.judgement("c", reason="no [bold]reply[/bold]\x1b[31m"))
    stored.members(store, "set", "abc")
    return tmp_path / "home"


def test_health_for_people(home: Path) -> None:
    said = rlrf("judge", "health", home)
    assert said.code == 0, said.err
    shown = " ".join(said.out.split())
    assert "33.3%" in shown
    assert "100.0%" in shown  # a and b tie
    assert "[bold]" in said.out
    assert "\x1b[31m" not in said.out


def test_health_for_programs(home: Path) -> None:
    result = found(rlrf("judge", "health", home, "--json"))
    assert [(one["judged"], one["unrated"], one["tie_share"]) for one in result["sets"]] == [(3, 1, 1.0)]
    same = found(rlrf("judge", "health", home, "--judge", stored.JUDGE[:8], "--json"))
    assert same == result


def test_health_of_what_is_not_there(home: Path, tmp_path: Path) -> None:
    for arguments, part in (((home, "--judge", "zz"), "'zz'"), ((tmp_path / "no",), "no store at")):
        said = rlrf("judge", "health", *arguments)
        assert (said.code, said.out) == (1, "")
        assert part in said.err


def test_progress_goes_to_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.judge_check.LINE_SECONDS", -1.0)
    rows = [row("#### 42"), row("#### 42", True, None)]
    said = check(write_lines(tmp_path / "rows.jsonl", rows), *MATH, *COLUMNS, "--json")
    assert found(said)["n"] == 1
    assert "2 of 2, " in said.err
    assert "responses/s, 1 unrated, 0 s left" in said.err
