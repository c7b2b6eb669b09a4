"""What lies in `deployments/` for other places: checked as far as it can be without them."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

ROOT = Path(__file__).parents[2] / "deployments"
SECRET = re.compile(r"(AUTH_STRING|API_KEY|TOKEN|PASSWORD)\W+[:=]\s*\"?[A-Za-z0-9]", re.IGNORECASE)


@pytest.mark.parametrize("name", ["gpu-pool", "cpu-pool"])
def test_a_kubernetes_pool_is_taken_by_the_server_and_uses_every_variable(prefect_server: str, name: str) -> None:
    template = json.loads((ROOT / "kubernetes" / f"{name}.json").read_text())
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=name, type="kubernetes", base_job_template=template), overwrite=True
        )
        kept = client.read_work_pool(name)
    assert kept.base_job_template == template
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    container = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu-pool")


def test_the_services_of_systemd_start_what_up_starts() -> None:
    units = {}
    for path in sorted((ROOT / "systemd").glob("*.service")):
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(path)
        units[path.stem] = parser
    assert set(units) == {"rlrf-server", "rlrf-worker"}
    assert "server start" in units["rlrf-server"]["Service"]["ExecStart"]
    assert "--pool rlrf --type process" in units["rlrf-worker"]["Service"]["ExecStart"]
    assert "PREFECT_SERVER_API_HOST=127.0.0.1" in (ROOT / "systemd" / "rlrf-server.service").read_text()


def test_the_compose_file_publishes_on_loopback_alone() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    assert services["worker"]["depends_on"]["server"]["condition"] == "service_healthy"


def test_no_file_holds_a_secret() -> None:
    for path in ROOT.rglob("*"):
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if not line.strip().startswith("#")]
            assert not SECRET.search("\n".join(lines)), path
