"""A forecast as people read it: what an attacker can conclude, what it takes of budgets, what it does not cover.

The readings follow from (epsilon, delta)-differential privacy alone and hold for any attacker with any knowledge:

* posterior odds are at most e^epsilon times the prior odds, but with probability delta; so whoever thought it as likely
  as not that a patient takes part is at most e^epsilon / (1 + e^epsilon) sure afterwards;
* the power of any test at a false-positive rate a is at most min(e^epsilon a + delta, 1 - (1 - delta - a) / e^epsilon).

Source: Wasserman and Zhou 2010, arXiv 0811.2501 (hypothesis testing); NIST SP 800-226.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.planning import two_digits
from admin_api.reading import hospitals, privacy
from admin_api.web.context import Workplace
from admin_api.web.language import _, current, ngettext
from admin_api.web.plans.desk import Computing, desk_of
from admin_api.web.plans.effect import PlanCost, plan_question
from admin_api.web.plans.terms import ForecastQuestion
from jobs.plan import LOCAL, Plan

ASSUMED_PATIENTS = 1000  # where no manifest says
SAYS_LITTLE = 5.0  # epsilon above which the guarantee alone leaves an attacker more than 99.3% sure
FALSE_POSITIVES = 0.01


class Effect(BaseModel):
    """What the plan takes of a hospital's budget."""

    site: str
    cohort: str
    spent: float
    reserved: float
    budget: float | None = Field(description="null when the hospital does not state it")
    plan: float
    left: float | None = Field(description="after the plan")
    fits: bool = Field(description="false when it takes more than is left; the ledger, which composes, decides")


