"""Folders of models that stages make: one that is there and not whole doesn't stand in the way of making it again."""

from __future__ import annotations

from pathlib import Path

from rlrf.backends.weights import check_weights, weights_digest
from rlrf.errors import BackendError
from rlrf.handles import Policy
from tasks.progress import StageProgress


def set_aside(progress: StageProgress, folder: Path) -> None:
    """Move a model folder that is only half there out of the way, and say why; it is kept beside it.

    Headers and sizes are looked at, not every byte.
    """
    if not folder.exists():
        return
    try:
        check_weights(folder)
    except BackendError as error:
        places = (folder.with_name(f"{folder.name}.damaged-{n}") for n in range(1, 1000))
        place = next(one for one in places if not one.exists())
        folder.rename(place)
        progress.say(f"{error}. It is kept as {place.name!r}, and made again")


def check_digest(policy: Policy) -> None:
    """Refuse weights that are not those by whose name their responses would be stored.

    Raises:
        BackendError: the folder holds other weights than the policy's, or is not whole.
    """
    found = weights_digest(policy.folder)
    if found != policy.policy_id:
        raise BackendError(
            f"model folder {policy.folder!r} holds the weights {found!r}, not those of policy {policy.name!r}, "
            f"{policy.policy_id!r}: put them back, or remove the folder to have them made again"
        )
