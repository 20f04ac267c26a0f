"""The audit passes on the code as it is, and fails, naming the right check, on every fault put into it."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from admin_api.cli import app
from audit.canonical import canonical_json, parse_json_object
from jobs.errors import JobError
from jobs.icd_coding import gradient
from jobs.icd_coding.gradient import clipped_gradient_sum
from jobs.icd_coding.model import LinearModel
from jobs.icd_coding.ridge import statistics
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.terms import plan_ridge
from privacy.errors import NoiseError
from privacy.ledger import Ledger
from privacy.noise import discrete_gaussian
from site_packages import local_work, participant, privacy_audit, privacy_audit_plans
from site_packages.errors import SampleError
from site_packages.privacy_audit import FALSE_ALARM, AuditReport, audit
from site_packages.privacy_audit_attack import log_likelihood_ratio, releases, seen_statistics, seen_sum
from site_packages.privacy_audit_canaries import ADMISSIONS, CODES, canary_encoder, separate_words, toss
from site_packages.privacy_audit_commands import MEANING
from site_packages.privacy_audit_plans import Configuration, full, quick
from site_packages.privacy_audit_plot import plot

NOW = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
EVERYBODY, SAMPLED, CENTRED, LOCAL = (
    replace(each, features=1024, canaries=300, rounds=4, noise_multiplier=noise)
    for each, noise in zip(full()[:4], (8.0, 3.0, 8.0, 8.0), strict=True)
)
RIDGE = replace(full()[4], features=256, canaries=150)


def audited(*configurations: Configuration, seed: int = 1) -> AuditReport:
    return audit(
        configurations,
        quick=True,
        random_bytes=random.Random(seed).randbytes,  # noqa: S311
        clock=lambda: NOW,
    )


@cache
def sound() -> AuditReport:
    return audited(EVERYBODY, SAMPLED, CENTRED, LOCAL, RIDGE)


def failed(report: AuditReport) -> set[str]:
    return {check.name for each in report.configurations for check in each.checks if not check.passed}


# -- the code as it is -----------------------------------------------------------------------------------------------


def test_the_code_passes_and_the_report_says_what_was_seen() -> None:
    report = sound()
    assert failed(report) == set()
    assert report.passed
    value = parse_json_object(canonical_json(report.to_json()), "report")
    assert value["schema"] == "zegel/privacy-audit/v1"
    assert (value["passed"], value["quick"], value["time"]) == (True, True, "2026-11-22T05:00:00Z")
    assert value["software"].startswith("zegel ")
    assert len(canonical_json(value)) < 60_000
    assert [each["name"] for each in value["configurations"]] == ["everybody", "sampled", "centred", "local", "ridge"]
    for each in value["configurations"]:
        assert 0 <= each["lower_bound"] < each["epsilon"] < 3
        assert each["correct"] <= each["guesses"] <= each["canaries"] <= 300
        names = {check["name"] for check in each["checks"]}
        assert {"one-run-bound", "noise-variance", "noise-shape", "ledger"} <= names <= set(MEANING)
    closest = report.closest
    assert (value["claim"], value["lower_bound"]) == (closest.claim, closest.attack.lower_bound)


def test_every_kind_of_check_is_made_somewhere() -> None:
    made = {check.name for each in sound().configurations for check in each.checks}
    assert made == set(MEANING)
    (sensitivity,) = {c.measured for c in sound().configurations[0].checks if c.name == "sensitivity"}
    assert 0.99 < sensitivity <= 1  # the probes reach the bound, so that a larger step would show


def test_false_alarms_add_up_to_what_is_promised() -> None:
    shares = [check.false_alarm for each in sound().configurations for check in each.checks]
    assert 0.5 * FALSE_ALARM < sum(shares) <= FALSE_ALARM
    for each in sound().configurations:
        for check in each.checks:
            assert (check.false_alarm > 0) == (check.p_value is not None)


def test_the_same_bytes_give_the_same_report() -> None:
    first, second = (audited(EVERYBODY, seed=5).to_json() for _ in range(2))
    assert first == second
    assert first["configurations"][0] != sound().to_json()["configurations"][0]  # other bytes


@pytest.mark.parametrize("configuration", [*full(), *quick()], ids=lambda each: each.name)
def test_what_users_run_claims_little_epsilon(configuration: Configuration) -> None:
    plan = configuration.plan()
    assert plan.epsilon is not None
    assert 0.5 < plan.epsilon < 2.5
    assert plan.delta * configuration.canaries < 1e-3
    assert Plan.from_bytes(plan.to_bytes()) == plan


# -- faults ----------------------------------------------------------------------------------------------------------

Noise = Callable[[int, float, Callable[[int], bytes]], NDArray[np.int64]]


def nothing(size: int, sigma: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
    return np.zeros(size, dtype=np.int64)


def quarter(size: int, sigma: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
    return discrete_gaussian(size, sigma / 4, random_bytes)


def one_hospital_missing() -> Noise:
    """Hospitals are asked in turn; the last of every four adds nothing."""
    calls = itertools.count(1)
    return lambda *arguments: (nothing if next(calls) % 4 == 0 else discrete_gaussian)(*arguments)


def the_same_each_round() -> Noise:
    calls, kept = itertools.count(), {}

    def stale(size: int, sigma: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
        hospital = next(calls) % 4
        if hospital not in kept:
            kept[hospital] = discrete_gaussian(size, sigma, random_bytes)
        return kept[hospital]

    return stale


@pytest.mark.parametrize(
    ("noise", "named"),
    [
        (lambda: nothing, {"noise-variance", "noise-shape", "one-run-bound"}),
        (lambda: quarter, {"noise-variance"}),
        (one_hospital_missing, {"noise-variance"}),
        (the_same_each_round, {"noise-fresh"}),
    ],
    ids=["off", "a quarter", "one hospital's missing", "the same each round"],
)
def test_noise_that_is_not_what_it_should_be_is_named(
    monkeypatch: pytest.MonkeyPatch, noise: Callable[[], Noise], named: set[str]
) -> None:
    monkeypatch.setattr(participant, "discrete_gaussian", noise())
    found = failed(audited(EVERYBODY))
    assert found - {"noise-shape"} == named - {"noise-shape"}
    assert named <= found


@pytest.mark.parametrize(("noise", "named"), [(nothing, "noise-variance"), (quarter, "noise-variance")])
def test_local_noise_is_tested_in_the_same_way(monkeypatch: pytest.MonkeyPatch, noise: Noise, named: str) -> None:
    monkeypatch.setattr(local_work, "discrete_gaussian", noise)
    assert named in failed(audited(LOCAL))


@pytest.mark.parametrize("noise", [nothing, quarter])
def test_the_ridge_estimators_noise_is_tested(monkeypatch: pytest.MonkeyPatch, noise: Noise) -> None:
    monkeypatch.setattr(participant, "discrete_gaussian", noise)
    assert "noise-variance" in failed(audited(RIDGE))


def test_statistics_longer_than_their_bound_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def longer(*arguments: Any, **settings: Any) -> Any:
        total, dropped = statistics(*arguments, **settings)
        return 4 * total, dropped

    monkeypatch.setattr(local_work, "statistics", longer)
    assert {"contribution", "sensitivity"} <= failed(audited(RIDGE)) <= {"contribution", "sensitivity", "one-run-bound"}


def test_no_noise_on_the_feature_mean_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    monkeypatch.setattr(
        participant,
        "discrete_gaussian",
        lambda *arguments: (nothing if next(calls) < 5 else discrete_gaussian)(*arguments),
    )
    assert {"noise-variance"} <= failed(audited(CENTRED))


@pytest.mark.parametrize("configuration", [EVERYBODY, SAMPLED], ids=lambda each: each.name)
def test_a_clip_four_times_too_large_is_named(monkeypatch: pytest.MonkeyPatch, configuration: Configuration) -> None:
    def loose(parameters: Any, rows: Any, labels: Any, l2_clip_norm: float, **settings: Any) -> Any:
        return clipped_gradient_sum(parameters, rows, labels, 4 * l2_clip_norm, **settings)

    monkeypatch.setattr(gradient, "clipped_gradient_sum", loose)
    report = audited(configuration)
    found = failed(report)
    assert {"contribution"} | ({"sensitivity"} if configuration is EVERYBODY else set()) <= found
    assert found <= {"contribution", "sensitivity", "one-run-bound"}
    (check,) = [check for check in report.configurations[0].checks if check.name == "contribution"]
    assert check.lower is not None and check.upper is not None
    assert 1 < check.lower < check.upper < 6


def test_counting_admissions_instead_of_patients_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        local_work,
        "one_admission_per_patient",
        lambda patient_index, sampled, random_bytes: np.flatnonzero(np.isin(patient_index, sampled)),
    )
    report = audited(EVERYBODY)
    assert {"contribution", "sensitivity"} <= failed(report) <= {"contribution", "sensitivity", "one-run-bound"}
    (check,) = [check for check in report.configurations[0].checks if check.name == "sensitivity"]
    assert check.measured > ADMISSIONS


Sample = Callable[[int, float, Callable[[int], bytes]], NDArray[np.int64]]


def everyone(units: int, sampling_prob: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
    return np.arange(units, dtype=np.int64)


def fixed_size(units: int, sampling_prob: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
    rng = np.random.default_rng(int.from_bytes(random_bytes(8), "big"))
    return np.sort(rng.permutation(units)[: round(sampling_prob * units)]).astype(np.int64)


def shuffled() -> Sample:
    """Batches from a shuffled list of patients, begun anew when it is used up."""
    left: dict[int, NDArray[np.int64]] = {}

    def next_batch(units: int, sampling_prob: float, random_bytes: Callable[[int], bytes]) -> NDArray[np.int64]:
        size = round(sampling_prob * units)
        if len(left.get(units, ())) < max(size, 1):
            left[units] = np.random.default_rng(int.from_bytes(random_bytes(8), "big")).permutation(units)
        batch, left[units] = left[units][:size], left[units][size:]
        return np.sort(batch)

    return next_batch


@pytest.mark.parametrize(
    ("sample", "named"),
    [
        (lambda: everyone, {"sampling-rate", "sampling-batch-size", "sampling-patients", "sampling-independence"}),
        (lambda: fixed_size, {"sampling-batch-size"}),
        (shuffled, {"sampling-batch-size", "sampling-patients", "sampling-independence"}),
    ],
    ids=["everyone", "fixed size", "shuffled epochs"],
)
def test_batches_without_poisson_sampling_are_named(
    monkeypatch: pytest.MonkeyPatch, sample: Callable[[], Sample], named: set[str]
) -> None:
    monkeypatch.setattr(local_work, "poisson_sample", sample())
    found = failed(audited(SAMPLED))
    assert {name for name in found if name.startswith("sampling")} == named
    assert found - named <= {"contribution", "one-run-bound"}  # everyone in every round also leaks more


def test_a_release_that_the_ledger_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "commit", lambda self, *arguments, **more: self.head)
    assert failed(audited(EVERYBODY)) == {"ledger"}


def test_a_run_that_fails_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise NoiseError("the sampler is broken")

    monkeypatch.setattr(participant, "discrete_gaussian", broken)
    with pytest.raises(JobError):
        audited(EVERYBODY)


# -- the attack ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", [EVERYBODY, SAMPLED, CENTRED], ids=lambda each: each.name)
def test_the_onlooker_reads_the_released_sums_from_the_versions(configuration: Configuration) -> None:
    plan = replace(configuration, momentum=0.5).plan()
    rng = np.random.default_rng(1)
    training = Training(plan)
    models, sums = [training.parameters.to_bytes()], []
    for number in range(1, plan.aggregations + 1):
        mean = plan.feature_mean_noise_multiplier is not None and number == 1
        total = rng.standard_normal(1024 if mean else 4 * 1024 + 4)
        training.apply(number, total, hospitals=4)
        models.append(training.parameters.to_bytes())
        sums.append(total[None, :] if mean else total[: 4 * 1024].reshape(4, 1024))
    found = releases(plan, models, [4] * len(sums))
    for release, total in zip(found, sums, strict=True):
        np.testing.assert_allclose(release.total, total, atol=1e-3)


def test_local_moves_are_read_in_units_of_one_step() -> None:
    plan = LOCAL.plan()
    training = Training(plan)
    models = [training.parameters.to_bytes()]
    # Every hospital took two steps; the first counts 1 + momentum times, the second once.
    noise, rate, batch = 3.0, plan.optimiser["learning_rate"], plan.expected_batch / len(plan.sites)
    move = -rate * noise / (batch * plan.l2_clip_norm) * (1 + 0.5 + 1)
    training.apply(1, np.full(4 * 1024 + 4, 4 * move), hospitals=4)
    models.append(training.parameters.to_bytes())
    (release,) = releases(plan, models, [4])
    np.testing.assert_allclose(release.total, 4 * noise, rtol=1e-5)
    assert release.noise_std == pytest.approx(8 * plan.l2_clip_norm * 2 * (1.5**2 + 1) ** 0.5 / 2.5)


def test_a_canarys_direction_is_that_of_its_clipped_gradient() -> None:
    plan = EVERYBODY.plan()
    canaries = toss(20, features=1024, hospitals=4, random_bytes=random.Random(1).randbytes)  # noqa: S311
    rows = canaries.rows(1024)
    shape = LinearModel(features=1024, labels=len(CODES))
    rng = np.random.default_rng(2)
    before = shape.from_vector(rng.standard_normal(shape.vector_length))
    for index in range(len(canaries.labels)):
        own_sum, _ = clipped_gradient_sum(
            before, rows[index], canaries.labels[index : index + 1], plan.l2_clip_norm,
            bias_scale=plan.model["bias_scale"], label_smoothing=plan.model["label_smoothing"],
        )  # fmt: skip
        release = replace(
            releases(plan, [before.to_bytes(), before.to_bytes()], [4])[0], total=own_sum[: 4 * 1024].reshape(4, 1024)
        )
        seen = seen_sum(plan, release, rows, canaries.labels)
        along, own = seen.along, seen.own
        # Its own gradient lies along its direction in full, and along nobody else's at all.
        assert along[index] == pytest.approx(own[index], rel=1e-5)
        assert np.abs(np.delete(along, index)).max() < 1e-6


def test_the_score_tells_in_from_out_when_there_is_no_noise() -> None:
    plan = SAMPLED.plan()
    canaries = toss(200, features=1024, hospitals=4, random_bytes=random.Random(3).randbytes)  # noqa: S311
    rows, start = canaries.rows(1024), LinearModel(features=1024, labels=len(CODES)).initial()
    total, _ = clipped_gradient_sum(
        start, rows[canaries.included], canaries.labels[canaries.included], plan.l2_clip_norm
    )
    release = releases(plan, [start.to_bytes()] * 2, [4])[0]
    release = replace(release, total=total[: 4 * 1024].reshape(4, 1024))
    score = log_likelihood_ratio([seen_sum(plan, release, rows, canaries.labels)])
    assert score[canaries.included].min() > 0 > score[~canaries.included].max()


def test_the_ridge_sum_shows_each_canary_apart_from_the_others() -> None:
    plan = RIDGE.plan()
    canaries = toss(50, features=256, hospitals=4, random_bytes=random.Random(3).randbytes)  # noqa: S311
    rows, inside = canaries.rows(256), canaries.included
    settings = plan_ridge(plan)
    total, _ = statistics(
        rows[inside], canaries.labels[inside], len(CODES),
        gram_share=settings.gram_share, bias_scale=settings.bias_scale, feature_mean=np.zeros(256),
    )  # fmt: skip
    seen = seen_statistics(plan, total, 4, rows, canaries.labels)
    np.testing.assert_allclose(seen.along, np.where(inside, seen.own, 0.0), atol=1e-12)
    assert 0.95 < seen.own.min() <= seen.own.max() <= 1
    assert not seen.noise.any() and len(seen.noise) > 30_000


def test_canaries_have_a_column_each_and_run_out() -> None:
    words = separate_words(800, 1024)
    rows = canary_encoder(1024).encode(words)
    assert len(np.unique(rows.indices)) == len(rows.indices) == 800
    with pytest.raises(SampleError, match="1025 canaries"):
        separate_words(1025, 1024)
    canaries = toss(300, features=1024, hospitals=4, random_bytes=random.Random(1).randbytes)  # noqa: S311
    records = canaries.records(["a", "b", "c", "d"])
    assert sum(len(each.training.patients) for each in records.values()) == canaries.included.sum()
    assert sum(len(each.training) for each in records.values()) == canaries.included.sum() * ADMISSIONS
    assert all(set(each.training.labels) <= set(CODES) and not len(each.test) for each in records.values())


# -- the picture and the command -------------------------------------------------------------------------------------


def test_the_picture_is_an_svg_that_tells_its_content() -> None:
    report = sound()
    picture = ElementTree.fromstring(plot(report))  # noqa: S314 - made here
    space = "{http://www.w3.org/2000/svg}"
    title, description = picture.find(f"{space}title"), picture.find(f"{space}desc")
    assert title is not None and description is not None
    assert title.text == "Empirical privacy audit: passed"
    assert all(each.configuration.name in (description.text or "") for each in report.configurations)
    assert picture.get("aria-labelledby") == "title description"
    first = report.configurations[0]
    worse = replace(report, configurations=(replace(first, checks=(replace(first.checks[1], passed=False),)),))
    assert "FAILED" in plot(worse) and "fails: noise-variance" in plot(worse)


def seeded(configurations: Sequence[Configuration], **settings: Any) -> AuditReport:
    return audit(configurations, random_bytes=random.Random(1).randbytes, **settings)  # noqa: S311


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy_audit_plans, "quick", lambda: (EVERYBODY,))
    monkeypatch.setattr(privacy_audit, "audit", seeded)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["privacy", "audit", "--quick", *arguments])


@pytest.mark.usefixtures("small")
def test_the_command_writes_its_files_and_says_that_it_passed(tmp_path: Path) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "plot.svg"
    result = run("--json", str(report), "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert "Passed" in result.stdout
    value = json.loads(report.read_bytes())
    assert report.read_bytes() == canonical_json(value)
    assert value["passed"] is True
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")  # noqa: S314
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "plot.svg"}


@pytest.mark.usefixtures("small")
def test_the_command_fails_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participant, "discrete_gaussian", nothing)
    report = tmp_path / "report.json"
    result = run("--json", str(report))
    assert result.exit_code == 1
    assert MEANING["noise-variance"] in result.stdout
    assert "do not train" in result.stdout
    assert json.loads(report.read_bytes())["passed"] is False


@pytest.mark.usefixtures("small")
def test_an_audit_that_cannot_be_carried_out_is_told_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise NoiseError("the sampler is broken")

    monkeypatch.setattr(participant, "discrete_gaussian", broken)
    result = run()
    assert result.exit_code == 1
    assert "nothing was shown" in result.stderr
    assert "Passed" not in result.output


def test_files_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing" / "report.json")
    same = str(tmp_path / "same")
    for arguments in (("--json", missing), ("--plot", str(tmp_path)), ("--json", same, "--plot", same)):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_a_missing_package_is_named_with_the_words_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvflare.lighter.utils", None)
    result = run()
    assert result.exit_code == 1
    assert "pip install 'zegel[site]'" in result.stderr
