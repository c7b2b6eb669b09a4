"""Every error that rlrf raises on purpose, named by the boundary it comes from.

RlrfError
├── ConfigError    (ValueError)    the run's TOML, before anything starts
├── DataError      (ValueError)    a file of prompts, responses or demonstrations
├── StoreError     (RuntimeError)  the DuckDB file: version, damage, disk, lock
├── BackendError   (RuntimeError)  a model folder, a generator or an endpoint
├── TrainingError  (RuntimeError)  the training process
├── StoppedError   (RuntimeError)  a run that ended on purpose: nothing to learn from, a limit passed
└── ReachedError   (RuntimeError)  a run that was to go no further than a stage, which is done

A message names the place, the offending value and the remedy.
"""

from __future__ import annotations


class RlrfError(Exception):
    """Base of every error that rlrf raises on purpose."""


class ConfigError(RlrfError, ValueError):
    """A run's configuration can't be used."""


class DataError(RlrfError, ValueError):
    """A data file can't be read as what the configuration says it is."""


class StoreError(RlrfError, RuntimeError):
    """The store can't be opened, read or written."""


class BackendError(RlrfError, RuntimeError):
    """A model or an endpoint can't be used."""


class TrainingError(RlrfError, RuntimeError):
    """The training process failed."""


class StoppedError(RlrfError, RuntimeError):
    """A run ended on purpose, before its last stage, with the reason."""


class ReachedError(RlrfError, RuntimeError):
    """The stage is done that the run was to go up to; the run is complete."""
