"""Who holds certificates, how long they last, and whose end needs attention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from admin_api.people import disclosed_now
from audit.canonical import format_time
from audit.certificates import certificate_digest, identity_of, load_certificate
from audit.revocation import REINSTATED, REVOKED, SUSPENDED
from jobs.home import ConsortiumHome
from jobs.standing import Standing, read_standing

WARNING_DAYS = 30
GOOD, EXPIRED, NOT_YET_VALID = "good", "expired", "not yet valid"  # else suspended or revoked


@dataclass(frozen=True)
class Holding:
    """One certificate."""

    name: str
    organisation: str
    role: str  # `root` for the root's own
    digest: str
    ends: datetime
    days: int  # left; negative once it has ended
    state: str
    last: bool  # the holder has none that ends later, suspended and revoked ones aside

    @property
    def warns(self) -> bool:
        """Whether somebody has to renew it soon: good or just ended, no later one, and few days left."""
        return self.last and self.state in (GOOD, EXPIRED) and self.days < WARNING_DAYS

    def to_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "name": self.name,
            "organisation": self.organisation,
            "role": self.role,
            "digest": self.digest,
            "ends": format_time(self.ends),
            "days": self.days,
            "state": self.state,
            "ends_soon": self.warns,
        }


def holdings(home: ConsortiumHome) -> list[Holding]:
    """Every certificate of the consortium, the root's and the log's with it; the one that ends first stands first.

    Raises: AuditError, FederationError when the log or the folder cannot be read.
    """
    now = home.clock()
    standing, said = read_standing(home), disclosed_now(home)
    root = home.root()
    log = load_certificate((home.path / "log.crt").read_bytes())
    certificates = {**standing.certificates, certificate_digest(log): log}
    states = {digest: _state(standing, digest, certificate, now) for digest, certificate in certificates.items()}
    latest: dict[tuple[tuple[str, str], str], datetime] = {}
    for digest, certificate in certificates.items():
        if states[digest] not in (SUSPENDED, REVOKED):
            holder, ends = identity_of(certificate), certificate.not_valid_after_utc
            key = (holder.person, holder.role)
            latest[key] = max(latest.get(key, ends), ends)
    config = home.config()
    found = [
        Holding(
            config.name, config.organisation, "root", certificate_digest(root), root.not_valid_after_utc,
            _days(root.not_valid_after_utc, now), GOOD, last=True,
        )
    ]  # fmt: skip
    for digest, certificate in certificates.items():
        holder, ends = identity_of(certificate), certificate.not_valid_after_utc
        last = ends == latest.get((holder.person, holder.role))
        found.append(
            Holding(
                said.name(holder.name),
                holder.organisation,
                holder.role,
                digest,
                ends,
                _days(ends, now),
                states[digest],
                last=last,
            )
        )
    return sorted(found, key=lambda each: (each.ends, each.name))


def warnings(home: ConsortiumHome) -> list[Holding]:
    """The certificates that somebody has to renew soon."""
    return [each for each in holdings(home) if each.warns]


def warning_line(holding: Holding) -> str:
    """What to do about it, in one line."""
    own = holding.role in ("server", "lead", "log")
    if holding.role == "root":
        step = "the consortium has to be founded anew before"
    elif own:
        step = "`zegel consortium renew-own`"
    elif holding.role == "client":
        step = "the hospital runs `zegel site renew`, you `zegel consortium renew`"
    else:
        step = "they run `zegel person renew`, you `zegel consortium renew`"
    when = f"ended on {holding.ends:%Y-%m-%d}" if holding.days < 0 else f"ends on {holding.ends:%Y-%m-%d}"
    return f"Certificate of {holding.name} ({holding.role}) {when}, {holding.days} days: {step}."


def _state(standing: Standing, digest: str, certificate: x509.Certificate, now: datetime) -> str:
    change = standing.revocations.last(digest)
    if change is not None and change.status != REINSTATED:
        return change.status
    if certificate.not_valid_after_utc < now:
        return EXPIRED
    return NOT_YET_VALID if certificate.not_valid_before_utc > now else GOOD


def _days(ends: datetime, now: datetime) -> int:
    return (ends - now) // timedelta(days=1)
