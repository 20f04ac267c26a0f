"""The read model: what pages list and look up, projected from the log, never a source of truth.

`room.ReadingRoom` keeps it up with the log; the other modules read, one per thing that pages are about. Whoever acts
judges the log itself (`audit.evidence`, `audit.release_state`); nothing here is taken as evidence.
"""
