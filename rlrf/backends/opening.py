"""From configuration to a backend. What a backend imports is imported when it is opened, not before."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from rlrf.backends.protocols import Generator
from rlrf.config import Endpoint, Engine, Scripted
from rlrf.errors import BackendError


def open_generator(engine: Engine | Endpoint | Scripted, folder: str | Path) -> Generator:
    """A generator of the engine's type for the model in `folder`. Raises BackendError when it can't be opened."""
    if isinstance(engine, Endpoint):
        from rlrf.backends.endpoint import EndpointGenerator

        return EndpointGenerator(
            engine.base_url,
            engine.model,
            api_key_env=engine.api_key_env,
            concurrency=engine.concurrency,
            request_timeout=engine.request_timeout,
            retries=engine.retries,
        )
    if isinstance(engine, Scripted):
        from rlrf.backends.scripted import ScriptedGenerator

        return ScriptedGenerator(_function(engine.reply), batch_size=engine.batch_size)
    from rlrf.backends.local import LocalGenerator

    return LocalGenerator(folder, device=engine.device, dtype=engine.dtype, batch_size=engine.batch_size)


def _function(name: str):  # type: ignore[no-untyped-def]  # the reply's type is ScriptedGenerator's business
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BackendError(f"engine.reply = {name!r}: {error}; write it as `package.module:function`") from error
