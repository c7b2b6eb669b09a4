"""The real pooling server, started once: its rewards are transformers' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlrf.backends.engine.env import find_engine
from rlrf.backends.engine.server import VllmServer
from rlrf.backends.protocols import Reward
from rlrf.backends.reward.endpoint import EndpointScorer
from rlrf.engine_config import Client, Vllm
from rlrf.errors import BackendError
from rlrf.records import Failure
from tests.rlrf.backends.reward.tiny_reward import POSITIONS, build_tiny_reward, chat, rewards_one_by_one

ENGINE = find_engine()
pytestmark = pytest.mark.skipif(ENGINE is None, reason="no engine environment; `rlrf engine install` builds one")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_reward(tmp_path_factory.mktemp("models") / "reward")


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    assert ENGINE is not None
    settings = Vllm(type="vllm", kv_cache_gib=0.125, stop_timeout=5.0, extra_args=("--runner", "pooling"))
    logs = tmp_path_factory.mktemp("logs")
    made = VllmServer(ENGINE, settings, folder, name="reward", lora_rank=None, logs=logs)
    made.start()
    yield made
    made.stop()


def test_rewards_are_the_raw_outputs_of_transformers(server: VllmServer, folder: Path) -> None:
    """Unless the sigmoid is switched off they would all lie between 0 and 1."""
    chats = [chat(str(at), f"It is {at}. " * (1 + at % 7), f"What is {at} + 3?") for at in range(24)]
    chats += [chat("empty", ""), chat("signs", "\u00e9\u4e2d\U0001f600"), chat("long", "7 " * POSITIONS)]
    scorer = EndpointScorer(server.base_url, "reward", Client(retries=1), key=server.key)
    found = {row.request_id: row for batch in scorer.score(chats, None) for row in batch}
    long = found.pop("long")
    assert isinstance(long, Failure)
    assert (long.reason, str(POSITIONS) in long.detail) == ("too_long", True)
    rewards = {name: row.value for name, row in found.items() if isinstance(row, Reward)}
    assert rewards == pytest.approx(rewards_one_by_one(folder, chats[:-1]), abs=1e-3)
    assert min(rewards.values()) < 0 or max(rewards.values()) > 1
    assert max(rewards.values()) - min(rewards.values()) > 1


def test_the_key_is_asked_for_by_the_server(server: VllmServer) -> None:
    scorer = EndpointScorer(server.base_url, "reward", Client(retries=0), key="sk-wrong")
    with pytest.raises(BackendError, match="401"):
        list(scorer.score([chat("a", "5")], None))
