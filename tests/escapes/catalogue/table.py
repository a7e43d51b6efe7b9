"""Every batch of every list, in the order in which a suite plays them: cheap and quiet ones first."""

from catalogue import (
    bundles,
    endings,
    execution,
    files,
    log,
    network,
    processes,
    results,
    system_calls,
    trust,
)
from catalogue.interface import Attack, Batch

BATCHES: tuple[Batch, ...] = tuple(
    batch
    for room in (
        bundles,
        trust,
        log,
        system_calls,
        files,
        execution,
        network,
        processes,
        results,
        endings,
    )
    for batch in room.BATCHES
)
ATTACKS: tuple[Attack, ...] = tuple(attack for batch in BATCHES for attack in batch.attacks)
