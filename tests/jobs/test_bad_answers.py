"""Lies between a coordinator and a hospital, told to the real ones over the in-memory transport.

What a hospital, or somebody in between, may answer instead: it counts as dropped, and the reason says why. What a
server may ask instead: the hospital refuses, before it computes or pays for anything where the lie comes that early.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.canonical import digest_of
from audit.entry import ROUND_ABORTED, ROUND_COMPLETED, RUN_STARTED, Entry
from audit.statement import SignedStatement, sign_statement
from jobs.errors import RunAborted, RunInterrupted, SiteError
from jobs.transport import Message, Transport
from privacy.secagg.keys import SignedKey
from privacy.secagg.messages import AnnounceRequest, RoundRequest, ShareRequest, UnmaskRequest
from site_packages.limits import TRAINING
from site_packages.simulation import Simulation
from tests.jobs.small_federation import NOW, SITES, Answer, bodies, simulation, small_plan

torch.set_num_threads(1)
THREE = ("amstel", "berkel", "dommel")
OTHER = "sha256:" + 64 * "7"

Change = Callable[[Simulation, dict[str, Any]], Any]
"""Alters dommel's answer in round 2, or gives another."""


def resigned(whole: Simulation, receipt: Mapping[str, Any], signer: str = "dommel", **fields: Any) -> dict[str, Any]:
    """The receipt with other fields and a good signature."""
    statement = {name: value for name, value in {**receipt["statement"], **fields}.items() if value is not ...}
    return sign_statement(statement, *whole.keyring.sites[signer]).to_json()


def field(**fields: Any) -> Change:
    return lambda whole, answer: {**answer, "receipt": resigned(whole, answer["receipt"], **fields)}


def by_another(whole: Simulation, answer: dict[str, Any]) -> Any:
    return {**answer, "receipt": resigned(whole, answer["receipt"], "amstel")}


def by_an_officer(whole: Simulation, answer: dict[str, Any]) -> Any:
    signed = sign_statement(answer["receipt"]["statement"], *whole.keyring.officer)
    return {**answer, "receipt": signed.to_json()}


def signature_of_other_bytes(whole: Simulation, answer: dict[str, Any]) -> Any:
    statement = {**answer["receipt"]["statement"], "ledger_head": OTHER}
    return {**answer, "receipt": {**answer["receipt"], "statement": statement}}


def from_round_one(whole: Simulation, answer: dict[str, Any]) -> Any:
    first = bodies(whole.entries, ROUND_COMPLETED)[0]
    (receipt,) = [each for each in first["receipts"] if each["statement"]["site"] == "dommel"]
    assert SignedStatement.from_json(receipt).statement["round"] == 1
    return {**answer, "receipt": receipt}


def other_vector(vector: Callable[[np.ndarray[Any, Any]], Any]) -> Change:
    """Another vector, with a receipt that agrees with it where that can be said."""

    def change(whole: Simulation, answer: dict[str, Any]) -> Any:
        sent = vector(answer["secagg"]["vector"])
        secagg = {**answer["secagg"], "vector": sent}
        receipt = answer["receipt"]
        if isinstance(sent, np.ndarray):
            receipt = resigned(whole, receipt, masked_upload=digest_of(sent.tobytes()))
        return {"secagg": secagg, "receipt": receipt}

    return change


def secagg(**fields: Any) -> Change:
    return lambda whole, answer: {**answer, "secagg": {**answer["secagg"], **fields}}


def instead(value: Any) -> Change:
    return lambda whole, answer: value


