"""The audit room: a transparency log of a consortium's work and the offline proof of a release.

Nothing heavy is imported here. The verifier (`audit.verify`) needs `cryptography` and `rfc8785` only; the
log's keeper (`audit.store`) also needs SQLModel.
"""
