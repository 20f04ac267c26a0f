"""What a process of the admin API is told: one object, from the environment (`ZEGEL_...`) or from the caller.

Nothing in the program reads the environment besides this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Where the consortium's folder is, how the pages are reached, and the limits of one process."""

    model_config = SettingsConfigDict(env_prefix="ZEGEL_", frozen=True, extra="forbid")

    home: Path = Field(description="the consortium's folder, as `zegel consortium init` made it")
    public_url: str = Field(
        default="http://localhost:8443",
        description="how browsers reach the pages; passkeys belong to its host name, so it does not change later",
    )
    database_url: str | None = Field(
        default=None,
        description="the pages' own database: none for web.db in the home, or postgresql://user@host/name, no password",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="addresses of reverse proxies whose X-Forwarded-For is believed, comma-separated"
    )
    max_body_bytes: int = Field(default=2 * 1024 * 1024, gt=0, description="the largest request body that is read")
    oidc_issuer: str | None = Field(default=None, description="OpenID Connect issuer, https://...; none: passkeys only")
    oidc_client_id: str | None = Field(default=None, description="this consortium's client id at the issuer")
    oidc_client_secret_file: Path | None = Field(default=None, description="file that holds the client secret")
    oidc_role_claim: str = Field(default="groups", description="claim that holds what oidc_roles maps")
    oidc_roles: dict[str, str] = Field(
        default_factory=dict,
        description="claim value -> role@organisation, or hospital_contact@organisation@hospital; others are refused",
    )
    oidc_domains: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="domains of verified e-mail addresses that may sign in there, comma-separated; none: all",
    )

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        parts = urlsplit(value)
        local = parts.hostname == "localhost"  # passkeys do not work on bare addresses
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"expected a URL such as https://zegel.example, got {value!r}")
        if parts.scheme == "http" and not local:
            raise ValueError(f"{value!r}: without TLS the pages are for localhost only")
        return value.rstrip("/")

    @field_validator("trusted_proxies", "oidc_domains", mode="before")
    @classmethod
    def _addresses(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def secure(self) -> bool:
        """Whether browsers reach the pages over TLS."""
        return self.public_url.startswith("https:")

    @property
    def relying_party(self) -> str:
        """The host name that passkeys are made for (WebAuthn's RP ID)."""
        host = urlsplit(self.public_url).hostname
        if host is None:
            raise ValueError(f"{self.public_url} names no host")
        return host

    @property
    def own_database_url(self) -> str:
        """The URL of the pages' own database."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'web.db'}"
