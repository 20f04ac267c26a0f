"""What a browser hands over when a passkey is made or used: WebAuthn's JSON form, checked for shape and size.

Source: WebAuthn Level 3 section 5.1 (RegistrationResponseJSON, AuthenticationResponseJSON).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Base64Url = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]*$")]
CredentialId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,1364}$")]  # at most 1023 bytes
PasskeyName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=r"^\P{C}+$")]

_EXAMPLE_ID = "q83vEjRWeJCrze8SNFZ4kA"
_EXAMPLE_CLIENT_DATA = "eyJ0eXBlIjoid2ViYXV0aG4uZ2V0IiwiY2hhbGxlbmdlIjoiLi4uIiwib3JpZ2luIjoiLi4uIn0"


class MadeResponse(BaseModel):
    """The response part of a registration."""

    client_data: Base64Url = Field(alias="clientDataJSON", max_length=8192, examples=[_EXAMPLE_CLIENT_DATA])
    attestation_object: Base64Url = Field(alias="attestationObject", max_length=16384, examples=["o2NmbXRkbm9uZQ"])
    transports: list[Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,32}$")]] = Field(
        default=[], max_length=10, examples=[["internal", "hybrid"]]
    )


class MadePasskey(BaseModel):
    """A new passkey as `navigator.credentials.create` gives it; base64url throughout."""

    model_config = ConfigDict(extra="ignore")

    id: CredentialId = Field(examples=[_EXAMPLE_ID])
    raw_id: CredentialId = Field(alias="rawId", examples=[_EXAMPLE_ID])
    type: Literal["public-key"]
    response: MadeResponse


class UsedResponse(BaseModel):
    """The response part of an assertion."""

    client_data: Base64Url = Field(alias="clientDataJSON", max_length=8192, examples=[_EXAMPLE_CLIENT_DATA])
    authenticator_data: Base64Url = Field(alias="authenticatorData", max_length=2048, examples=["SZYN5YgOjGh0NBcPZ"])
    signature: Base64Url = Field(max_length=2048, examples=["MEUCIQDT"])
    user_handle: Base64Url | None = Field(default=None, alias="userHandle", max_length=128, examples=["3q2-7w"])


class UsedPasskey(BaseModel):
    """An assertion as `navigator.credentials.get` gives it; base64url throughout."""

    model_config = ConfigDict(extra="ignore")

    id: CredentialId = Field(examples=[_EXAMPLE_ID])
    type: Literal["public-key"]
    response: UsedResponse


def to_base64url(data: bytes) -> str:
    """Without padding, as browsers write it."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def from_base64url(text: str) -> bytes:
    """The bytes of that one spelling; raises ValueError for any other."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64url: {error}") from None
    if to_base64url(data) != text:
        raise ValueError("not the one spelling of these bytes in base64url")
    return data
