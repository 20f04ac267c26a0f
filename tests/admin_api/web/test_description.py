"""The API against its own description: whatever is sent, the answer is one that the description names.

Requests are made from the OpenAPI document by schemathesis, fitting it and breaking it, as somebody who may do most.
What would start processes outside is only sent what breaks the description.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from admin_api.web.access import ACCESS
from tests.admin_api.web.conftest import URL, Web
from tests.admin_api.web.crew import computing_nothing

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
UNTIL_THE_END = "/events"  # streams
OUTSIDE = ("/api/v1/federation", "/api/v1/runs")  # what starts or stops processes
ENDS_THE_SESSION = ("session.end", "account.sessions.end", "account.session.end")
EXAMPLES = 4  # for each operation and mode; making them costs more than sending them


@pytest.fixture(autouse=True)
def nothing_computed(web: Web) -> Iterator[None]:
    with computing_nothing(web.here.home.path):
        yield


def _signed_in(web: Web, clients: dict[str, TestClient], name: str) -> TestClient:
    roles = ACCESS[name].roles
    role = "consortium_admin" if roles is None or "consortium_admin" in roles else sorted(roles)[0]
    if role not in clients or name in ENDS_THE_SESSION:
        clients[role] = web.signed_in(role, hospital="hospital-1" if role == "hospital_contact" else None)
    return clients[role]


def _try(client: TestClient, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def described(case: schemathesis.Case[Any]) -> None:
        sent = case.as_transport_kwargs(base_url=URL)
        sent.pop("cookies", None)  # the client's own are those of somebody who is signed in
        if isinstance(sent.get("data"), bytes | str):
            sent["content"] = sent.pop("data")
        answer = client.request(**sent)
        case.validate_response(answer, checks=CHECKS)

    described()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_described(web: Web, mode: GenerationMode) -> None:
    description = {name: part for name, part in web.app.openapi().items() if name != "security"}
    schema = schemathesis.openapi.from_dict(description)
    names = {(route.path, method): route.name for route in web.app.state.routes for method in route.methods}
    clients: dict[str, TestClient] = {}
    wrong: list[str] = []
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # an Err fails the test here
        name = names[operation.path, operation.method.upper()]
        outside = operation.path.startswith(OUTSIDE) and operation.method.upper() != "GET"
        if operation.path.endswith(UNTIL_THE_END) or (outside and mode == GenerationMode.POSITIVE):
            continue
        try:
            _try(_signed_in(web, clients, name), operation, mode)
        except Unsatisfiable:
            continue  # nothing about this operation can be broken
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - gathered, so that one run shows all
            wrong.append(f"{operation.label}: {error}")
        tried += 1
    assert not wrong, "\n\n".join(wrong)
    assert tried > 10
