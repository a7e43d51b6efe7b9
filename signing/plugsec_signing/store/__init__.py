"""Installed bundles, content-addressed and read-only: `STORE/sha256/<bundle id>/` and an index per plugin.

    names.py        publisher/name[@version], and what is a file instead
    directories.py  the store's own directories, opened once, checked, and its lock
    index.py        which versions are installed, which one is current, which were before: pure
    sweep.py        what crashes and removals left behind
    changes.py      install, remove, roll back, collect: one lock, one rename each
    stored.py       an installed bundle as evidence: opened, re-hashed, judged anew

docs/formats/store.md describes what lies on the disk. A run of a bundle *file* imports nothing of this.
"""
