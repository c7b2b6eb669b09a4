"""The configuration of pairs: the rule that makes them, and the audit that they must pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlrf.sections import Off, Section, Share

Rule = Literal["paper", "best_worst", "margin", "nearest", "own_parent", "length_controlled", "dominance"]


class Pairs(Section):
    """Which response is preferred to which. `type` names the rule; `k` caps the pairs per prompt."""

    type: Rule = Field(
        "paper",
        description="paper: fully successful by score, against others at random; best_worst: highest against lowest score; "
        "margin: scores at least `margin` apart; nearest: each fully successful one against the best of the others; "
        "own_parent: a refinement against the response that it rewrote; length_controlled: the shortest of the fully "
        "successful against the longest of the others; dominance: no aspect worse and one better",
    )
    k: int = Field(1, ge=1, description="Pairs per prompt at most")
    min_pairs: int = Field(32, ge=1, description="Fewer pairs than this stop the run before any training")
    margin: float | None = Field(
        None, gt=0, description="Least difference of scores; rule `margin` only, 0.5 when unset"
    )

    @model_validator(mode="after")
    def _margin(self) -> Pairs:
        if self.margin is not None and self.type != "margin":
            raise ValueError(f"margin: the rule {self.type!r} doesn't use it; remove it or set type = 'margin'")
        return self


class Audit(Section):
    """Limits that a pair set must keep before any training starts; unset or "off": measured and reported only."""

    equal_texts: Share = Field(0.0, description="Pairs whose texts differ at most in white space and case")
    ties: Annotated[Share | None, Off] = Field(0.5, description="Pairs whose scores are equal")
    length_ratio: Annotated[Annotated[float, Field(gt=1)] | None, Off] = Field(
        2.0, description="Mean tokens of chosen over rejected, or rejected over chosen"
    )
    near_duplicate_prompts: Annotated[Share | None, Off] = Field(
        0.5, description="Paired prompts that are near-duplicates of another one"
    )
    near_duplicate: float = Field(
        0.9, gt=0, le=1, description="Word-shingle Jaccard similarity that makes a near-duplicate"
    )
    evaluation_overlap: Annotated[Share | None, Off] = Field(
        0.1, description="Paired prompts that share an n-gram with a held-out prompt"
    )
    ngram: int = Field(13, ge=3, le=50, description="Words of such an n-gram")
    largest_source: Share | None = Field(None, description="Pairs from the most frequent source of prompts")
    refinements: Share | None = Field(None, description="Pairs whose chosen response is a refinement")
    top_yield: Share | None = Field(None, description="Least share of rated responses at the top of every aspect")
    label_noise: Share | None = Field(
        None,
        description="Pairs expected to be mislabelled, from the judge's accuracy as `rlrf judge check` measured it",
    )
