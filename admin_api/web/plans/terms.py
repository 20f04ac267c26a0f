"""What somebody asks for in a plan, and what a forecast is asked about: the forms' and the API's models.

A `PlanWish` becomes a plan by `jobs.proposal.make_plan`, which the command line uses too; a `ForecastQuestion` is about
the same numbers and may also fix the noise instead of the epsilon. Nothing here is about data: all of it is public.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from admin_api.web.language import N_
from jobs.errors import PlanError
from jobs.plan import LOCAL, MAX_LABELS, MAX_LOCAL_STEPS, MAX_NAME, MAX_ROUNDS, MAX_SITES, RIDGE
from jobs.proposal import Wish, parse_labels

SiteName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]
PLAN_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
MOST_PATIENTS = 100_000_000
_PLACEHOLDER_CODES = ("A00", "A01")  # a forecast is the same for every label space


def _object(value: object) -> object:
    """A form's text field that holds a JSON object."""
    if isinstance(value, str):
        try:
            return json.loads(value) if value.strip() else None
        except ValueError as error:
            raise ValueError(f"expected a JSON object ({error})") from None
    return value


Settings = Annotated[dict[str, Any] | None, BeforeValidator(_object)]


class PlanTerms(BaseModel):
    """What decides what a plan costs a patient."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"sites": ["amstel", "berkel", "dommel", "geul"], "epsilon": 3.0, "delta": 1e-5}]
        },
    )

    sites: list[SiteName] = Field(
        min_length=3, max_length=MAX_SITES, description="hospitals that train", examples=[["amstel", "berkel", "geul"]]
    )
    epsilon: float | None = Field(
        default=8.0, gt=0, le=200, description="privacy loss per patient of the whole run, against the server"
    )
    delta: float = Field(default=1e-5, gt=0, lt=1e-2, description="at most 1 in 10 times the number of patients")
    rounds: int | None = Field(default=None, ge=1, le=MAX_ROUNDS, description="optimiser steps; the recipe's if null")
    sampling_prob: float = Field(
        default=1.0, ge=1e-4, le=1, description="chance of each patient to take part in a step"
    )
    colluders: int = Field(default=1, ge=1, le=MAX_SITES, description="hospitals that may work with the server")
    dropouts: int = Field(default=0, ge=0, le=MAX_SITES, description="hospitals that may drop out of a round")
    noise_mode: Literal["distributed", "local"] = "distributed"
    estimator: Literal["dp-sgd", "ridge"] = "dp-sgd"
    local_steps: int | None = Field(
        default=None, ge=1, le=MAX_LOCAL_STEPS, description="steps between two secure sums, under local noise"
    )
    nominal_patients: int | None = Field(
        default=None, ge=1, le=MOST_PATIENTS, description="public constant; from the hospitals' manifests if null"
    )
    metrics_epsilon: float = Field(
        default=4.0, gt=0, le=200, description="privacy loss per validation patient of one report"
    )

    @model_validator(mode="after")
    def _enough_noise(self) -> Self:
        if len(set(self.sites)) != len(self.sites):
            raise ValueError("sites: a hospital is named twice")
        if len(self.sites) - self.colluders - self.dropouts < 1:
            raise ValueError(
                f"{len(self.sites)} hospitals cannot carry {self.colluders} colluders and {self.dropouts} dropouts: "
                "nobody's noise would be left"
            )
        return self


class ForecastQuestion(PlanTerms):
    """What would a plan cost a patient? Fix either the epsilon, and learn the noise, or the noise."""

    noise_multiplier: float | None = Field(
        default=None, gt=0, le=1000, description="in place of epsilon: noise of the opened sums over the clip norm"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.epsilon is None and self.noise_multiplier is None:
            raise ValueError("give an epsilon or a noise_multiplier")
        return self


class PlanWish(PlanTerms):
    """A plan somebody wishes for; its noise follows from the epsilon."""

    epsilon: float = Field(gt=0, le=200, description="privacy loss per patient of the whole run, against the server")
    name: str = Field(pattern=PLAN_NAME, examples=["autumn-2026"], description="letters, digits, space, . _ -")
    labels: list[str] = Field(
        min_length=2, max_length=MAX_LABELS, description="three-character ICD-10 categories", examples=[["I10", "K40"]]
    )
    evaluation_sites: list[SiteName] = Field(
        default_factory=list, max_length=MAX_SITES, description="further hospitals, that evaluate only"
    )
    features: int | None = Field(
        default=None, ge=16, le=1 << 20, description="columns of the hashed text encoder; the recipe's if null"
    )
    predecessor: str | None = Field(
        default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="a version to compare with on the same admissions"
    )
    encoder: Settings = Field(default=None, description="another text encoder than hashed n-grams")
    lora: Settings = Field(default=None, description="adapters to fine-tune the encoder with")

    @model_validator(mode="after")
    def _codes(self) -> Self:
        try:
            self.labels = list(parse_labels("\n".join(self.labels), "labels"))
        except PlanError as error:
            raise ValueError(str(error)) from None
        return self

    def question(self) -> ForecastQuestion:
        """What this wish costs."""
        return ForecastQuestion(**{name: getattr(self, name) for name in PlanTerms.model_fields})


def wish_of(
    terms: PlanTerms, *, consortium: str, nominal_patients: int, predecessor: tuple[str, str] | None = None
) -> Wish:
    """The wish that `make_plan` takes. Of bare terms, one whose codes and name do not matter."""
    own = terms if isinstance(terms, PlanWish) else None
    sites = tuple(sorted(terms.sites))
    return Wish(
        name="forecast" if own is None else own.name,
        consortium=consortium,
        label_space=_PLACEHOLDER_CODES if own is None else tuple(own.labels),
        epsilon=terms.epsilon,
        sites=sites,
        evaluation_sites=tuple(sorted({*sites, *([] if own is None else own.evaluation_sites)})),
        nominal_patients=nominal_patients,
        delta=terms.delta,
        rounds=terms.rounds if terms.estimator != RIDGE else None,
        sampling_prob=terms.sampling_prob if terms.estimator != RIDGE else 1.0,
        noise_mode=terms.noise_mode,
        local_steps=terms.local_steps if terms.noise_mode == LOCAL and terms.estimator != RIDGE else None,
        estimator=terms.estimator,
        features=None if own is None else own.features,
        encoder=None if own is None else own.encoder,
        lora=None if own is None else own.lora,
        predecessor=predecessor,
        colluders=terms.colluders,
        dropouts=terms.dropouts,
        metrics_epsilon=terms.metrics_epsilon,
    )


@dataclass(frozen=True)
class Template:
    """A starting point for a plan; its words are translated where they are shown."""

    id: str
    title: str
    words: str
    terms: dict[str, Any]


TEMPLATES: Sequence[Template] = (
    Template(
        "recipe",
        N_("The recipe"),
        N_("Gradient steps with distributed noise; all hospitals connected for some minutes."),
        {},
    ),
    Template(
        "careful",
        N_("Little privacy loss"),
        N_("The recipe at epsilon 3: somewhat fewer right codes, much less told about a patient."),
        {"epsilon": 3.0},
    ),
    Template(
        "one-meeting",
        N_("One meeting"),
        N_("The closed-form estimator: hospitals meet once, for one secure sum."),
        {"estimator": RIDGE, "epsilon": 3.0},
    ),
    Template(
        "trust-nobody",
        N_("Trust nobody"),
        N_("Each hospital adds all of the noise itself; the same epsilon holds against everybody."),
        {"noise_mode": LOCAL},
    ),
)
