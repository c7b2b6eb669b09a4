"""All that can be known to be wrong before anything starts."""

from rlrf import judging
from rlrf.backends.endpoint.settings import check_key, checked_urls, read_key
from rlrf.backends.opening import resolve
from rlrf.backends.weights import resolve_model
from rlrf.bootstrapping import write_bootstrap_files
from rlrf.config import RunConfig
from rlrf.engine_config import Endpoint
from rlrf.errors import ConfigError
from rlrf.handles import Corpus
from rlrf.identities import teacher_policy
from rlrf.ingesting import source_files
from rlrf.judge_config import JudgeConfig, engines_of, with_engines
from storage.store import open_store


def preflight(config: RunConfig) -> RunConfig:
    """Check files, model, template, engine, judge and store; returns the configuration with `auto` engines decided.

    Raises ConfigError, DataError, BackendError or StoreError with the place, the value and the remedy. Rows of the
    files are checked by the first stage, before any model is loaded.
    """
    open_store(config.store_path)
    write_bootstrap_files(config)
    source_files(config)
    if config.policy.model is not None:
        _check_model(config, config.policy.model)
    _check_judges(config)
    if config.refine.teacher is not None:
        teacher_policy(config.refine.teacher)
    return _with_engines(config)


def check_corpus(config: RunConfig, corpus: Corpus) -> None:
    """Check that every iteration finds prompts and evaluation finds questions, before any model is loaded.

    Raises ConfigError with the numbers and the remedy.
    """
    if not corpus.held_out.rows:
        raise ConfigError("prompts.held_out: no prompt is held out; raise `fraction` or give `sources`")
    settings, there = config.prompts, corpus.prompts.rows
    taken = (config.iterations - 1) * (settings.per_iteration or there)
    if not settings.reuse and taken >= there:
        raise ConfigError(
            f"prompts.per_iteration = {settings.per_iteration!r}: {config.iterations} iterations of fresh prompts leave "
            f"none for the last, there are {there:,}; lower it, add prompts, set prompts.reuse, or lower iterations"
        )


def check_secrets(config: RunConfig) -> None:
    """Check that every API key that Prefect is to hold is there and can be used; asks the Prefect server.

    Raises ConfigError or BackendError.
    """
    from tasks.engines import read_secret  # brings Prefect, which a plan needn't wait for

    for engine in _endpoints(config):
        if engine.api_key_secret:
            key = read_secret(engine.api_key_secret)
            for url in engine.base_urls:
                check_key(key, url, f"the API key in the Prefect Secret block {engine.api_key_secret!r}")


def _check_model(config: RunConfig, model: str) -> None:
    from rlrf.backends.model_info import check_model

    info = check_model(resolve_model(model))
    longest = max(config.explore.max_tokens, config.refine.max_tokens, config.evaluate.max_tokens)
    if info.context_length is not None and longest >= info.context_length:
        raise ConfigError(
            f"max_tokens = {longest!r} leaves no room for a prompt in the context of {model!r}, "
            f"{info.context_length} tokens; lower it in explore, refine and evaluate"
        )


def _with_engines(config: RunConfig) -> RunConfig:
    """What `auto` stands for here; the keys that name environment variables are looked up."""
    teacher = config.refine.teacher
    changes: dict[str, object] = {
        "engine": resolve(config.engine),
        "judge": with_engines(config.judge, resolve),
        "observers": tuple(with_engines(judge, resolve) for judge in config.observers),
    }
    if teacher is not None:
        seen = teacher.model_copy(update={"engine": resolve(teacher.engine)})
        changes["refine"] = config.refine.model_copy(update={"teacher": seen})
    for engine in _endpoints(config):
        for url in checked_urls(engine.base_urls):
            if engine.api_key_env:
                read_key(engine.api_key_env, url)
    return config.model_copy(update=changes)


def _endpoints(config: RunConfig) -> list[Endpoint]:
    engines = [config.engine, *([config.refine.teacher.engine] if config.refine.teacher else [])]
    engines += [engine for judge in _judges(config) for engine in engines_of(judge)]
    return [engine for engine in engines if isinstance(engine, Endpoint)]


def _judges(config: RunConfig) -> list[JudgeConfig]:
    """Everyone who says something of a response."""
    return [config.judge, *([config.reward] if config.reward else []), *config.observers]


def _check_judges(config: RunConfig) -> None:
    for judge in _judges(config):
        judging.described(judge)
    aspects = judging.described(config.judge).aspects
    if config.evaluate.aspect not in aspects:
        raise ConfigError(f"evaluate.aspect = {config.evaluate.aspect!r} is none of the judge's aspects {aspects!r}")
