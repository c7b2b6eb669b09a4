"""From source files to a corpus: prompts to learn from, held-out prompts, external responses, and what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlrf.arriving import Arrivals
from rlrf.bootstrapping import bootstrap_folder
from rlrf.config import RunConfig
from rlrf.deduplication import Deduplicated, deduplicate
from rlrf.errors import DataError
from rlrf.external import ExternalResponse, read_responses
from rlrf.fingerprints import content_id
from rlrf.records import Prompt
from rlrf.redacting import Redactor, redactor
from rlrf.sources import PromptColumns, Source, read_prompts
from rlrf.splitting import keep_disjoint, split_of
from rlrf.stages import Key, file_part
from rlrf.tables import Table, find_files


@dataclass(frozen=True)
class DroppedPrompt:
    """A prompt that was left out, and why."""

    source: str
    row: int
    prompt_id: str
    reason: str
    duplicate_of: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Rows:
    """Every usable row of the sources, in their order, and the places of the others with the reasons."""

    learn: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    external: tuple[ExternalResponse, ...]
    refused: tuple[tuple[str, str, str], ...] = ()
    """(source, place, reason)"""


@dataclass(frozen=True)
class Material:
    """What is to be used. `learn` includes the prompts of the external responses."""

    learn: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    external: tuple[ExternalResponse, ...]
    dropped: tuple[DroppedPrompt, ...]
    refused: tuple[tuple[str, str, str], ...] = ()


def learn_sources(config: RunConfig) -> tuple[Source, ...]:
    """The prompt files of the run: its own, or the bootstrap's word problems."""
    if config.prompts.sources or config.policy.bootstrap is None:
        return config.prompts.sources
    return (_word_problems(config, "prompts"),)


def held_out_sources(config: RunConfig) -> tuple[Source, ...]:
    """The held-out files of the run: its own, none when a fraction is held out, or the bootstrap's."""
    held_out = config.prompts.held_out
    if held_out.sources or held_out.fraction or config.policy.bootstrap is None:
        return held_out.sources
    return (_word_problems(config, "held_out"),)


def source_files(config: RunConfig) -> list[list[Key]]:
    """Every source's files by their contents, in the order of the configuration. Raises DataError for a missing file."""
    tables: list[Table] = [*learn_sources(config), *held_out_sources(config), *config.external]
    tables += [source.prompts for source in config.external if source.prompts is not None]
    return [list(map(file_part, _files(table))) for table in tables]


def _files(table: Table) -> list[Path]:
    if table.database is not None:
        path = Path(table.database)
        if not path.is_file():
            raise DataError(f"database {table.database!r} is no file; it was looked up from {str(Path.cwd())!r}")
        return [path]
    return find_files(table, missing_ok=isinstance(table, Source) and table.log) if table.path else []


def read_sources(config: RunConfig, learn: Sequence[Source], held_out: Sequence[Source]) -> Rows:
    """Read every row. Raises DataError that names file and line for what can't be used and isn't a log's."""
    redact, refused = redactor(config.prompts.redact), list[tuple[str, str, str]]()

    def read(sources: Iterable[Source]) -> tuple[Prompt, ...]:
        return tuple(prompt for source in sources for prompt in _read(source, config.prompts.system, redact, refused))

    external = [one for source in config.external for one in read_responses(source, config.prompts.system, redact)]
    return Rows(read(learn), read(held_out), tuple(external), tuple(refused))


