"""Sample prompts: which prompts one iteration works on."""

from __future__ import annotations

from rlrf import stages
from rlrf.errors import StoppedError
from rlrf.handles import Corpus, Handle, Run
from rlrf.splitting import choose_prompts
from storage import sets
from tasks.stage import Stage, stage


def _key(run: Run, corpus: Corpus, iteration: int) -> stages.Key:
    return stages.sample_prompts_key(run.config, corpus, iteration)


@stage("sample_prompts", _key)
def sample_prompts(stage: Stage, run: Run, corpus: Corpus, iteration: int) -> Handle:
    """A seeded choice, fresh per iteration unless prompts are reused. Raises StoppedError when none is left."""
    settings = stage.config.prompts
    wanted, explored = settings.per_iteration, stage.config.explore.n > 0
    ids = (
        sets.members(stage.store, corpus.prompts.key)
        if explored
        else sets.prompts_behind(stage.store, corpus.external.key)
    )
    chosen = choose_prompts(ids, wanted, stage.config.seed, iteration, settings.reuse)
    stage.progress.begin(len(chosen), 0, "prompts")
    if not chosen:
        raise StoppedError(
            f"sample_prompts: iteration {iteration} finds no fresh prompt: {len(ids):,} in all, {wanted or len(ids):,} per "
            "iteration; add prompts, lower prompts.per_iteration, or set prompts.reuse"
        )
    if wanted and len(chosen) < wanted:
        stage.progress.say(f"only {len(chosen):,} fresh prompts are left of the {wanted:,} asked for")
    sets.add_members(stage.store, stage.key, chosen)
    stage.progress.advance(len(chosen))
    return stage.handle(len(chosen), sets.digest(stage.store, "prompts", stage.key))
