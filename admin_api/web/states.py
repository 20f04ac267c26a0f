"""The words, icons and tones of states: what `c.chip` shows. One line each.

A tone is a colour class of zegel.css (ok, attention, danger, info, neutral) and never speaks alone: the word and the
icon beside it say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from admin_api.web.language import N_


@dataclass(frozen=True)
class State:
    """How a state is shown."""

    word: str  # English; translated where it is shown
    icon: str  # a name of templates/icons.html
    tone: str


TONES = frozenset({"ok", "attention", "danger", "info", "neutral", "accent"})

STATES: Mapping[str, State] = {
    # Releases
    "candidate": State(N_("candidate"), "clock", "info"),
    "certified": State(N_("certified"), "seal", "ok"),
    "superseded": State(N_("superseded"), "up", "neutral"),
    "withdrawn": State(N_("withdrawn"), "stop", "danger"),
    # A hospital's journey
    "invited": State(N_("invited"), "clock", "info"),
    "requested": State(N_("requested"), "clock", "attention"),
    "approved": State(N_("approved"), "check", "ok"),
    "connected": State(N_("connected"), "check", "ok"),
    "data": State(N_("data announced"), "check", "ok"),
    "evaluated": State(N_("evaluated"), "check", "ok"),
    "evaluates": State(N_("evaluates"), "check", "ok"),
    "training": State(N_("training"), "play", "ok"),
    "trains": State(N_("trains"), "play", "ok"),
    # Certificates
    "valid": State(N_("valid"), "check", "ok"),
    "good": State(N_("valid"), "check", "ok"),
    "ends soon": State(N_("expires soon"), "clock", "attention"),
    "not yet valid": State(N_("not valid yet"), "clock", "info"),
    "issued": State(N_("issued"), "seal", "ok"),
    "replaced": State(N_("replaced"), "minus", "neutral"),
    "expiring": State(N_("expires soon"), "clock", "attention"),
    "expired": State(N_("expired"), "cross", "danger"),
    "not-yet-valid": State(N_("not valid yet"), "clock", "info"),
    "suspended": State(N_("suspended"), "pause", "attention"),
    "reinstated": State(N_("reinstated"), "check", "ok"),
    "revoked": State(N_("revoked"), "stop", "danger"),
    # Plans, approvals, acts
    "proposed": State(N_("proposed"), "clock", "info"),
    "refused": State(N_("refused"), "cross", "danger"),
    "signed": State(N_("signed"), "check", "ok"),
    "open": State(N_("open"), "clock", "attention"),
    "set": State(N_("set"), "check", "neutral"),
    # Runs and rounds
    "waiting": State(N_("waiting"), "clock", "attention"),
    "running": State(N_("running"), "play", "info"),
    "started": State(N_("started"), "play", "info"),
    "finished": State(N_("finished"), "check", "ok"),
    "completed": State(N_("completed"), "check", "ok"),
    "aborted": State(N_("aborted"), "cross", "danger"),
    "failed-run": State(N_("failed"), "cross", "danger"),
    "stopped": State(N_("stopped"), "stop", "attention"),
    "resumed": State(N_("resumed"), "play", "info"),
    "accepted": State(N_("accepted"), "check", "ok"),
    "took-part": State(N_("took part"), "check", "ok"),
    "left-out": State(N_("not asked"), "minus", "neutral"),
    "dropped": State(N_("dropped out"), "warning", "attention"),
    # Checks and gates
    "passed": State(N_("passed"), "check", "ok"),
    "failed": State(N_("failed"), "cross", "danger"),
    "not-measured": State(N_("not measured"), "minus", "attention"),
    "verified": State(N_("verified"), "seal", "ok"),
    "unverified": State(N_("not verified"), "warning", "attention"),
    # Accounts, and whether somebody can sign
    "signs": State(N_("signs"), "check", "ok"),
    "waits": State(N_("waits for a certificate"), "clock", "attention"),
    "cannot": State(N_("cannot sign"), "minus", "neutral"),
    "active": State(N_("active"), "check", "ok"),
    "locked": State(N_("locked"), "key", "danger"),
    "ended": State(N_("ended"), "stop", "neutral"),
    # Anything
    "online": State(N_("online"), "check", "ok"),
    "offline": State(N_("offline"), "cross", "attention"),
    "yes": State(N_("yes"), "check", "ok"),
    "no": State(N_("no"), "cross", "neutral"),
    "ok": State(N_("in order"), "check", "ok"),
    "attention": State(N_("needs attention"), "warning", "attention"),
    "danger": State(N_("problem"), "warning", "danger"),
    "info": State(N_("note"), "info", "info"),
    "unknown": State(N_("unknown"), "info", "neutral"),
}

ROLES: Mapping[str, str] = {
    "consortium_admin": N_("consortium admin"),
    "privacy_officer": N_("privacy officer"),
    "release_manager": N_("release manager"),
    "authority": N_("authority"),
    "hospital_contact": N_("hospital contact"),
    "client": N_("hospital"),
    "server": N_("server"),
    "log": N_("log"),
}


def shown(state: str) -> State:
    """How `state` is shown; one that has no line above is shown as it is, in a neutral tone."""
    return STATES.get(state) or State(state.replace("_", " ").replace("-", " "), "info", "neutral")
