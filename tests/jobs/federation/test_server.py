"""Calls to hospitals over NVFlare: its own result queues, filled as its dispatcher fills them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from nvflare.collab.api.exceptions import CollabCallError
from nvflare.collab.api.group_call_context import ResultWaiter

from jobs.errors import UNREACHABLE, SiteError, SiteRefused
from jobs.federation import server
from jobs.federation.server import CollabTransport

Outcome = Callable[[ResultWaiter, str], object]


def answers(value: object) -> Outcome:
    return lambda waiter, site: waiter.set_result(site, value)


def fails(cause: Exception | str) -> Outcome:
    return lambda waiter, site: waiter.set_failure(site, CollabCallError(site, "handle", cause))


def never_ends(waiter: ResultWaiter, site: str) -> None:
    """It answered, and died while NVFlare fetched the rest of the answer."""


@dataclass
class Client:
    name: str
    outcome: Outcome


@dataclass
class Context:
    aborted: bool = False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def is_aborted(self) -> bool:
        return self.aborted


class Group:
    """NVFlare's group of one hospital: the call returns at once, its outcome comes from another thread."""

    def __init__(self, context: Context, clients: list[Client], option: object) -> None:
        self._context = context
        (self._client,) = clients

    def handle(self, **request: Any) -> Any:
        name = self._client.name
        self._context.asked.append((name, request))
        waiter = ResultWaiter([name], retain_history=False)
        threading.Thread(target=self._client.outcome, args=(waiter, name)).start()
        return waiter.results


@pytest.fixture(autouse=True)
def seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "group", Group)
    monkeypatch.setattr(server, "GRACE_S", 0.0)


def call(*clients: Client, context: Context | None = None, sites: tuple[str, ...] = ()) -> dict[str, Any]:
    transport = CollabTransport(context or Context(), clients)
    names = sites or tuple(client.name for client in clients)
    return dict(transport.call("round", {name: {"number": 1} for name in names}, timeout_s=0.3))


def test_each_hospital_is_asked_and_its_answer_taken() -> None:
    context = Context()
    got = call(Client("amstel", answers({"a": 1})), Client("geul", answers({"g": 2})), context=context)
    assert got == {"amstel": {"a": 1}, "geul": {"g": 2}}
    assert context.asked == [(name, {"method": "round", "message": {"number": 1}}) for name in ("amstel", "geul")]


def test_a_hospital_that_dies_while_it_answers_holds_nobody_up() -> None:
    got = call(Client("amstel", never_ends), Client("geul", answers({"g": 2})))
    assert got["geul"] == {"g": 2}
    assert got["amstel"].code == UNREACHABLE
    assert "did not arrive in full within 0.3 s" in str(got["amstel"])


@pytest.mark.parametrize(
    ("outcome", "aborted", "told"),
    [
        (fails(TimeoutError("late")), False, "took over 0.3 s (TimeoutError)"),
        (fails("remote call returned rc='target_unreachable'"), False, "the call failed or took over"),
        (fails(RuntimeError("aborted")), True, "NVFlare ended the job"),
    ],
)
def test_a_call_that_fails_is_an_error_of_that_hospital(outcome: Outcome, aborted: bool, told: str) -> None:
    got = call(Client("amstel", outcome), context=Context(aborted=aborted))
    assert isinstance(got["amstel"], SiteError)
    assert got["amstel"].code == UNREACHABLE
    assert told in str(got["amstel"])


def test_who_was_not_connected_is_not_waited_for() -> None:
    got = call(Client("amstel", answers({})), sites=("amstel", "berkel"))
    assert got["amstel"] == {}
    assert "was not connected when this job began" in str(got["berkel"])


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "bad-answer"),
        ([1], "bad-answer"),
        ({"error": "text"}, "bad-answer"),
        ({"error": {"code": "data"}}, "bad-answer"),
        ({"error": {"code": "data", "detail": "not ready"}}, "data"),
    ],
)
def test_what_is_no_message_is_an_error(value: object, code: str) -> None:
    got = call(Client("amstel", answers(value)))
    assert isinstance(got["amstel"], SiteError)
    assert got["amstel"].code == code


def test_a_signed_refusal_stays_one() -> None:
    refused = {"error": {"code": "over-budget", "detail": "no", "refusal": {"statement": {}}}}
    got = call(Client("amstel", answers(refused)))
    assert isinstance(got["amstel"], SiteRefused)
    assert got["amstel"].refusal == {"statement": {}}
