"""Signs of a training that does no good, seen in trl's metrics while it runs; each stops it with the reason."""

from __future__ import annotations

import math
from collections import deque
from statistics import mean

from rlrf.backends.training.rows import Columns
from rlrf.backends.training.spec import TrainSpec
from rlrf.errors import TrainingError

LN_2 = math.log(2)
FLAT_MEAN = 0.001
"""How close to ln 2 the mean DPO loss of the last steps counts as flat: a mean margin of 0.002 nats."""
FLAT_STEP = 0.01
"""How close each single one must be, so that bfloat16's noise is forgiven and one step that learnt is not."""
RECENT_STEPS = 10
"""Steps over which the chosen's log-probability is averaged."""


class HealthRules:
    """The rules of one training, fed with what trl logs.

    Rules: "not a number" (always; any method), and for dpo `flat_steps`, `max_chosen_drop` (see `Health`).
    """

    def __init__(self, spec: TrainSpec, columns: Columns) -> None:
        self._spec = spec
        self._chosen_tokens = mean(map(len, columns["chosen_ids"])) if spec.method == "dpo" else 0.0
        self._flat: deque[float] = deque(maxlen=spec.health.flat_steps)
        self._drops: deque[float] = deque(maxlen=RECENT_STEPS)

    def check(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Judge the metrics of `steps` optimizer steps that end at `step`.

        Raises:
            TrainingError: a rule is broken; names the rule, step, value, limit and remedy.
        """
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise TrainingError(
                    f"not a number: {name} is {values[name]!r} at step {step}; "
                    f"lower learning_rate (train.learning_rate = {self._spec.learning_rate!r}) or raise train.warmup_ratio"
                )
        if self._spec.method == "dpo":
            self._check_flat(step, steps, values)
            self._check_chosen(step, steps, values)

    def _check_flat(self, step: int, steps: int, values: dict[str, float]) -> None:
        # Beside an SFT term the logged loss is a sum; around 0 DPO's part is ln 2 less half the margin.
        mixed = self._spec.sft_weight > 0
        distance = values["rewards/margins"] / 2 if mixed else LN_2 - values["loss"]
        self._flat.extend([distance] * steps)
        limit = self._spec.health.flat_steps
        if not limit or len(self._flat) < limit:
            return
        if max(map(abs, self._flat)) <= FLAT_STEP and abs(mean(self._flat)) <= FLAT_MEAN:
            raise TrainingError(
                f"health rule flat_steps: at step {step} DPO's loss has been at ln 2 for {limit} steps "
                f"(on average {LN_2 - mean(self._flat):.6f}, limit {LN_2:.4f} +- {FLAT_MEAN}; gradient norm "
                f"{values.get('grad_norm', math.nan):.2g}): nothing is learnt. Raise train.learning_rate "
                f"({self._spec.learning_rate!r}), look whether chosen and rejected differ, "
                "or allow more steps with train.health.flat_steps (0: no limit)"
            )

    def _check_chosen(self, step: int, steps: int, values: dict[str, float]) -> None:
        # rewards/chosen is beta * (log-probability of the chosen - the reference's), a mean over pairs.
        drop = -values["rewards/chosen"] / self._spec.beta / self._chosen_tokens
        self._drops.extend([drop] * steps)
        limit = self._spec.health.max_chosen_drop
        if limit and len(self._drops) == RECENT_STEPS and mean(self._drops) > limit:
            raise TrainingError(
                f"health rule max_chosen_drop: at step {step} the chosen responses have lost "
                f"{mean(self._drops):.2f} nats per token against the reference (mean of {RECENT_STEPS} steps, limit "
                f"{limit!r}): the policy unlearns what it should prefer. Lower train.learning_rate "
                f"({self._spec.learning_rate!r}), raise train.beta ({self._spec.beta!r}) or train.sft_weight "
                f"({self._spec.sft_weight!r}), or raise train.health.max_chosen_drop (0: no limit)"
            )


def check_lengths(spec: TrainSpec, columns: Columns) -> None:
    """Compare the mean lengths of chosen and rejected, in tokens: DPO learns length first where they differ much.

    Raises:
        TrainingError: the chosen are longer by more than `max_length_ratio` times.
    """
    limit = spec.health.max_length_ratio
    if spec.method != "dpo" or not limit:
        return
    chosen, rejected = (mean(map(len, columns[name])) for name in ("chosen_ids", "rejected_ids"))
    if chosen / rejected > limit:
        raise TrainingError(
            f"health rule max_length_ratio: before the first step, chosen responses have {chosen:.1f} tokens on average, "
            f"rejected {rejected:.1f}: {chosen / rejected:.2f} times, limit {limit!r}: the policy would learn to be long. "
            "Pair responses of like length, or raise train.health.max_length_ratio (0: no limit)"
        )
