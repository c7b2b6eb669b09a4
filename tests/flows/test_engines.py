"""Which engine answers for which policy, and what the store says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.blocks.system import Secret

from flows.running import in_flight
from rlrf.backends.endpoint.settings import BACKLOG
from rlrf.config import load_config
from rlrf.errors import ConfigError
from tests import builders
from tests.builders import NEVER, Ran, rlrf
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, MisbehavingServer

LOCAL = {"type": "transformers", "device": "cpu"}


@pytest.fixture(scope="module")
def served(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run whose starting policy is served by an endpoint elsewhere, up to its pairs."""
    folder = tmp_path_factory.mktemp("served")
    with MisbehavingServer() as server:
        engine = {"type": "endpoint", "base_url": server.base_url, "model": MODEL, "local": LOCAL}
        changes = {"pairs__min_pairs": NEVER, "limits": {"unrated": 1.0}, "evaluate": {"max_tokens": 8}}
        return builders.run(builders.write_config(folder, model, engine=engine, **changes))


def test_an_endpoint_explores_for_the_starting_policy(served: Ran) -> None:
    rows = served.store.query("SELECT backend, count(*) AS n FROM responses GROUP BY ALL")
    assert rows == [{"backend": "endpoint", "n": 30}], served.said.err


def test_evaluation_is_served_here(served: Ran) -> None:
    rows = served.store.held_out().query("SELECT DISTINCT backend FROM responses")
    assert rows == [{"backend": "local"}]


def test_every_response_says_how_its_engine_was_set(served: Ran) -> None:
    explored = served.store.query("SELECT DISTINCT engine FROM lineage")
    assert [json.loads(row["engine"])["type"] for row in explored] == ["endpoint"]
    sql = "SELECT DISTINCT k.ingredients FROM responses r JOIN keys k ON k.key = (r.metadata ->> 'engine')::UUID"
    (answered,) = served.store.held_out().query(sql)
    assert {"type": "transformers", "device": "cpu", "dtype": "float32"}.items() <= json.loads(
        answered["ingredients"]
    ).items()


def test_no_engine_setting_holds_an_address(served: Ran) -> None:
    assert served.store.value("SELECT count(*) FROM keys WHERE ingredients::VARCHAR LIKE '%127.0.0.1%'") == 0


def test_a_server_that_holds_another_model_ends_the_run_before_anything_is_generated(
    prefect_server: str, model: Path, tmp_path: Path
) -> None:
    with MisbehavingServer(models=("other",)) as server:
        engine = {"type": "endpoint", "base_url": server.base_url, "model": MODEL, "local": LOCAL}
        said = rlrf("run", builders.write_config(tmp_path, model, engine=engine))
    assert said.code == 1
    assert MODEL in said.err
    assert "other" in said.err


SECRET = "sk-only-for-a-test"


def test_a_key_from_a_prefect_secret_is_used_and_kept_nowhere(prefect_server: str, model: Path, tmp_path: Path) -> None:
    Secret(value=SECRET).save("judge-key", overwrite=True)
    with MisbehavingServer(api_key=SECRET) as server:
        engine = {"type": "endpoint", "base_url": server.base_url, "model": MODEL, "local": LOCAL}
        engine |= {"api_key_secret": "judge-key"}
        changes = {"pairs__min_pairs": NEVER, "limits": {"unrated": 1.0}, "evaluate": {"max_tokens": 8}}
        ran = builders.run(builders.write_config(tmp_path, model, engine=engine, **changes))
    assert ran.store.value("SELECT count(*) FROM responses WHERE backend = 'endpoint'") == 30, ran.said.err
    written = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert SECRET not in ran.said.out + ran.said.err


@pytest.mark.parametrize(("value", "said"), [(None, "no such Prefect Secret block"), ("two words", "no key has")])
def test_a_secret_that_lacks_or_is_no_key_ends_the_run_before_any_model_is_loaded(
    prefect_server: str, model: Path, tmp_path: Path, value: str | None, said: str
) -> None:
    name = "lacks" if value is None else "broken"
    if value is not None:
        Secret(value=value).save(name, overwrite=True)
    engine = {"type": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": MODEL, "api_key_secret": name}
    done = rlrf("run", builders.write_config(tmp_path, model, engine=engine))
    assert done.code == 1
    assert said in done.err
    assert name in done.err
    assert "evaluate" not in done.out
    assert value is None or value not in done.err


def test_a_key_that_would_travel_unencrypted_to_any_replica_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICA_KEY", SECRET)
    urls = ["http://127.0.0.1:9/v1", "http://10.0.0.1:8000/v1"]
    engine = {"type": "endpoint", "base_url": urls, "model": MODEL, "api_key_env": "REPLICA_KEY"}
    done = rlrf("plan", builders.write_config(tmp_path, model, engine=engine))
    assert done.code == 1
    assert "10.0.0.1" in done.err
    assert "unencrypted" in done.err


def test_values_can_be_set_on_the_command_line(model: Path, tmp_path: Path) -> None:
    path = builders.write_config(tmp_path, model)
    config = load_config(
        path, ["explore.n=7", "name=other", 'explore.stop=["END"]', "refine.promising = best_imperfect"]
    )
    assert (config.explore.n, config.name, config.explore.stop) == (7, "other", ("END",))
    assert config.refine.promising == "best_imperfect"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("explore.n", "dotted.key=value"),
        ("=3", "dotted.key=value"),
        ("name.x=3", "no table"),
        ("explore.m=3", "explore.m"),
        ("train.learning_rate=nan", "train.learning_rate = nan.*finite"),
        ("gate.max_length_ratio=inf", "gate.max_length_ratio = inf.*finite"),
    ],
)
def test_a_value_that_can_not_be_set_says_why(model: Path, tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(builders.write_config(tmp_path, model), [change])


def test_vllm_without_its_environment_is_refused_with_the_command_that_makes_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "nowhere"))
    said = rlrf("run", builders.write_config(tmp_path, model, engine={"type": "vllm"}))
    assert said.code == 1
    assert "RLRF_ENGINE" in said.err or "rlrf engine install" in said.err


@pytest.mark.parametrize(
    ("engine", "most"),
    [
        ({"type": "vllm", "concurrency": 16, "choices_per_request": 4}, 64),
        ({"type": "endpoint", "base_url": ["http://a/v1", "http://b/v1"], "model": MODEL}, 2 * 64 * 8 + BACKLOG),
        ({"type": "transformers", "batch_size": 32}, 32),
    ],
)
def test_what_a_kill_costs_at_most_is_said_of_every_engine(
    model: Path, tmp_path: Path, engine: dict[str, object], most: int
) -> None:
    assert in_flight(load_config(builders.write_config(tmp_path, model, engine=engine))) == most