class ForecastView(BaseModel):
    """What a plan costs a patient, against whom, and in words."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"epsilon_server": 3.0, "epsilon_everyone": 5.66, "delta": 1e-5}]}
    )

    epsilon_model: float | None = Field(description="against whoever has the model alone; null: no guarantee")
    epsilon_server: float | None = Field(description="against the server with the colluders: the plan's epsilon")
    epsilon_everyone: float | None = Field(description="against the server and all other hospitals together")
    budget_needed: float | None = Field(description="at a training hospital, as its ledger counts (Renyi DP)")
    delta: float
    noise_mode: str
    hospitals: int
    colluders: int
    dropouts: int
    noise_multiplier: float
    feature_mean_noise_multiplier: float | None
    rounds: int
    local_steps: int
    sampling_prob: float
    nominal_patients: int
    metrics_epsilon: float
    accountant: str
    odds: float | None = Field(description="factor by which the odds of a guess about one patient change at most")
    surest: float = Field(description="how sure somebody can be at most who thought it 50:50")
    power: float = Field(description="share of patients found at most by a test that is wrong about 1% of others")
    sentences: list[str]
    warnings: list[str]
    not_covered: list[str]
    effects: list[Effect]
    curve: list[float] = Field(description="epsilon after each secure sum")
    answered: bool = True


class Working(BaseModel):
    """Not computed yet: ask again."""

    doing: str
    seconds: float
    answered: bool = False


def surest(epsilon: float) -> float:
    """How sure somebody can be at most, who thought it as likely as not.

    >>> round(surest(math.log(3)), 3)
    0.75
    """
    return 1 / (1 + math.exp(-epsilon))


def power(epsilon: float, delta: float, false_positives: float = FALSE_POSITIVES) -> float:
    """The share of patients that any test finds at most, at this rate of false positives.

    >>> power(0.0, 0.0)
    0.01
    """
    if math.isinf(epsilon):
        return 1.0
    low = math.exp(min(epsilon, 700.0)) * false_positives + delta
    high = 1 - (1 - delta - false_positives) * math.exp(-epsilon)
    return min(1.0, max(0.0, min(low, high)))


def ask_terms(
    here: Workplace, question: ForecastQuestion, *, only: str | None, wait_s: float
) -> ForecastView | Working:
    """A forecast of terms. Raises ForecastRefused, Problem."""
    known = privacy.listed(here.reading)
    patients, assumed = _patients(here, question)
    # Names do not matter to accountants: the same terms at other hospitals are the same question.
    terms = question.model_dump(exclude={"nominal_patients"}) | {
        "sites": [f"h{number}" for number in range(len(question.sites))]
    }
    asked = {"terms": terms, "nominal_patients": patients, "deltas": _deltas(known, question.delta)}
    answer = desk_of(here).ask(asked, wait_s=wait_s)
    if isinstance(answer, Computing):
        return Working(doing=answer.doing, seconds=answer.seconds)
    sites = frozenset(question.sites)
    cost = PlanCost(sites, sites, answer["forecast"]["against_server"] or math.inf, question.metrics_epsilon,
                    question.delta, answer["costs"])  # fmt: skip
    view = _view(answer, cost, known, only, sampling_prob=question.sampling_prob)
    if assumed:
        view.warnings.append(
            _("Not all of these hospitals have announced their data; %(n)s patients are assumed.",
              n=current().number(patients))
        )  # fmt: skip
    return view


def ask_plan(here: Workplace, plan: Plan, *, only: str | None, wait_s: float) -> ForecastView | Working:
    """The forecast of a plan. Raises ForecastRefused, Problem."""
    known = privacy.listed(here.reading)
    answer = desk_of(here).ask(plan_question(plan, _deltas(known, plan.delta)), wait_s=wait_s)
    if isinstance(answer, Computing):
        return Working(doing=answer.doing, seconds=answer.seconds)
    cost = PlanCost(frozenset(plan.sites), frozenset(plan.evaluation_sites), plan.epsilon or math.inf,
                    answer["metrics_epsilon"], plan.delta, answer["costs"])  # fmt: skip
    return _view(answer, cost, known, only, sampling_prob=plan.sampling_prob)


def _deltas(known: Sequence[privacy.CohortPrivacy], delta: float) -> list[float]:
    return sorted({delta, *(each.budget_delta for each in known if each.budget_delta is not None)})


def _patients(here: Workplace, question: ForecastQuestion) -> tuple[int, bool]:
    """The public constant of the plan, and whether it had to be assumed."""
    if question.nominal_patients is not None:
        return question.nominal_patients, False
    counts = []
    for site in question.sites:
        try:
            counts.append(hospitals.one(here.reading, site, now=here.now()).patients)
        except NotKnown:
            counts.append(None)
    known = [count for count in counts if count is not None]
    if not known:
        return ASSUMED_PATIENTS, True
    return two_digits(round(sum(known) * len(counts) / len(known))), len(known) < len(counts)


def _view(
    answer: Mapping[str, Any],
    cost: PlanCost,
    known: Sequence[privacy.CohortPrivacy],
    only: str | None,
    *,
    sampling_prob: float,
) -> ForecastView:
    found = answer["forecast"]
    server = math.inf if found["against_server"] is None else float(found["against_server"])
    effects = _effects(cost, known, only)
    return ForecastView(
        epsilon_model=found["released_model"],
        epsilon_server=found["against_server"],
        epsilon_everyone=found["against_everyone"],
        budget_needed=found["against_server_rdp"],
        delta=found["delta"],
        noise_mode=found["noise_mode"],
        hospitals=found["sites"],
        colluders=found["colluders"],
        dropouts=found["dropouts"],
        noise_multiplier=answer["noise_multiplier"],
        feature_mean_noise_multiplier=answer["feature_mean_noise_multiplier"],
        rounds=answer["rounds"],
        local_steps=answer["local_steps"],
        sampling_prob=sampling_prob,
        nominal_patients=answer["nominal_patients"],
        metrics_epsilon=answer["metrics_epsilon"],
        accountant=found["accountant"],
        odds=math.exp(server) if server < 700 else None,
        surest=surest(server),
        power=power(server, found["delta"]),
        sentences=_sentences(found, server),
        warnings=_warnings(found, answer, server, effects),
        not_covered=_not_covered(),
        effects=effects,
        curve=answer["curve"],
    )


def _effects(cost: PlanCost, known: Sequence[privacy.CohortPrivacy], only: str | None) -> list[Effect]:
    stated = {(each.site, each.cohort): each for each in known}
    effects = []
    for site in sorted(cost.training | cost.evaluating):
        for cohort in ("training", "validation"):
            before = stated.get((site, cohort))
            plan = cost.at(site, cohort, None if before is None else before.budget_delta)
            if plan is None or only not in (None, site):
                continue
            budget = None if before is None else before.budget
            spent = (before.ledger_spent or 0.0) if before is not None and budget is not None else 0.0
            reserved = (before.ledger_reserved or 0.0) if before is not None and budget is not None else 0.0
            left = None if budget is None else budget - spent - reserved - plan
            effects.append(
                Effect(
                    site=site, cohort=cohort, spent=spent, reserved=reserved, budget=budget, plan=plan,
                    left=None if left is None else max(0.0, left), fits=left is None or left >= 0,
                )
            )  # fmt: skip
    return effects


def _sentences(found: Mapping[str, Any], server: float) -> list[str]:
    said = current()
    if math.isinf(server):
        return [_("There is no guarantee: what is released may tell everything about a patient.")]
    one_in = _("1 in %(n)s", n=said.number(round(1 / found["delta"])))
    lines = [
        _(
            "Somebody who thinks it as likely as not that a patient is among the data can become %(sure)s sure at "
            "most, whatever else they know, but for a chance of %(one_in)s.",
            sure=_share(surest(server)), one_in=one_in,
        ),
        _(
            "A test that wrongly names 1%% of the people who are not in the data finds at most %(power)s of those who "
            "are.",
            power=_share(power(server, found["delta"])),
        ),
    ]  # fmt: skip
    everyone = found["against_everyone"]
    if found["noise_mode"] == LOCAL:
        lines.append(_("This holds against everybody, the server and all other hospitals together included."))
    elif everyone is None:
        lines.append(_("If the server and all other hospitals work together there is no guarantee."))
    else:
        lines.append(
            _(
                "If the server and all other hospitals work together, they can become %(sure)s sure at most "
                "(epsilon %(epsilon)s).",
                sure=_share(surest(everyone)), epsilon=said.epsilon(everyone),
            )
        )  # fmt: skip
    return lines


def _share(share: float) -> str:
    """A bound in percent; never rounded to certainty."""
    said = current()
    if share > 0.999:
        return ">" + said.percent(0.99999 if share > 0.99999 else 0.999, 3 if share > 0.99999 else 1)
    return said.percent(share, 1)


def _warnings(
    found: Mapping[str, Any], answer: Mapping[str, Any], server: float, effects: Sequence[Effect]
) -> list[str]:
    said = current()
    lines = []
    if server > SAYS_LITTLE:
        lines.append(
            _("At epsilon %(e)s the guarantee alone leaves an attacker nearly sure. What attacks achieve in practice "
              "is far less, but nothing promises that.", e=said.epsilon(server))
        )  # fmt: skip
    if found["delta"] * 10 * answer["nominal_patients"] > 1:
        lines.append(
            _("Delta %(delta)s is more than 1 in 10 times %(n)s patients.", delta=said.delta(found["delta"]),
              n=said.number(answer["nominal_patients"]))
        )  # fmt: skip
    if found["dropouts"] == 0:
        lines.append(_("With no dropout allowed, a round is lost as soon as one hospital is missing."))
    short = [each.site for each in effects if not each.fits]
    if short:
        lines.append(
            ngettext(
                "It takes more than is left at %(sites)s. The ledger decides, and may still admit it.",
                "It takes more than is left at %(sites)s. Their ledgers decide, and may still admit it.",
                len(set(short)),
                sites=", ".join(sorted(set(short))),
            )
        )
    return lines


def _not_covered() -> list[str]:
    return [
        _("A patient who is known to several hospitals counts at each of them: epsilons add up."),
        _("A group, such as a family, of k patients: k times the epsilon."),
        _("When answers arrive, and the counts of patients and admissions that hospitals publish."),
        _("The hospital's own staff and machines, and what coders see on their screens."),
    ]
