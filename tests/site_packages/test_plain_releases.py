"""What a hospital publishes about its data, and comparisons in the clear, which only synthetic data allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives import serialization

from audit.canonical import digest_of
from audit.certificates import CLIENT, certificate_pem
from audit.entry import SITE_MANIFEST, Entry
from audit.statement import DATA_MANIFEST, SignedStatement, verify_statement
from jobs.errors import RunAborted, SiteError, SiteRefused
from jobs.icd_coding.recipe import Hyperparameters
from jobs.leaves import LEAVES, MASKED, NOISY
from jobs.transport import InMemoryTransport, Message
from site_packages.clear_comparison import compare_homes
from site_packages.codes import who_2019
from site_packages.dataset import current_dataset
from site_packages.dhd_import import import_dhd
from site_packages.errors import DataError, DatasetError, SitePackagesError
from site_packages.home import SiteHome
from site_packages.limits import Limits
from site_packages.manifest import MANIFEST_NAME
from site_packages.participant import Participant
from site_packages.plain_releases import data_statement
from site_packages.simulation import Keyring, Simulation, make_keyring
from site_packages.store import store_dataset
from tests.jobs.small_federation import NOW, SITES, WORDS, simulation, small_plan
from tests.site_packages.dhd_tables import Tables, admission, diagnosis, document

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return make_keyring("Delta", ("amstel", "berkel"), now=NOW, valid_days=3650)


def home(folder: Path, keyring: Keyring, name: str = "amstel") -> SiteHome:
    made = SiteHome(folder / name)
    made.create(name, "Ziekenhuis", "Delta")
    startup = made.kit / "startup"
    startup.mkdir(parents=True)
    key, certificate = keyring.sites[name]
    (startup / "client.crt").write_text(certificate_pem(certificate), encoding="ascii")
    (startup / "client.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def imported(made: SiteHome, admissions: int, *, patients: int | None = None, synthetic: bool = False) -> None:
    """A data set with this many admissions, a few years apart, dealt to the patients."""
    folder = made.path / "tables"
    folder.mkdir()
    tables = Tables(folder)
    patients = admissions if patients is None else patients
    tables.admissions, tables.documents, tables.diagnoses = [], [], []
    for number in range(admissions):
        day = f"{2020 + number % 4}-03-{1 + number // 4 % 28:02}"
        patient = {"patient_id": f"p{number % patients}"}
        code = list(WORDS)[number % 2]
        text = f"opname {number} wegens {WORDS[code]}"
        tables.admissions.append(admission(number, admission_date=day, discharge_date=day, **patient))
        tables.documents.append(document(number, publication_date=day, text=text, **patient))
        tables.diagnoses.append(
            diagnosis(number, icd10_diagnosis_code=f"{code}.1" if code == "H25" else code, **patient)
        )
    result = import_dhd(*tables.write(), code_table=who_2019())
    assert len(result.admissions) == admissions
    store_dataset(made.path, result, site=made.identity().name, synthetic=synthetic)


def test_the_statement_is_signed_and_one_the_log_takes(keyring: Keyring, tmp_path: Path) -> None:
    made = home(tmp_path, keyring)
    imported(made, 14, patients=11)
    value = data_statement(made)
    signed = SignedStatement.from_json(value)
    identity = verify_statement(
        signed, keyring.certificates, keyring.root, at=NOW,
        expected_type=DATA_MANIFEST, consortium="Delta", roles=frozenset({CLIENT}),
    )  # fmt: skip
    assert identity.name == signed.statement["site"] == "amstel"
    raw = (current_dataset(made.path) / MANIFEST_NAME).read_bytes()
    assert signed.statement["manifest"] == digest_of(raw)
    assert (signed.statement["admissions"], signed.statement["patients"]) == (14, 11)
    assert (signed.statement["period_first"], signed.statement["period_last"]) == ("2020", "2023")
    Entry(SITE_MANIFEST, NOW, {"site": "amstel", "manifest": value}).to_bytes()
    # Nothing else of the manifest is in it.
    assert set(signed.statement) == {
        "type", "consortium", "time", "site", "manifest", "admissions", "patients", "period_first", "period_last",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("minimum", "admissions", "patients", "published"),
    [
        (10, 9, 9, (None, None)),
        (10, 10, 9, (10, None)),
        (10, 10, 10, (10, 10)),
        (13, 13, 12, (13, None)),
        (0, 9, 8, (None, None)),  # a hospital may be stricter than the log, not looser
        (0, 12, 12, (12, 12)),
    ],
)
def test_small_counts_are_left_out(
    minimum: int, admissions: int, patients: int, published: tuple[int | None, int | None], keyring: Keyring,
    tmp_path: Path,
) -> None:  # fmt: skip
    made = home(tmp_path, keyring)
    imported(made, admissions, patients=patients)
    replace(Limits(), minimum_plain_count=minimum).write(made.path / "limits.json")
    value = data_statement(made)
    assert (value["statement"]["admissions"], value["statement"]["patients"]) == published
    Entry(SITE_MANIFEST, NOW, {"site": "amstel", "manifest": value}).to_bytes()


def test_without_data_there_is_nothing_to_say(keyring: Keyring, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set was imported"):
        data_statement(home(tmp_path, keyring))


def test_wrong_limits_publish_nothing(keyring: Keyring, tmp_path: Path) -> None:
    made = home(tmp_path, keyring)
    imported(made, 12)
    (made.path / "limits.json").write_text(json.dumps({**asdict(Limits()), "minimum_plain_count": "ten"}))
    with pytest.raises(SitePackagesError, match="minimum_plain_count must be"):
        data_statement(made)


# -- everything that leaves --------------------------------------------------------------------------------------


def fields_of(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Every field of a message, as `call.part.field`; a list's elements share the field `[]`."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from fields_of(member, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        yield f"{path}.[]", None
        for member in value:
            yield from fields_of(member, f"{path}.[]")
    else:
        yield path, value


TESTED_ELSEWHERE = ("label-counts.counts.I10", "cosign.answer.size")  # the officer's file, and the log's witness


def unlisted(found: Iterable[str]) -> dict[str, list[str]]:
    """Fields that are not held by exactly one entry of the list, with those that hold them."""
    held = {field: [item.what for item in LEAVES if item.holds(field)] for field in found}
    return {field: items for field, items in held.items() if len(items) != 1}


@pytest.fixture(scope="module")
def federations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """All fields of all answers of runs that train, evaluate, lose a hospital, and are refused."""
    found: dict[str, object] = {}

    def listening(whole: Simulation) -> Simulation:
        def answer(participant: Participant) -> Callable[[str, object], Message]:
            def handle(method: str, message: object) -> Message:
                try:
                    value = participant.handle(method, message)
                except SiteRefused as error:
                    refused = {"code": error.code, "detail": error.detail, "refusal": error.refusal}
                    found.update(fields_of(refused, "error"))
                    raise
                except SiteError as error:
                    found.update(fields_of({"code": error.code, "detail": error.detail}, "error"))
                    raise
                found.update(fields_of(value, method))
                return value

            return handle

        whole.transport = InMemoryTransport({name: answer(each) for name, each in whole.participants.items()})
        return whole

    folder = tmp_path_factory.mktemp("federations")
    plans = {
        "distributed": small_plan(evaluation_sites=SITES),
        "local": small_plan(
            evaluation_sites=SITES[:1],
            noise_mode="local",
            local_steps=2,
            epsilon=50.0,
            feature_mean_noise_multiplier=None,
        ),
    }
    for name, plan in plans.items():
        (folder / name).mkdir()
        listening(simulation(folder / name, plan)).run()
    (folder / "refused").mkdir()
    refusing = listening(simulation(folder / "refused", plans["distributed"], limits=Limits(maximum_rounds=1)))
    with pytest.raises(RunAborted):
        refusing.run()
    return found


def test_every_field_that_leaves_is_on_the_officers_list(federations: dict[str, object]) -> None:
    assert len(federations) > 60  # the federations did answer
    assert unlisted(federations) == {}


def test_a_field_that_is_not_listed_would_be_found(federations: dict[str, object]) -> None:
    for further in ("round.receipt.statement.patients", "join.acceptance.letters", "finish.epsilon", "train.vector"):
        assert unlisted([*federations, further]) == {further: []}


def test_the_list_names_nothing_that_does_not_leave(
    keyring: Keyring, federations: dict[str, object], tmp_path: Path
) -> None:
    made = home(tmp_path, keyring)
    imported(made, 14)
    found = {**federations, **dict(fields_of(data_statement(made), "manifest"))}
    assert unlisted(found) == {}
    for item in LEAVES:
        if item.fields and not any(item.holds(field) for field in TESTED_ELSEWHERE):
            assert any(item.holds(field) for field in found), item.what


def test_what_is_said_to_be_masked_or_noisy_is(federations: dict[str, object]) -> None:
    masked = {field for field in federations if any(x.how == MASKED and x.holds(field) for x in LEAVES)}
    assert masked == {"round.secagg.vector", "round.receipt.statement.masked_upload"}
    for field, value in federations.items():
        noisy = any(item.how == NOISY and item.holds(field) for item in LEAVES)
        if isinstance(value, float) and not noisy:
            # Plain numbers with decimals are the plan's own words, or follow from plans and the officer's budget.
            assert field.startswith(
                (
                    "evaluate.metrics.statement.mechanism.",
                    "round.receipt.statement.privacy_event.",
                    "join.acceptance.statement.budgets.",
                    "evaluate.metrics.statement.budgets.",
                )
            ) or (field == "join.acceptance.statement.epsilon_reserved"), field


# -- comparisons in the clear ------------------------------------------------------------------------------------

RECIPE = Hyperparameters(
    rounds=3,
    sampling_prob=1.0,
    l2_clip_norm=1.0,
    learning_rate=10.0,
    momentum=0.5,
    averaged_rounds=0,
    bias_scale=0.05,
    label_smoothing=0.1,
    centring=True,
)


def test_hospitals_are_compared_on_synthetic_data(keyring: Keyring, tmp_path: Path) -> None:
    amstel, berkel = home(tmp_path, keyring), home(tmp_path, keyring, "berkel")
    for made in (amstel, berkel):
        imported(made, 60, synthetic=True)
    result = compare_homes(
        [amstel.path], [amstel.path, berkel.path], label_space=("H25", "I10"), recipe=RECIPE, features=256
    )
    assert result["admissions"] == {"amstel": 60, "berkel": 60}
    assert set(result["sites"]) == {"amstel", "berkel"}
    assert result["sites"]["amstel"]["pooled"] == result["sites"]["amstel"]["alone"] > 0.8
    assert result["sites"]["berkel"]["alone"] is None
    assert result["sites"]["berkel"]["pooled"] > 0.8


def test_real_data_is_never_put_together(keyring: Keyring, tmp_path: Path) -> None:
    amstel, berkel = home(tmp_path, keyring), home(tmp_path, keyring, "berkel")
    imported(amstel, 12, synthetic=True)
    imported(berkel, 12, synthetic=False)
    with pytest.raises(DatasetError, match="berkel: its data set is not labelled synthetic; nothing was read together"):
        compare_homes([amstel.path], [berkel.path], label_space=("H25", "I10"), recipe=RECIPE, features=256)
