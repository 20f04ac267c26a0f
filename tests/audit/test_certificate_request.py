"""Requests for certificates: two people of two organisations agree, as anybody with the log can check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from audit.certificate_request import VALID_FOR, CertificateRequest, approving, check_issued, request_behind
from audit.certification import admit
from audit.entry import CERTIFICATE_ISSUED, OPTIONAL, Entry
from audit.errors import EntryError, ReleaseError, TraceError
from audit.evidence import Evidence
from tests.passkey import SoftwarePasskey

if TYPE_CHECKING:
    from tests.audit.conftest import Holder, Keys, Story
else:
    Holder = Keys = Story = object

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def crowd(keys: Keys) -> Keys:
    """Ada (admin, Consortium) and Bob (officer, Hospital A) can decide; others join in the tests."""
    own = replace(keys, holders={name: keys.holders[name] for name in ("Ada", "Bob", "Carol", "log")},
                  names=dict(keys.names))  # fmt: skip
    own.holders["Olga"] = own.person("Olga", "Consortium", "privacy_officer")  # of Ada's organisation
    own.holders["Abel"] = own.person("Abel", "Statistics", "authority")
    own.holders["Adam"] = own.person("Adam", "Hospital A", "consortium_admin")  # of Bob's organisation
    return own


def begun(told: Story, crowd: Keys, *who: str) -> Story:
    """A log in which these people have certificates, and nothing else happened."""
    story = type(told)(replace(crowd, holders={name: crowd.holders[name] for name in (*who, "log")}))
    story.add(
        "consortium.founded",
        **dict(told.entries[0].body),
    )
    for name in who:
        story.issue(crowd.holders[name])
    return story


def asks(keys: Keys, who: str = "hospital-a") -> tuple[CertificateRequest, Entry]:
    """The request behind a certificate, and the entry that would answer it without a word about approvals."""
    holder = keys.holders[who]
    (entry,) = _issued(keys, holder)
    request = request_behind(entry)
    assert request is not None
    return request, entry


def _issued(keys: Keys, holder: Holder) -> list[Entry]:
    from tests.audit.conftest import Story as Real

    story = Real(keys)
    story.issue(holder)
    return story.entries


def decided(story: Story, crowd: Keys, request: CertificateRequest, who: str, decision: str = "approve") -> None:
    story.keys.holders.setdefault(who, crowd.holders[who])
    story.approve("request", request.digest, who, decision)


def quorum(story: Story, request: CertificateRequest) -> tuple[str, ...]:
    evidence = story.evidence()
    return approving(evidence, request, at=story.now, before=evidence.size)


def test_what_is_approved_follows_from_the_entry(keys: Keys) -> None:
    request, entry = asks(keys)
    assert request.to_json() == {
        "schema": "zegel/certificate-request/v1",
        "kind": "hospital",
        "name": "hospital-a",
        "holder": None,
        "organisation": "hospital_a",
        "role": "client",
        "key": request.key,
        "relying_party": None,
    }
    person, entry = asks(keys, "Bob")
    assert (person.kind, person.name, person.holder) == ("person", None, entry.body["holder"])
    assert len({request.digest, person.digest, replace(person, role="authority").digest}) == 3
    own = replace(keys, holders=dict(keys.holders), names=dict(keys.names))
    own.holders["Pia"] = own.person("Pia", "O", "authority", key=SoftwarePasskey("a.example"))
    passkey, _ = asks(own, "Pia")
    assert (passkey.kind, passkey.relying_party) == ("passkey", "a.example")


def test_two_people_of_two_organisations(told: Story, crowd: Keys, keys: Keys) -> None:
    request, _ = asks(keys)
    story = begun(told, crowd, "Ada", "Bob", "Carol")
    with pytest.raises(ReleaseError, match=r"expected approval by a consortium_admin and by .* got it from nobody"):
        quorum(story, request)
    decided(story, crowd, request, "Ada")
    with pytest.raises(ReleaseError, match=r"got it from person-\w+ \(consortium_admin, Consortium\)"):
        quorum(story, request)
    decided(story, crowd, request, "Carol")  # a release manager: has no say here
    with pytest.raises(ReleaseError, match="got it from person"):
        quorum(story, request)
    decided(story, crowd, request, "Bob")
    assert quorum(story, request) == tuple(sorted(crowd.holders[who].digest for who in ("Ada", "Bob")))
    other, _ = asks(keys, "hospital-b")
    with pytest.raises(ReleaseError, match="got it from nobody"):
        quorum(story, other)


@pytest.mark.parametrize(
    ("people", "approvers", "enough"),
    [
        (("Ada", "Olga", "Bob"), ("Ada", "Olga"), False),  # one organisation
        (("Ada", "Olga", "Bob"), ("Ada", "Olga", "Bob"), True),
        (("Adam", "Bob", "Olga"), ("Adam", "Bob"), False),
        (("Adam", "Bob", "Olga"), ("Adam", "Olga"), True),
        (("Ada", "Abel"), ("Ada", "Abel"), True),  # the authority
        (("Bob", "Abel", "Ada"), ("Bob", "Abel"), False),  # no admin
        (("Ada", "Adam", "Bob"), ("Ada", "Adam"), False),  # admins only
    ],
)
def test_who_suffices(
    told: Story, crowd: Keys, keys: Keys, people: tuple[str, ...], approvers: tuple[str, ...], enough: bool
) -> None:
    request, _ = asks(keys)
    story = begun(told, crowd, *people)
    for who in approvers:
        decided(story, crowd, request, who)
    if enough:
        assert set(quorum(story, request)) == {crowd.holders[who].digest for who in approvers}
    else:
        with pytest.raises(ReleaseError, match="of two organisations, within 30 days; got it from person-"):
            quorum(story, request)


@pytest.mark.parametrize("people", [(), ("Ada",), ("Bob",), ("Ada", "Olga"), ("Adam", "Bob"), ("Carol", "Bob")])
def test_while_nobody_can_the_root_alone_issues(told: Story, crowd: Keys, keys: Keys, people: tuple[str, ...]) -> None:
    request, _ = asks(keys)
    assert quorum(begun(told, crowd, *people), request) == ()


def test_a_refusal_stands_until_it_is_taken_back(told: Story, crowd: Keys, keys: Keys) -> None:
    request, _ = asks(keys)
    story = begun(told, crowd, "Ada", "Bob", "Abel")
    for who, decision in (("Ada", "approve"), ("Bob", "approve"), ("Abel", "refuse")):
        decided(story, crowd, request, who, decision)
    with pytest.raises(ReleaseError, match=r"refused by person-\w+ \(authority, Statistics\)"):
        quorum(story, request)
    decided(story, crowd, request, "Abel")
    assert len(quorum(story, request)) == 3


def test_approvals_expire(told: Story, crowd: Keys, keys: Keys) -> None:
    request, _ = asks(keys)
    story = begun(told, crowd, "Ada", "Bob")
    decided(story, crowd, request, "Ada")
    story.now += VALID_FOR - DAY
    decided(story, crowd, request, "Bob")
    assert len(quorum(story, request)) == 2
    story.now += 2 * DAY
    with pytest.raises(ReleaseError, match=r"within 30 days; got it from person-\w+ \(privacy_officer"):
        quorum(story, request)


def test_whose_certificate_no_longer_counts_has_no_say(told: Story, crowd: Keys, keys: Keys) -> None:
    request, _ = asks(keys)
    story = begun(told, crowd, "Ada", "Bob", "Abel", "Adam")
    for who in ("Ada", "Bob"):
        decided(story, crowd, request, who)
    story.change_status("Bob", "suspended", by="Adam")
    with pytest.raises(ReleaseError, match="got it from person-"):
        quorum(story, request)
    story.change_status("Bob", "reinstated", by="Adam")
    assert len(quorum(story, request)) == 2


def test_nobody_vouches_for_themselves_but_with_their_old_key(told: Story, crowd: Keys) -> None:
    story = begun(told, crowd, "Ada", "Bob")
    again = crowd.person("Ada", "Consortium", "consortium_admin")
    other = crowd.person("Ada", "Consortium", "authority")
    elsewhere = crowd.person("Ada", "Statistics", "consortium_admin")
    for holder, counts in ((again, True), (other, False), (elsewhere, False)):
        request = request_behind(_issued(crowd, holder)[0])
        assert request is not None
        with pytest.raises(ReleaseError, match="got it from nobody"):
            quorum(story, request)
        for who in ("Ada", "Bob"):
            decided(story, crowd, request, who)
        if counts:
            assert len(quorum(story, request)) == 2
        else:  # another admin is needed, and there is none
            with pytest.raises(ReleaseError, match=r"got it from person-\w+ \(privacy_officer, Hospital A\)$"):
                quorum(story, request)


# -- in the log


def answered(entry: Entry, story: Story, approvals: list[str] | None) -> Entry:
    body = dict(entry.body) if approvals is None else {**entry.body, "approvals": approvals}
    return Entry(entry.kind, story.now, body)


def test_the_entry_names_the_approvals_it_rests_on(told: Story, crowd: Keys, keys: Keys) -> None:
    request, entry = asks(keys)
    story = begun(told, crowd, "Ada", "Bob")
    for who in ("Ada", "Bob"):
        decided(story, crowd, request, who)
    expected = list(quorum(story, request))
    evidence = story.evidence()
    admit(evidence, [answered(entry, story, expected)])
    lies: list[tuple[list[str], str]] = [
        ([], "approvals: expected"),
        (expected[:1], "approvals: expected"),
        ([*expected, "sha256:" + "0" * 64], "approvals: expected"),
    ]
    for approvals, message in lies:
        with pytest.raises(TraceError, match=message):
            admit(evidence, [answered(entry, story, approvals)])


def test_issued_without_approvals_is_found(told: Story, crowd: Keys, keys: Keys) -> None:
    request, entry = asks(keys)
    story = begun(told, crowd, "Ada", "Bob")
    for approvals in ([], [crowd.holders["Ada"].digest]):
        with pytest.raises(ReleaseError, match="got it from nobody"):
            admit(story.evidence(), [answered(entry, story, approvals)])
    # Left out, as a log from before the rule would: only before the first entry that has it.
    admit(story.evidence(), [answered(entry, story, None)])
    for who in ("Ada", "Bob"):
        decided(story, crowd, request, who)
    story.entries.append(answered(entry, story, list(quorum(story, request))))
    _, second = asks(keys, "hospital-b")
    with pytest.raises(TraceError, match="expected the approvals it rests on; entry 5 has them"):
        admit(story.evidence(), [answered(second, story, None)])


def test_the_whole_log_is_checked_again(told: Story, crowd: Keys, keys: Keys) -> None:
    """A keeper who appended without asking is found by whoever has the log."""
    _, entry = asks(keys)
    story = begun(told, crowd, "Ada", "Bob")
    story.entries.append(answered(entry, story, []))
    evidence = story.evidence()
    with pytest.raises(ReleaseError, match="got it from nobody"):
        check_issued(evidence, evidence.of_kind(CERTIFICATE_ISSUED))


def test_a_log_from_before_the_rule_is_good(told: Story) -> None:
    evidence = told.evidence()
    assert check_issued(evidence, evidence.of_kind(CERTIFICATE_ISSUED)) == ([], [])
    admit(Evidence(list(enumerate(told.entries))[:-1], told.keys.root), [told.entries[-1]])


Spoil = Callable[[list[str]], object]


@pytest.mark.parametrize(
    "spoil",
    [lambda d: d[0], lambda d: None, lambda d: [*d, d[0]], lambda d: ["Ada"], lambda d: {"approvals": d}],
    ids=["one", "null", "twice", "a name", "an object"],
)
def test_the_field_is_a_list_of_digests(told: Story, keys: Keys, spoil: Spoil) -> None:
    _, entry = asks(keys)
    assert set(OPTIONAL) == {CERTIFICATE_ISSUED}
    with pytest.raises(EntryError, match="approvals"):
        Entry(entry.kind, entry.time, {**entry.body, "approvals": spoil(["sha256:" + "1" * 64])})
    with pytest.raises(EntryError, match="unknown field further"):
        Entry(entry.kind, entry.time, {**entry.body, "approvals": [], "further": []})
