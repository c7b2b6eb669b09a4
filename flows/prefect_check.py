"""Whether the Prefect server that runs would report to can be reached."""

from urllib.parse import urlsplit

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from rlrf.backends.doctor import Finding

SECONDS = 10.0
"""How long a server may take to answer; it is asked once."""

WHAT = "Prefect server"


def check_prefect() -> Finding:
    """The configured server (PREFECT_API_URL, or a profile's) and its version, or that runs start one of their own."""
    address = get_current_settings().api.url
    if address is None:
        return Finding(
            "ok", WHAT, f"a temporary one per run (Prefect {prefect.__version__}), as PREFECT_API_URL isn't set"
        )
    place = _without_credentials(address)
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client,
        ):
            version = str(client.api_version())
    except httpx.HTTPStatusError as error:
        return _unusable(place, f"answers with status {error.response.status_code}", error.response.status_code)
    except httpx.HTTPError as error:
        return _unusable(place, f"doesn't answer ({type(error).__name__})")
    except ValueError:
        return _unusable(place, "answers, but not as a Prefect API; the address ends in /api")
    if version.split(".")[0] != prefect.__version__.split(".")[0]:
        return _unusable(place, f"is Prefect {version}, this is {prefect.__version__}: they don't speak to each other")
    if _numbers(version) < _numbers(prefect.__version__):
        remedy = f"upgrade the server to {prefect.__version__}"
        return Finding("warn", WHAT, f"{place}, Prefect {version}, older than {prefect.__version__} here", remedy)
    return Finding("ok", WHAT, f"{place}, Prefect {version}")


def _unusable(place: str, why: str, status: int | None = None) -> Finding:
    remedy = "start it (`prefect server start`), mend PREFECT_API_URL, or unset it for a temporary server"
    if status in {401, 403}:
        remedy = "set PREFECT_API_AUTH_STRING (own server) or PREFECT_API_KEY (Prefect Cloud)"
    return Finding("missing", WHAT, f"{place} {why}", remedy, required=True)


def _without_credentials(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:3] if part.isdigit()]
