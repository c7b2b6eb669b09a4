"""What a home needs now and then: a published copy for readers, and what nothing needs gone."""

from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from flows.housekeeping import home_of, look, remove
from rlrf.terminal import visible
from storage.snapshots import publish


@flow(name="snapshot-and-gc", flow_run_name="snapshot and gc of {home}", persist_result=False, result_serializer="json")
def snapshot_and_gc(home: Path, dry_run: bool = False) -> dict[str, int]:
    """Publish the store of `home`, then remove leftovers, old checkpoints, logs and copies, and models of no policy.

    `home`: a run's folder, or its TOML file. `dry_run`: say what would go; change nothing. Returns files and bytes.
    """
    store, retention = home_of(home)
    logger = get_run_logger()
    if not dry_run:
        published = publish(store)
        logger.info("snapshot: %s", published.path if published else "another process is publishing one")
    found = look(store, retention)
    for one in found.litter:
        logger.info(
            "%s %s: %s, %s bytes", "would remove" if dry_run else "removes", visible(str(one.path)), one.why, one.size
        )
    for note in found.notes:
        logger.warning("%s", visible(note))
    if not dry_run:
        remove(found)
    return {"files": len(found.litter), "bytes": sum(one.size for one in found.litter)}