BAD: dict[str, tuple[Change, str]] = {
    "receipt of the round before": (from_round_one, r"round: expected \d+, got 1"),
    "receipt for another round": (field(round=999), r"round: expected \d+, got 999"),
    "round as true": (field(round=True), "round: expected an integer"),
    "receipt of another run": (field(run_id="run-x"), "run_id: expected 'run-2026"),
    "receipt for another plan": (field(plan_hash=OTHER), "plan_hash: expected"),
    "receipt for another model": (field(version_in=OTHER), "version_in: expected"),
    "another upload": (field(masked_upload=OTHER), "masked_upload: expected"),
    "another event": (
        field(privacy_event={"kind": "training-round", "sampling_prob": 1, "noise_multiplier": 9}),
        "privacy_event: expected",
    ),
    "another manifest than it joined with": (field(manifest=OTHER), "manifest: expected"),
    "a malformed ledger head": (field(ledger_head="none"), "ledger_head: expected sha256"),
    "no ledger head": (field(ledger_head=...), "missing ledger_head"),
    "another consortium": (field(consortium="Echo"), "expected consortium Delta"),
    "another kind of statement": (field(type="zegel/acceptance/v1"), "expected statement type zegel/receipt/v1"),
    "in another hospital's name": (field(site="amstel"), "site: expected 'dommel', got 'amstel'"),
    "a field of its own": (field(note="x"), r"receipt: unknown field\(s\) note"),
    "a field of 60 KB": (field(note="x" * 60_000), "at most 8192 allowed"),
    "signed by another hospital": (by_another, "signed by amstel, expected dommel"),
    "signed by an officer": (by_an_officer, "expected role client, got privacy_officer"),
    "signature of other bytes": (signature_of_other_bytes, "the signature is not dommel's over these bytes"),
    "a short vector": (other_vector(lambda v: v[:-1]), "expected 1028 coordinates of dommel, got 1027"),
    "a long vector": (other_vector(lambda v: np.append(v, v[:1])), "expected 1028 coordinates of dommel, got 1029"),
    "a vector of floats": (other_vector(lambda v: v.astype(np.float64)), "masked-vector.vector"),
    "a vector of halves": (other_vector(lambda v: v.astype("<u4")), "expected uint64 of dommel, got uint32"),
    "a matrix": (other_vector(lambda v: v.reshape(2, -1)), "masked-vector.vector"),
    "a list": (other_vector(lambda v: v.tolist()), "masked-vector.vector"),
    "another hospital's name on it": (secagg(site="amstel"), "names amstel as its sender"),
    "a vector of another round": (secagg(round=1), r"expected round \d+, got 1"),
    "no shares": (secagg(shares={}), "shares"),
    "an unknown field": (secagg(extra=1), "unknown field"),
    "no receipt": (lambda whole, answer: {"secagg": answer["secagg"]}, "signed statement: expected exactly"),
    "a receipt of text": (lambda whole, answer: {**answer, "receipt": "x"}, "signed statement: expected exactly"),
    "no message": (lambda whole, answer: {"receipt": answer["receipt"]}, "expected a dict, got NoneType"),
    "an empty answer": (instead({}), "expected a dict, got NoneType"),
    "text": (instead("garbage"), r"answered with str, expected a message"),
    "bytes": (instead(b"\x80\x04garbage"), r"answered with bytes, expected a message"),
    "nothing": (instead(None), r"answered with NoneType, expected a message"),
    "a list of answers": (instead([{}]), r"answered with list, expected a message"),
    "a number in place of a message": (instead({"secagg": 5, "receipt": 5}), "expected a dict, got int"),
}


@dataclass(frozen=True)
class Rounds:
    """A run in which what passes between the coordinator and dommel in round r, from 2 on, is bad in way r - 2."""

    simulation: Simulation
    changed: tuple[int, ...]
    log: list[str]


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """What the coordinator's log says."""
    log: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("jobs")
    logger.addHandler(handler)
    try:
        yield log
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def bad_rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    changed: list[int] = []
    holder: list[Simulation] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        if (method, site) == ("round", "dommel") and (number := request["secagg"]["round"]) > 1:
            assert isinstance(answer, dict)
            changed.append(number)
            return list(BAD.values())[number - 2][0](holder[0], answer)
        return answer

    plan = small_plan(dropouts=1, rounds=len(BAD) + 1, noise_multiplier=20.0, feature_mean_noise_multiplier=None)
    holder.append(simulation(tmp_path_factory.mktemp("run"), plan, alter=alter))
    with told() as log:
        holder[0].run()
    yield Rounds(holder[0], tuple(changed), log)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_answer_is_a_dropped_hospital(case: str, bad_rounds: Rounds) -> None:
    number = list(BAD).index(case) + 2
    assert bad_rounds.changed.count(number) == 1  # each time it was asked again, from the start
    body = bodies(bad_rounds.simulation.entries, ROUND_COMPLETED)[number - 1]
    assert body["round"] == number
    assert (body["participants"], body["dropped"]) == (["amstel", "berkel", "geul"], ["dommel"])
    (told,) = [line for line in bad_rounds.log if f"round {number}:" in line]
    assert "dommel: " in told
    assert re.search(BAD[case][1], told), told
    Entry(ROUND_COMPLETED, NOW, body).to_bytes()


