"""The dossier's documents: what people and other programs read, made from the evidence by pure functions.

Nothing here imports more than the standard library and the audit room, so that a verifier can make every document
again and compare it byte by byte: a report that disagrees with the evidence cannot be in a dossier.
"""