def settle_material(config: RunConfig, rows: Rows, arrivals: Arrivals | None = None) -> Material:
    """Split and deduplicate; with `arrivals` only what had arrived, and of it what is new. Raises DataError for a prompt with
    two references, and where a file of held-out prompts shares some with the others."""
    prompts, held_out = list(rows.learn), list(rows.held_out)
    if arrivals is not None:
        # What is read now takes the place of what was read earlier: a reference may have been mended.
        now, apart = {one.prompt_id for one in (*prompts, *held_out)}, bool(held_out_sources(config))
        learn, exam = (
            [one for one in part if one.prompt_id not in now] for part in (arrivals.learn, arrivals.held_out)
        )
        prompts = arrivals.until([*learn, *([] if apart else exam), *prompts])
        held_out = arrivals.until([*(exam if apart else []), *held_out])
    _refuse_two_references([*prompts, *held_out])
    fraction, threshold = config.prompts.held_out.fraction, config.prompts.near_duplicate
    own = deduplicate(held_out, (), threshold)
    kept_out, dropped = own.kept, _drops(own, "in held-out")
    if fraction:
        chosen = [prompt for prompt in prompts if split_of(prompt.prompt_id, fraction) == "held_out"]
        prompts = [prompt for prompt in prompts if split_of(prompt.prompt_id, fraction) == "train"]
        split = deduplicate(chosen, kept_out, threshold)
        kept_out, dropped = (*kept_out, *split.kept), dropped + _drops(split)
        kept = deduplicate(prompts, kept_out, threshold)
    elif arrivals is not None:  # what people ask may be what the exam asks; that must not end a nightly run
        kept = deduplicate(prompts, kept_out, threshold)
    else:
        kept = keep_disjoint(prompts, kept_out, threshold)
    external, refused = _external(rows.external, kept_out, threshold)
    known = {prompt.prompt_id for prompt in kept.kept}
    extra = {one.prompt.prompt_id: one.prompt for one in external if one.prompt.prompt_id not in known}
    fresh = _new(config, arrivals, kept.kept)
    drops = (*dropped, *_drops(kept), *refused)
    return Material((*fresh, *extra.values()), _limited(kept_out, config), external, drops, rows.refused)


def _new(config: RunConfig, arrivals: Arrivals | None, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    """Those that a run with this window learns from."""
    if arrivals is None or config.prompts.window == "all":
        return prompts
    return arrivals.fresh(prompts, arrivals.interval.since)


def _word_problems(config: RunConfig, split: str) -> Source:
    path = bootstrap_folder(config) / f"{split}.jsonl"
    return Source(
        name=f"word-problems-{split}", path=str(path), columns=PromptColumns(prompt="question", reference="answer")
    )


def _read(
    source: Source, system: str | None, redact: Redactor | None, refused: list[tuple[str, str, str]]
) -> list[Prompt]:
    def leave_out(place: str, reason: str) -> None:
        refused.append((source.name, place, reason))

    return list(read_prompts(source, system, redact, leave_out))


def _refuse_two_references(prompts: Iterable[Prompt]) -> None:
    """One prompt with two references would be judged by whichever came last."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        other = first.setdefault(prompt.prompt_id, prompt)
        if other.reference != prompt.reference:
            text = prompt.messages[-1]["content"][:80]
            raise DataError(
                f"prompt {text!r} has the reference {other.reference!r:.80} in source {other.source!r} and "
                f"{prompt.reference!r:.80} in {prompt.source!r}; make them one"
            )


def _external(
    found: Sequence[ExternalResponse], held_out: tuple[Prompt, ...], threshold: float
) -> tuple[tuple[ExternalResponse, ...], tuple[DroppedPrompt, ...]]:
    """Responses whose prompts don't touch the held-out ones; the others' prompts are dropped with the reason."""
    prompts = {one.prompt.prompt_id: one.prompt for one in found}
    clash = {
        d.prompt_id: d
        for d in deduplicate(list(prompts.values()), held_out, threshold).dropped
        if d.against == "held_out"
    }
    refused = tuple(
        DroppedPrompt(
            prompts[key].source, d.row, key, f"external prompt is held out ({d.kind})", d.duplicate_of, d.similarity
        )
        for key, d in clash.items()
    )
    return tuple(one for one in found if one.prompt.prompt_id not in clash), refused


def _drops(result: Deduplicated, where: str = "") -> tuple[DroppedPrompt, ...]:
    return tuple(
        DroppedPrompt(
            d.source, d.row, d.prompt_id, f"{d.kind} duplicate {where or d.against}", d.duplicate_of, d.similarity
        )
        for d in result.dropped
    )


def _limited(prompts: tuple[Prompt, ...], config: RunConfig) -> tuple[Prompt, ...]:
    """The first `limit` in an order that only contents decide; what is over the limit stays held out all the same."""
    order = sorted(prompts, key=lambda prompt: content_id("held-out order", prompt.prompt_id))
    return tuple(order[: config.prompts.held_out.limit])