def test_bad_answers_leave_the_chain_whole(bad_rounds: Rounds) -> None:
    rounds = bodies(bad_rounds.simulation.entries, ROUND_COMPLETED)
    version = bad_rounds.simulation.plan.initial_version
    for body in rounds:
        assert body["version_in"] == version
        version = body["version_out"]
    assert rounds[0]["dropped"] == []
    assert len(rounds) == len(BAD) + 1


def test_without_dropouts_a_bad_answer_ends_the_run(tmp_path: Path) -> None:
    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        return "garbage" if (method, site) == ("round", "dommel") else real()

    whole = simulation(tmp_path, small_plan(sites=THREE, rounds=1), alter=alter)
    with pytest.raises(RunInterrupted, match=r"round 1: .*masked vectors: 2 hospitals left"):
        whole.run()
    (body,) = bodies(whole.entries, ROUND_ABORTED)
    assert (body["participants"], body["dropped"]) == (["amstel", "berkel"], ["dommel"])
    assert "dommel: answered with str, expected a message [bad-answer]" in body["reason"]


Asked = Callable[[dict[str, Any]], dict[str, Any]]
"""Alters what dommel is asked; gets and returns a whole request."""


def keyed(kind: type[ShareRequest | RoundRequest], field: str, change: Callable[[dict[str, SignedKey]], Any]) -> Asked:
    """Other keys in a directory."""

    def alter(request: dict[str, Any]) -> dict[str, Any]:
        message = kind.from_message(request["secagg"])
        fields = {name: dict(value) for name, value in vars(message).items() if isinstance(value, Mapping)}
        fields[field] = change(fields[field])
        return {**request, "secagg": kind(round=message.round, **fields).to_message()}

    return alter


def asked(**fields: Any) -> Asked:
    return lambda request: {**request, "secagg": {**request["secagg"], **fields}}


def another_model(request: dict[str, Any]) -> dict[str, Any]:
    return {**request, "model": request["model"] + b" "}


def unmasking(change: Callable[[UnmaskRequest], dict[str, Any]]) -> Asked:
    def alter(request: dict[str, Any]) -> dict[str, Any]:
        message = UnmaskRequest.from_message(request["secagg"])
        return {**request, "secagg": UnmaskRequest(**{**vars(message), **change(message)}).to_message()}

    return alter


def swapped(keys: dict[str, SignedKey]) -> dict[str, SignedKey]:
    """Amstel's key under berkel's name."""
    return {**keys, "berkel": keys["amstel"]}


SERVER_LIES: dict[str, tuple[str, Asked, str]] = {
    "another model": ("round", another_model, "model-differs"),  # first, so that every later round has a set-up
    "a round it masked": ("announce", asked(round=1), r"server: asks for round 1, but dommel masked round \d+ before"),
    "a swapped channel key": (
        "share_keys",
        keyed(ShareRequest, "channel_keys", swapped),
        "berkel: its channel key does not verify",
    ),
    "a swapped mask key": (
        "share_keys",
        keyed(ShareRequest, "mask_keys", swapped),
        "berkel: its mask key does not verify",
    ),
    "another key for itself": (
        "share_keys",
        keyed(ShareRequest, "mask_keys", lambda keys: {**keys, "dommel": keys["berkel"]}),
        "server: another mask key is given out for dommel",
    ),
    "a swapped key in the round": (
        "round",
        keyed(RoundRequest, "mask_keys", swapped),
        "berkel: its mask key does not verify",
    ),
    "too few participants": (
        "round",
        keyed(RoundRequest, "mask_keys", lambda keys: {site: keys[site] for site in ("amstel", "dommel")}),
        "expected at least 3 hospitals, got 2",
    ),
    "a round beyond the plan": ("round", asked(round=999), "the plan has rounds 1 to"),
    "no keys": ("round", asked(mask_keys=b""), "dommel itself is missing"),
    "a forged survivors' set": ("survivors", asked(survivors=["amstel", "dommel", "geul"]), "they differ in: berkel"),
    "a survivor said to have dropped": (
        "survivors",
        asked(survivors=["amstel", "dommel"], dropped=["berkel", "geul"]),
        "the sum would carry too little noise",
    ),
    "itself said to have dropped": (
        "survivors",
        asked(survivors=["amstel", "berkel", "geul"], dropped=["dommel"]),
        "names dommel as dropped and asks for its signature",
    ),
    "a forged signature": (
        "unmask",
        unmasking(lambda r: {"signatures": {**r.signatures, "berkel": bytes(64)}}),
        "berkel: its survivors' set does not verify",
    ),
    "too few signatures": (
        "unmask",
        unmasking(lambda r: {"signatures": {site: r.signatures[site] for site in ("amstel", "dommel")}}),
        "expected at least 3 signatures",
    ),
    "both kinds of a survivor's shares": (
        "unmask",
        unmasking(lambda r: {"mask_key_shares": {"berkel": r.self_mask_shares["berkel"]}}),
        "never both of one hospital",
    ),
    "garbage": ("unmask", lambda request: {"secagg": b"\x80\x04garbage"}, "secagg-unmask-request: expected a dict"),
    "nothing": ("survivors", lambda request: {}, "expected a dict, got NoneType"),
}


