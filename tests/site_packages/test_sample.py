"""The synthetic sample: repeatable, labelled, importable, and not decided by single words."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from site_packages.codes import who_2019
from site_packages.dhd_import import import_dhd
from site_packages.errors import SampleError
from site_packages.icd10 import chapter_of
from site_packages.sample import tables as sample_tables
from site_packages.sample.condition import conditions
from site_packages.sample.hospital import HospitalSample, SampleAdmission, generate_hospital
from site_packages.sample.letter_text import MARK
from site_packages.sample.tables import write_sample

SEED = 20261122


@cache
def hospital(number: int) -> HospitalSample:
    return generate_hospital(SEED, number, hospitals=4, admissions=700)


@cache
def pooled() -> tuple[tuple[SampleAdmission, ...], tuple[SampleAdmission, ...]]:
    """Admissions of hospitals 1 to 3, parted by patient into training and test."""
    train: list[SampleAdmission] = []
    test: list[SampleAdmission] = []
    for number in (1, 2, 3):
        for admission in hospital(number).admissions:
            side = hashlib.sha256(admission.patient_id.encode()).digest()[0]
            (test if side < 64 else train).append(admission)
    return tuple(train), tuple(test)


def text_of(admission: SampleAdmission) -> str:
    return "\n".join(letter.text for letter in admission.letters).lower()


def words_of(admission: SampleAdmission) -> set[str]:
    return set(re.findall(r"\w+", text_of(admission)))


def test_vocabulary_is_of_the_code_table() -> None:
    table = conditions()
    assert len(table) >= 60
    assert len({chapter_of(category) for category in table}) >= 12
    day = hospital(1).admissions[0].date
    for category, condition in table.items():
        assert all(who_2019().check(code, day).category == category for code in condition.codes)
        assert category not in condition.confused
        assert all(other in table for other in condition.confused)


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    sample = generate_hospital(7, 1, hospitals=2, admissions=50)
    digest = hashlib.sha256(repr(sample).encode()).hexdigest()
    assert (
        digest == "b39b73d43e1052d6cfcc2b8c150d4ad8657b8b17ef774d0ee91dda3d5739dea3"
    )  # changes when the generator does: then every sample changes
    assert generate_hospital(7, 1, hospitals=5, admissions=50) == sample
    assert generate_hospital(8, 1, hospitals=2, admissions=50) != sample


def test_it_looks_like_day_admissions() -> None:
    for number in (1, 4):
        sample = hospital(number)
        admissions = sample.admissions
        letters = [letter for admission in admissions for letter in admission.letters]
        assert len(admissions) == 700
        assert {admission.date.year for admission in admissions} == {2021, 2022, 2023, 2024, 2025}
        assert {len(admission.letters) for admission in admissions} == {1, 2, 3, 4, 5}
        assert all(len({x.kind for x in a.letters}) == len(a.letters) for a in admissions)
        assert len({letter.kind for letter in letters}) >= 9
        assert all(any(letter.has_admission_id for letter in a.letters) for a in admissions)
        assert 0.05 < sum(not letter.has_admission_id for letter in letters) / len(letters) < 0.3
        assert all(letter.text.startswith(MARK) for letter in letters)
        assert 0.03 <= sum(a.code != a.true_code for a in admissions) / len(admissions) <= 0.08
        assert all(0 <= a.age <= 130 for a in admissions)
        codes_of: dict[str, list[str]] = defaultdict(list)
        for admission in admissions:
            codes_of[admission.patient_id].append(admission.true_code[:3])
        repeated = [codes for codes in codes_of.values() if len(codes) > 1]
        assert len(repeated) > 60
        assert sum(len(set(codes)) > 1 for codes in repeated) > 15


def test_letters_mislead() -> None:
    everything = "\n".join(text_of(admission) for admission in hospital(1).admissions)
    for marker in (
        "geen aanwijzingen voor",
        "moeder had",
        "bekend met",
        "dd ",
        "status na|st. na",
        "bdz|beiderzijds",
    ):
        assert len(re.findall(marker.replace(".", r"\."), everything)) > 20


def test_hospitals_differ_and_the_last_one_is_shifted() -> None:
    shares = []
    for number in (1, 2, 3, 4):
        counts = Counter(admission.code[:3] for admission in hospital(number).admissions)
        shares.append({category: counts[category] / 700 for category in conditions()})
    distances = [sum(abs(a[c] - b[c]) for c in a) / 2 for a in shares for b in shares if a is not b]
    assert min(distances) > 0.15
    assert [hospital(number).shifted for number in (1, 2, 3, 4)] == [False, False, False, True]
    assert not generate_hospital(1, 1, hospitals=1, admissions=5).shifted
    usual = "".join(letter.text for a in hospital(1).admissions for letter in a.letters)
    telegram = "".join(letter.text for a in hospital(4).admissions for letter in a.letters)
    assert "\na/ " in telegram
    assert "\na/ " not in usual


def keyword_accuracy(score: str) -> float:
    """Every class has its one best word of the training letters; the most precise word found decides."""
    train, test = pooled()
    in_class: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    size = Counter(admission.code[:3] for admission in train)
    for admission in train:
        words = words_of(admission)
        overall.update(words)
        in_class[admission.code[:3]].update(words)
    best: dict[str, tuple[float, float, str]] = {}
    for label, counts in in_class.items():
        for word, n in counts.items():
            precision, recall = n / overall[word], n / size[label]
            value = precision * recall if score == "product" else 2 * precision * recall / (precision + recall)
            best[label] = max(best.get(label, (0.0, 0.0, "")), (value, precision, word))
    most = size.most_common(1)[0][0]
    right = 0
    for admission in test:
        words = words_of(admission)
        hits = [(precision, label) for label, (_, precision, word) in best.items() if word in words]
        right += (max(hits)[1] if hits else most) == admission.code[:3]
    return right / len(test)


@pytest.mark.parametrize("score", ["F1", "product"])
def test_one_keyword_per_class_stays_below_60_percent(score: str) -> None:
    assert 0.2 < keyword_accuracy(score) < 0.6


def test_the_titles_words_stay_below_60_percent() -> None:
    _, test = pooled()
    titles = {c: set(re.findall(r"\w{4,}", condition.title.lower())) for c, condition in conditions().items()}
    right = 0
    for admission in test:
        words = words_of(admission)
        overlap = {category: len(words & title) / len(title) for category, title in titles.items()}
        right += max(overlap, key=lambda category: overlap[category]) == admission.code[:3]
    assert right / len(test) < 0.6


def test_all_words_together_tell_much_more_than_one() -> None:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import ComplementNB

    train, test = pooled()
    vectorizer = HashingVectorizer(ngram_range=(1, 2), n_features=2**16, alternate_sign=False, binary=True)
    model = ComplementNB(alpha=0.1).fit(vectorizer.transform([text_of(a) for a in train]), [a.code[:3] for a in train])
    accuracy = model.score(vectorizer.transform([text_of(a) for a in test]), [a.code[:3] for a in test])
    assert accuracy > keyword_accuracy("F1") + 0.15


def test_written_tables_are_imported_without_a_loss(tmp_path: Path) -> None:
    summaries = write_sample(tmp_path / "sample", seed=3, hospitals=2, admissions=120)
    for summary in summaries:
        folder = tmp_path / "sample" / summary.name
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.txt",
            "admissions.csv",
            "diagnoses.csv",
            "documents.csv",
            "truth.csv",
        ]
        assert "SYNTHETIC" in (folder / "README.txt").read_text(encoding="utf-8")
        paths = [folder / f"{name}.csv" for name in ("admissions", "documents", "diagnoses")]
        result = import_dhd(paths[0], paths[1], paths[2], code_table=who_2019())
        assert len(result.admissions) == summary.admissions == 120
        letters = sum(len(admission.letters) for admission in result.admissions)
        assert result.synthetic_letters == letters
        # a letter between two near admissions may belong to neither; every other one is linked
        refused = Counter(rejection.reason for rejection in result.report.rejections)
        assert set(refused) <= {"admission_ambiguous"}
        assert letters + refused["admission_ambiguous"] == summary.letters
        recorded = {admission.admission_id: admission.code for admission in result.admissions}
        with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
            wrong = list(csv.DictReader(file))
        assert len(wrong) == summary.wrong_codes > 0
        assert all(recorded[row["admission_id"]] == row["recorded_code"] != row["true_code"] for row in wrong)


def test_letters_without_an_id_are_linked_to_their_own_admission(tmp_path: Path) -> None:
    sample = generate_hospital(3, 1, hospitals=1, admissions=300)
    write_sample(tmp_path / "s", seed=3, hospitals=1, admissions=300)
    paths = [tmp_path / "s" / "hospital-1" / f"{name}.csv" for name in ("admissions", "documents", "diagnoses")]
    result = import_dhd(paths[0], paths[1], paths[2], code_table=who_2019())
    mine = {(a.admission_id, letter.text) for a in sample.admissions for letter in a.letters}
    linked = {(a.admission_id, letter.text) for a in result.admissions for letter in a.letters}
    assert len(linked - mine) / len(mine) < 0.01


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SampleError, match="not an empty folder"):
        write_sample(tmp_path / "out", seed=1, hospitals=1, admissions=5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_interrupted_sample_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(sample: HospitalSample) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_tables, "_summary", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "out", seed=1, hospitals=1, admissions=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "admissions"), [(0, 5), (3, 5), (1, 0)])
def test_numbers_out_of_range(number: int, admissions: int) -> None:
    with pytest.raises(SampleError):
        generate_hospital(1, number, hospitals=2, admissions=admissions)
