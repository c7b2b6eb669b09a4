"""Which prompts a run with a date learns from and is held to: those that had arrived, and of them the new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlrf.config import RunConfig
from rlrf.fingerprints import content_id
from rlrf.handles import Interval
from rlrf.records import Prompt
from rlrf.stages import Key


@dataclass(frozen=True)
class Arrivals:
    """When every prompt first arrived, and the interval that is worked on.

    `learn` and `held_out`: prompts that arrived earlier and may be in no file any more.
    """

    interval: Interval
    first: Mapping[str, datetime]
    learn: tuple[Prompt, ...] = ()
    held_out: tuple[Prompt, ...] = ()

    def until(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Those that had arrived by the interval's end, first come first; of those at one moment in their order."""
        there = [one for one in prompts if self.first[one.prompt_id] <= self.interval.as_of]
        return sorted(there, key=lambda one: self.first[one.prompt_id])

    def fresh(self, prompts: Iterable[Prompt], since: datetime | None) -> tuple[Prompt, ...]:
        """Those of them that arrived after `since`."""
        return tuple(one for one in prompts if since is None or self.first[one.prompt_id] > since)


def times(prompts: Sequence[Prompt], seen_at: datetime) -> dict[str, datetime]:
    """The first arrival of each prompt among these rows; `seen_at` for rows whose source gives no time."""
    found: dict[str, datetime] = {}
    for one in prompts:
        when = one.arrived or seen_at
        found[one.prompt_id] = min(when, found.get(one.prompt_id, when))
    return found


def reading_id(config: RunConfig, redact: Key | None) -> str:
    """Identity of how prompts are read: what was read otherwise is another text and no earlier arrival of this one."""
    how = [config.name, config.prompts.system, redact.key if redact else None]
    return content_id("reading", how)
