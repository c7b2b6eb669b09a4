"""Alerts on a real server, told to a receiver on this machine; and a server that hangs while a stage works."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.alerts import alerts, install_alerts
from rlrf.errors import ConfigError
from tests import builders
from tests.flows.test_prefect import Place, opened, wait_for


@dataclass
class Receiver:
    """An HTTP server on loopback that keeps what it is sent."""

    got: list[dict[str, Any]] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler

    def about(self, what: str) -> list[str]:
        return [one["text"] for one in self.got if what in one["text"]]


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver()
    with HTTPServer(("127.0.0.1", 0), receiver.handler()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with opened(tmp_path_factory.mktemp("alerts")) as place:
        yield place


@dataclass(frozen=True)
class Installed:
    first: list[str]
    named: list[str]
    again: list[str]


@pytest.fixture(scope="module")
def installed(place: Place, receiver: tuple[Receiver, str]) -> Installed:
    """Without anybody to tell; then told to a notification block; then once more without naming it."""
    first = install_alerts()
    block: Any = CustomWebhookNotificationBlock
    block(name="here", url=receiver[1], json_data={"text": "{{subject}}: {{body}}"}).save("here")
    return Installed(first, install_alerts("custom-webhook/here"), install_alerts())


@pytest.fixture(scope="module")
def said(place: Place, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run says during which the server hangs."""
    folder = tmp_path_factory.mktemp("hangs")
    path = builders.write_config(folder, folder / "model")
    server = place.processes[0].pid
    return place.says(sys.executable, "-m", "tests.flows.stopped_server", path, str(server))


def test_alerts_are_there_once_and_keep_who_is_told(installed: Installed) -> None:
    names = [one.name for one in alerts(timedelta(seconds=30))]
    assert installed.first == [f"{name}: created, told to the event feed" for name in names]
    assert installed.named == [f"{name}: up to date, told to custom-webhook/here" for name in names]
    assert installed.again == [f"{name}: up to date, told to as before" for name in names]
    with get_client(sync_client=True) as client:
        there = [one for one in client.read_automations() if one.name in names]
    assert len(there) == len(names)
    assert {one.actions[0].type for one in there} == {"send-notification"}


def test_a_stage_does_not_wait_for_a_server_that_hangs(said: str) -> None:
    took = re.search(r"took (\d+\.\d+) hung (True|False)", said)
    assert took, said
    assert took[2] == "True", "the server did hang, and something waited to be sent"
    assert float(took[1]) < 3.0, "two hundred batches, on a busy machine; one request alone may take 5 s"
    assert said.strip().endswith("stopped")


def test_what_a_run_finds_out_is_told_with_its_numbers(said: str, receiver: tuple[Receiver, str]) -> None:
    [judge] = wait_for("the judge's alert", lambda: receiver[0].about("judge health"))
    assert judge == "rlrf alert: judge health over its limit: wheel: ties is 0.75, limit 0.5; the run has stopped"
    [accuracy] = wait_for("the alert on accuracy", lambda: receiver[0].about("accuracy down"))
    assert "wheel, iteration 3: accuracy is down, gain -0.25 (95 % interval -0.5 to -0.125)" in accuracy


def test_a_run_that_stops_is_told(said: str, receiver: tuple[Receiver, str]) -> None:
    [failed] = wait_for("the alert on the run", lambda: receiver[0].about("failed or stopped"))
    assert re.search(r": Failed: .* \(flywheel\): http", failed), failed


def test_a_webhook_block_gets_a_payload_that_is_json(installed: Installed, receiver: tuple[Receiver, str]) -> None:
    block: Any = Webhook
    block(url=receiver[1]).save("hook")
    assert all(line.endswith("told to webhook/hook") for line in install_alerts("webhook/hook"))
    with get_client(sync_client=True) as client:
        action: Any = client.read_automations_by_name("rlrf alert: late")[0].actions[0]
    assert action.type == "call-webhook"
    assert json.loads(action.payload)["text"].startswith("rlrf alert: late: ")


@pytest.mark.parametrize("notify", ["custom-webhook/missing", "slack-webhook", "no-such-type/x"])
def test_a_block_that_is_not_there_is_named(place: Place, notify: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(notify))):
        install_alerts(notify)


def test_without_a_server_nobody_can_be_told() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        said = builders.rlrf("heal", "--notify", "slack-webhook/x")
    assert said.code == 1
    assert "PREFECT_API_URL isn't set" in said.err
