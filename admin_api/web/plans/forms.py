"""Fields of the plan's form: from a draft, a template, another plan or a query, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, QueryParams

from admin_api.web.plans.terms import ForecastQuestion, PlanWish
from jobs.plan import LOCAL, Plan

M = TypeVar("M", bound=BaseModel)
_LISTS = ("sites", "evaluation_sites", "labels")


def given_fields(source: QueryParams | FormData, model: type[BaseModel]) -> dict[str, Any]:
    """What was filled in of a model's fields; empty ones are left out, lists take every value and line."""
    values: dict[str, Any] = {}
    for name in model.model_fields:
        texts = [value for value in source.getlist(name) if isinstance(value, str)]
        if name in _LISTS:
            items = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
            if items:
                values[name] = items
        elif texts and texts[0].strip():
            values[name] = texts[0].strip()
    return values


def question_of(source: QueryParams | FormData) -> ForecastQuestion:
    """What a form asks about. Raises ValidationError."""
    values = given_fields(source, ForecastQuestion)
    if source.get("by") == "noise":
        values["epsilon"] = None
    else:
        values.pop("noise_multiplier", None)
    return ForecastQuestion.model_validate(values)


def wrong_fields(error: ValidationError) -> dict[str, str]:
    """What is wrong, by field; "" where it is no single field's fault."""
    found: dict[str, str] = {}
    for each in error.errors():
        name = str(each["loc"][0]) if each["loc"] else ""
        found.setdefault(name, str(each["msg"]).removeprefix("Value error, "))
    return found


def fields_of_plan(plan: Plan) -> dict[str, Any]:
    """The wish that led to a plan, as far as the plan tells."""
    further = sorted(set(plan.evaluation_sites) - set(plan.sites))
    fields: dict[str, Any] = {
        "name": plan.name,
        "sites": list(plan.sites),
        "evaluation_sites": further,
        "labels": list(plan.label_space),
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "rounds": plan.rounds * plan.local_steps if plan.noise_mode != LOCAL else plan.rounds,
        "sampling_prob": plan.sampling_prob,
        "colluders": plan.colluders,
        "dropouts": plan.dropouts,
        "noise_mode": plan.noise_mode,
        "estimator": plan.estimator,
        "local_steps": plan.local_steps if plan.noise_mode == LOCAL else None,
        "metrics_epsilon": plan.evaluation["epsilon"],
    }
    if plan.encoder.get("kind") == "hashed-ngrams":
        fields["features"] = plan.encoder.get("features")
    else:
        fields["encoder"] = plan.encoder
    return {name: value for name, value in fields.items() if value is not None}


def shown_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of the form with its value, or what stands there before anybody fills it in."""
    shown: dict[str, Any] = {}
    for name, field in {**ForecastQuestion.model_fields, **PlanWish.model_fields}.items():
        default = [] if name in _LISTS else None if field.is_required() else field.get_default()
        shown[name] = values.get(name, default)
    shown["epsilon"] = values.get("epsilon", 8.0)
    return {name: _written(value) if isinstance(value, float) else value for name, value in shown.items()}


def _written(number: float) -> str:
    """A number as people type it: no exponent, no idle zeros."""
    return f"{number:.12f}".rstrip("0").rstrip(".")
