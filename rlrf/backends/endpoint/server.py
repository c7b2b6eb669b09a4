"""One server during a run: how many requests it gets at once, and whether it takes any."""

from __future__ import annotations

from dataclasses import dataclass

from rlrf.backends.endpoint.client import EndpointClient
from rlrf.errors import BackendError

CUT = 0.7
"""What is left of a server's limit when it pushes back."""


@dataclass(slots=True)
class Traits:
    """What was found out about a server; kept from one run to the next."""

    apart: bool | None = None
    """Whether it takes several choices and tells the tokens of each."""
    guides: bool = False
    rewards: bool = False
    """Whether it was seen to give raw rewards."""


class Limit:
    """Requests in flight at most: cut by a factor when the server pushes back, grown by one per round trip of answers.

    A server that comes back starts at one, and each answer adds one more until half of what it had.
    """

    def __init__(self, most: int) -> None:
        self.value = float(most)
        self._most, self._threshold, self._cut_at = float(most), 0.0, float("-inf")

    def grow(self) -> None:
        """After an answer."""
        if self.value < self._most:
            self.value = min(self._most, self.value + (1.0 if self.value < self._threshold else 1.0 / self.value))

    def cut(self, sent_at: float, now: float) -> bool:
        """After a push-back; False where the request was on its way before the last cut, and so says nothing new."""
        if sent_at < self._cut_at:
            return False
        self.value = self._threshold = max(1.0, self.value * CUT)
        self._cut_at = now
        return True

    def restart(self) -> None:
        """After the server was gone."""
        self.value, self._threshold = 1.0, max(self._threshold, self.value / 2)


class Server:
    """One of the endpoint's servers, with what the pool knows about it."""

    def __init__(self, client: EndpointClient, traits: Traits, concurrency: int) -> None:
        self.client, self.traits = client, traits
        self.chat_url = f"{client.base_url}/chat/completions"
        self.limit = Limit(concurrency)
        self.busy = 0
        self.live = False
        self.came = self.given_up = False
        """Whether it has ever been live, and whether it has been looked for in vain as often as `retries` allows."""
        self.held_until = 0.0
        self.refusals = 0
        """Round trips in a row that it pushed back."""
        self.faults = 0
        """Tries in a row that went wrong."""
        self.absences = 0
        """Times in a row that it was left aside."""
        self.error: BackendError | None = None
        """Why it is left out for the rest of the run."""

    def is_free(self, now: float) -> bool:
        """Whether it may be asked."""
        return self.live and self.busy < int(self.limit.value) and self.held_until <= now