class LyingServer:
    """Asks dommel for something else: in round r, from 2 on, what the lie r - 2 says."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.told: list[int] = []

    def call(self, method: str, requests: Mapping[str, Message], *, timeout_s: float) -> Mapping[str, Answer]:
        sent = dict(requests)
        if isinstance(body := sent.get("dommel", {}).get("secagg"), dict) and body["round"] > 1:
            lie_method, alter, _ = list(SERVER_LIES.values())[body["round"] - 2]
            if method == lie_method:
                self.told.append(body["round"])
                sent["dommel"] = alter(dict(sent["dommel"]))
        return self._inner.call(method, sent, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def lied_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    plan = small_plan(
        dropouts=1, rounds=len(SERVER_LIES) + 1, noise_multiplier=20.0, feature_mean_noise_multiplier=None
    )
    liars: list[LyingServer] = []

    def wrap(inner: Transport) -> Transport:
        liars.append(LyingServer(inner))
        return liars[-1]

    whole = simulation(tmp_path_factory.mktemp("run"), plan, wrap=wrap)
    with told() as log:
        whole.run()
    yield Rounds(whole, tuple(liars[0].told), log)


@pytest.mark.parametrize("case", SERVER_LIES)
def test_a_hospital_refuses_what_a_lying_server_asks(case: str, lied_to: Rounds) -> None:
    number = list(SERVER_LIES).index(case) + 2
    method, _, reason = SERVER_LIES[case]
    whole = lied_to.simulation
    assert lied_to.changed.count(number) == 1
    (told,) = [line for line in lied_to.log if f"round {number}:" in line]
    assert re.search(f"dommel: .*{reason}", told), told
    body = bodies(whole.entries, ROUND_COMPLETED)[number - 1]
    # Before the vector it has neither computed nor paid; after it, its vector is in the sum that the others open.
    paid = method in ("survivors", "unmask")
    assert ("dommel" in body["participants"]) == paid
    assert (f"round {number}" in whole.ledgers["dommel"].committed(whole.run_id, TRAINING)) == paid
    assert set(THREE) - {"dommel"} <= set(body["participants"])


class PowerCut(BaseException):
    """Ends the coordinator at once."""


def test_a_round_replayed_to_a_resumed_run_is_refused(tmp_path: Path) -> None:
    """The coordinator dies in round 3 and comes back with an older state: nobody answers round 3 again."""
    cut = [True]

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if method == "survivors" and request["secagg"]["round"] == 3 and cut:
            cut.clear()
            raise PowerCut
        return real()

    whole = simulation(tmp_path, small_plan(rounds=3), alter=alter)
    with pytest.raises(PowerCut):
        whole.run()
    spent = {site: whole.ledgers[site].committed(whole.run_id, TRAINING) for site in SITES}
    assert all("round 3" in rounds for rounds in spent.values())
    kept = whole.states.pop()  # the announcement of round 3 is forgotten
    assert (kept.announced, whole.states[-1].announced) == (3, 2)
    with pytest.raises(RunInterrupted, match="amstel: last_round: expected a round up to 2, got 3"):
        whole.run()
    for site in SITES:  # nor where the server does not ask how far they are
        with pytest.raises(SiteError, match=f"server: asks for round 3, but {site} masked round 3 before"):
            whole.participants[site].handle("announce", {"secagg": AnnounceRequest(round=3).to_message()})
    assert spent == {site: whole.ledgers[site].committed(whole.run_id, TRAINING) for site in SITES}
    whole.states.append(kept)
    whole.run()
    assert [body["round"] for body in bodies(whole.entries, ROUND_ABORTED)] == [3]
    assert [body["round"] for body in bodies(whole.entries, ROUND_COMPLETED)] == [1, 2, 4]


class Swapping:
    """A transport that mixes up two hospitals' answers to one method."""

    def __init__(self, inner: Transport, swapped: str) -> None:
        self._inner = inner
        self._swapped = swapped

    def call(self, method: str, requests: Mapping[str, Message], *, timeout_s: float) -> Mapping[str, Answer]:
        answers = dict(self._inner.call(method, requests, timeout_s=timeout_s))
        if method == self._swapped:
            answers["amstel"], answers["dommel"] = answers["dommel"], answers["amstel"]
        return answers


