"""Every lie in the tables: detected and named, or harmless; never a wrong sum. docs/secure-aggregation.md lists them.

A refused lie is followed by the truth in one test, and by nothing in the other: the one who was lied to goes on in the
first as if nothing had been said, and in the second the others' sum is exact without whoever is missing.
"""

import re
from pathlib import Path

import pytest

from privacy.secagg.errors import SecAggMessageError, SecAggProtocolError
from privacy.secagg.messages import UnmaskAnswer, UnmaskRequest
from tests.privacy.secagg import lies_of_a_coalition, lies_of_a_hospital, lies_of_a_server
from tests.privacy.secagg.lies import ME, PEER, ROUND, SITES, VECTORS, Lie, Scene, Wire, deliver, total

REFUSED = {
    **{f"server: {name}": lie for name, lie in lies_of_a_server.LIES.items()},
    **{f"hospital: {name}": lie for name, lie in lies_of_a_hospital.LIES.items()},
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "secure-aggregation.md"


def _check_refusal(error: Exception, lie: Lie) -> None:
    assert type(error) is lie.error
    if isinstance(error, SecAggProtocolError):
        assert error.peer == lie.named
    else:
        assert isinstance(error, SecAggMessageError)
        assert error.field == lie.named
    assert re.search(lie.says, str(error)), str(error)


@pytest.mark.parametrize("then", ["the truth", "nothing"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_lie_is_refused_and_named_and_the_sum_is_exact(name: str, then: str) -> None:
    lie = REFUSED[name]
    scene = Scene(first_round=lie.replays)
    federation = scene.federation
    told = []

    def tell(site: str, wire: Wire) -> Wire | None:
        if site in lie.missing and wire["type"] == "secagg-round-request":
            return None
        if site != lie.site or wire["type"] != lie.kind:
            return wire
        told.append(site)
        altered = lie.alter(scene, wire)
        if then == "nothing":
            return altered
        with pytest.raises(lie.error) as caught:
            deliver(scene, site, lie.kind, altered)
        _check_refusal(caught.value, lie)
        return wire

    scene.lie = tell
    federation.set_up(ROUND)
    refused = dict(federation.refused)
    aggregate = federation.run_round(VECTORS)
    refused |= federation.refused
    assert told == [lie.site]
    assert aggregate.total.tolist() == total(VECTORS, aggregate.survivors)
    scene.check()
    if then == "the truth":
        assert refused == {}
        assert aggregate.survivors == tuple(s for s in SITES if s not in lie.missing)
        assert federation.server.ready == aggregate.survivors
    else:
        _check_refusal(refused.pop(lie.site), lie)
        assert refused == {}
        assert lie.site not in federation.server.ready  # it comes back by a set-up
    assert aggregate.suspects == ()


@pytest.mark.parametrize("name", lies_of_a_server.SEALED_LIES)
def test_a_sealed_share_that_was_not_asked_for_reveals_nothing(name: str) -> None:
    """The hospital answers for the others; the server sees that it is the loser by the lie."""
    scene = Scene()
    answers: list[UnmaskAnswer] = []

    def tell(site: str, wire: Wire) -> Wire:
        if site == ME and wire["type"] == UnmaskRequest.KIND:
            # Its peers' requests are written, though not sent: the server has them.
            scene.honest |= {(s, UnmaskRequest.KIND): requests[s] for s in requests}
            honest = UnmaskRequest.from_message(wire)
            values = {
                "round": honest.round,
                "signatures": honest.signatures,
                "self_mask_shares": honest.self_mask_shares,
                "mask_key_shares": honest.mask_key_shares,
                "next_round": honest.next_round,
            }
            return UnmaskRequest(**(values | lies_of_a_server.SEALED_LIES[name](scene, honest))).to_message()  # type: ignore[arg-type]
        if site == ME and wire["type"] == UnmaskAnswer.KIND:
            answers.append(UnmaskAnswer.from_message(wire))
        return wire

    requests: dict[str, Wire] = {}
    original = scene.federation.server.unmask_requests

    def unmask_requests(next_round: int | None = None) -> dict[str, UnmaskRequest]:
        made = original(next_round)
        requests.update({site: request.to_message() for site, request in made.items()})
        return made

    scene.federation.server.unmask_requests = unmask_requests  # type: ignore[method-assign]
    scene.lie = tell
    scene.federation.set_up(ROUND)
    aggregate = scene.federation.run_round(VECTORS)
    assert aggregate.total.tolist() == total(VECTORS, SITES)
    assert PEER in answers[0].unreadable
    assert not set(answers[0].unreadable) & set(answers[0].self_mask_shares)
    assert ME in aggregate.suspects  # it or those it cannot read; nobody else can tell
    assert set(answers[0].unreadable) | {ME} >= set(aggregate.suspects)
    scene.check()


@pytest.mark.parametrize("name", lies_of_a_coalition.STORIES)
def test_a_coalition_learns_and_spoils_no_more_than_is_said(name: str) -> None:
    lies_of_a_coalition.STORIES[name]()


def test_the_document_lists_every_lie() -> None:
    """Each row names who lies and, divided by semicolons, the lies; what is told in both phases is named once."""
    listed: dict[str, list[str]] = {}
    for who, lies in re.findall(
        r"^\| (server|hospital|coalition) \| ([^|]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    ):
        listed.setdefault(who, []).extend(lies.split("; "))
    phases = ", in the set-up", ", in the round"
    server = {name.removesuffix(phases[0]).removesuffix(phases[1]) for name in lies_of_a_server.LIES}
    assert {who: sorted(lies) for who, lies in listed.items()} == {
        "server": sorted(server | set(lies_of_a_server.SEALED_LIES)),
        "hospital": sorted(lies_of_a_hospital.LIES),
        "coalition": sorted(lies_of_a_coalition.STORIES),
    }
