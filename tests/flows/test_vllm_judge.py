"""The tiny policy on a real vLLM server judges its own responses by a rubric, its replies bound to their schema."""

from __future__ import annotations

import json

import pytest

from rlrf.backends.engine.env import find_engine
from tests import builders
from tests.builders import NEVER, Ran

RUBRIC = """
name = "short"

[[aspects]]
name = "right"
definition = "Is the answer right?"
success = "Yes."
moderate = "Partly."
failure = "No."
"""

CONFIG = """
name = "judged"
home = "{home}"
iterations = 1

[engine]
type = "vllm"

[policy.bootstrap]
prompts = 40
held_out = 8
steps = 240

[prompts]
per_iteration = 12

[explore]
n = 2
max_tokens = 64

[judge]
type = "rubric"
rubric = "{rubric}"
policy = "first"
guided = true
comment_chars = 40
retries = 1
engine = {{type = "vllm"}}
sampling = {{temperature = 1.0, max_tokens = 120}}

[judge_health]
sample = 8

[refine]
m = 1
max_tokens = 64
budget = {{solved = "off", hopeless = "off"}}

[pairs]
min_pairs = {never}

[evaluate]
aspect = "right"
max_tokens = 64

[limits]
unrated = 1.0
"""

pytestmark = pytest.mark.skipif(find_engine() is None, reason="no vLLM environment: run `make engine`")


@pytest.fixture(scope="module")
def judged(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run up to its pairs."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "short.toml").write_text(RUBRIC, encoding="utf-8")
    path = folder / "judged.toml"
    path.write_text(CONFIG.format(home=folder / "home", rubric=folder / "short.toml", never=NEVER), encoding="utf-8")
    return builders.run(path)


def test_every_whole_response_is_rated_and_no_other(judged: Ran) -> None:
    assert judged.said.code == 3, judged.said.err
    assert "pairs.min_pairs" in judged.said.err or "no prompt has a positive" in judged.said.err
    sql = """SELECT r.finish_reason, j.reason, count(*) AS n FROM responses r JOIN judgements j USING (response_id)
             GROUP BY ALL"""
    found = {(row["finish_reason"], row["reason"]): row["n"] for row in judged.store.query(sql)}
    assert found.pop(("length", "truncated"), 0) + sum(found.values()) >= 36
    assert set(found) == {("stop", None)}, found


def test_its_replies_keep_the_form(judged: Ran) -> None:
    replies = judged.store.query("SELECT raw_reply FROM judgements WHERE raw_reply IS NOT NULL")
    read = [json.loads(row["raw_reply"]) for row in replies]
    assert read
    assert all(list(one) == ["right"] and list(one["right"]) == ["comment", "rating"] for one in read)
    assert all(len(one["right"]["comment"]) <= 40 for one in read)


def test_a_sample_is_judged_again_and_compared(judged: Ran) -> None:
    said = builders.rlrf("judge", "health", judged.config.home, "--json")
    assert said.code == 0, said.err
    keys = judged.store.query("SELECT ingredients FROM keys WHERE kind = 'judge'")
    variants = [json.loads(row["ingredients"]) for row in keys]
    assert sorted((one.get("repeat", 0), one.get("reverse", False)) for one in variants) == [
        (0, False),
        (0, True),
        (1, False),
    ]
    assert '"repeat' in said.out or "self" in said.out


def test_policy_and_judge_are_one_model_on_one_server(judged: Ran) -> None:
    assert judged.said.err.count(" serves ") == 1, judged.said.err
