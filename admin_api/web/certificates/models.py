"""Certificates as the API and the pages show them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class HeldCertificate(BaseModel):
    """A certificate and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    entry: int = Field(examples=[4], description="the log's entry in which it was issued")
    issued: datetime
    digest: str
    holder: str = Field(examples=["amstel"], description="a hospital's or machine's name, or a person id")
    name: str = Field(examples=["amstel"], description="what the holder is called, as far as that may be shown")
    organisation: str
    role: str = Field(examples=["client"])
    not_before: datetime
    not_after: datetime
    days: int = Field(description="left; negative once it has ended")
    key: str = Field(description="SHA-256 of its public key: the fingerprint that was compared")
    relying_party: str | None = Field(description="of a passkey; null: a key in a file")
    state: str = Field(examples=["good"], description="good, expired, not yet valid, suspended or revoked")
    status_entry: int | None
    status_time: datetime | None
    status_by: str | None
    reason: str
    last: bool = Field(description="the holder has none that ends later")