@pytest.mark.parametrize("method", ["announce", "share_keys", "round", "survivors", "unmask"])
def test_swapped_answers_are_both_refused(method: str, tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(sites=THREE, rounds=1), wrap=lambda inner: Swapping(inner, method))
    with pytest.raises(RunInterrupted, match=r"round 1: .*1 hospitals left") as stopped:
        whole.run()
    for site in ("amstel", "dommel"):
        assert f"{site}: " in str(stopped.value)
    assert not bodies(whole.entries, ROUND_COMPLETED)
    aborted = bodies(whole.entries, ROUND_ABORTED)
    # Before the vectors were asked for, the round has not begun and may still be.
    assert len(aborted) == int(method not in ("announce", "share_keys"))
    if method == "round":
        assert aborted[0]["dropped"] == ["amstel", "dommel"]


def test_swapped_acceptances_start_nothing(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(sites=THREE), wrap=lambda inner: Swapping(inner, "join"))
    with pytest.raises(RunAborted, match=r"amstel: its acceptance does not hold: signed by dommel.*dommel: its"):
        whole.run()
    assert not bodies(whole.entries, RUN_STARTED)


def test_swapped_metrics_are_not_logged(tmp_path: Path) -> None:
    plan = small_plan(sites=THREE, rounds=1, evaluation_sites=("amstel", "dommel"))
    whole = simulation(tmp_path, plan, wrap=lambda inner: Swapping(inner, "evaluate"))
    with pytest.raises(RunInterrupted, match=r"amstel: its metrics do not hold: signed by dommel, expected amstel"):
        whole.run()
    assert [kind for kind, _ in whole.entries][-1] == "run.finished"


ACCEPTANCES: dict[str, tuple[Change, str]] = {
    "text": (instead("yes"), "answered with str"),
    "empty": (instead({}), "its acceptance does not hold: .*expected exactly"),
    "no manifest": (
        lambda whole, answer: {"acceptance": resigned(whole, answer["acceptance"], manifest=...)}, "missing manifest",
    ),
    "another plan": (
        lambda whole, answer: {"acceptance": resigned(whole, answer["acceptance"], plan_hash=OTHER)}, "plan_hash",
    ),
    "another run": (
        lambda whole, answer: {"acceptance": resigned(whole, answer["acceptance"], run_id="x")}, "run_id: expected",
    ),
    "by another": (
        lambda whole, answer: {"acceptance": resigned(whole, answer["acceptance"], "amstel")}, "signed by amstel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTANCES)
def test_a_bad_acceptance_starts_nothing(case: str, tmp_path: Path) -> None:
    change, reason = ACCEPTANCES[case]
    holder: list[Simulation] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        return change(holder[0], dict(answer)) if (method, site) == ("join", "dommel") else answer  # type: ignore[arg-type]

    holder.append(simulation(tmp_path, small_plan(sites=THREE), alter=alter))
    with pytest.raises(RunAborted, match=f"dommel: .*{reason}"):
        holder[0].run()
    assert holder[0].entries == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (instead("x"), "answered with str"),
        (instead({"metrics": 1}), "its metrics do not hold"),
        (lambda whole, answer: {"metrics": resigned(whole, answer["metrics"], version=OTHER)}, "version: expected"),
        (lambda whole, answer: {"metrics": resigned(whole, answer["metrics"], values={"hit@1": 0.5})}, "values.hit@1"),
    ],
)
def test_bad_metrics_are_not_logged(change: Change, reason: str, tmp_path: Path) -> None:
    holder: list[Simulation] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        assert not isinstance(answer, SiteError)
        return change(holder[0], answer) if method == "evaluate" else answer

    plan = small_plan(sites=THREE, rounds=1, evaluation_sites=("dommel",))
    holder.append(simulation(tmp_path, plan, alter=alter))
    with pytest.raises(RunInterrupted, match=f"dommel: .*{reason}"):
        holder[0].run()
    assert [kind for kind, _ in holder[0].entries][-1] == "run.finished"
