"""The shipped demo's parts as they are: bootstrapped policy, transformers engine, real judge; only much smaller."""

from __future__ import annotations

import pytest

from storage import ledger
from tests import builders
from tests.builders import Ran

CONFIG = """
name = "tiny"
home = "{home}"
iterations = 1

[engine]
type = "transformers"

[policy.bootstrap]
prompts = 40
held_out = 12
steps = {steps}

[prompts]
per_iteration = 20

[explore]
n = 2
max_tokens = 24

[refine]
m = 1
max_tokens = 24

[evaluate]
max_tokens = 24
"""


@pytest.fixture(scope="module")
def tiny(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A policy that was hardly trained, and solves nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(home=folder / "home", steps=40), encoding="utf-8")
    return builders.run(path)


def test_a_policy_that_solves_nothing_ends_with_the_reason(tiny: Ran) -> None:
    assert tiny.said.code == 3, tiny.said.err
    assert "no prompt has a positive response" in tiny.said.err
    assert tiny.run["status"] == "stopped"
    assert tiny.produced["trainings"] == 1, "the bootstrap alone"


def test_its_answers_are_stored_with_all_that_made_them(tiny: Ran) -> None:
    rows = tiny.store.query("SELECT * FROM lineage WHERE parent_id IS NULL")
    assert len(rows) == 40
    champion = ledger.champion(tiny.store)
    assert champion is not None
    for row in rows:
        assert champion.policy_id in row["made_with"]
        assert row["finish_reason"] in {"stop", "length"}
        assert (row["score"] is None) == (row["unrated_because"] is not None)


def test_the_same_command_generates_nothing_again(tiny: Ran) -> None:
    again = builders.run(tiny.path)
    assert again.said.code == 3
    assert not any(again.produced.values())
