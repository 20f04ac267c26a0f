"""Two versions side by side: every figure that hospitals reported about either, and the bridge study between them.

The figures come from the read model, the bridge study from the document that the later version's approvals bind. Each
version was measured on its own draw of patients and noise, so a difference within the intervals may be chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from admin_api.reading import releases, reports, versions
from admin_api.reading.reports import Cell, Report
from admin_api.web.context import Workplace
from admin_api.web.releases.view import Figure, statement_of
from audit.canonical import parse_json_object
from audit.documents.bridge import chapter_order
from audit.documents.collection import BRIDGE

HEADLINE = ("admissions", "hit@1", "hit@3", "coverage", "precision", "threshold")
HUMAN, PREDECESSOR = "human", "predecessor"


class Difference(BaseModel):
    """A figure of two versions at one hospital."""

    site: str
    metric: str
    chapter: str | None
    before: Figure | None
    after: Figure | None
    change: float | None = Field(description="after minus before; null where one is missing")
    clear: bool = Field(description="the intervals do not overlap")


class BridgeRow(BaseModel):
    """How a chapter's codes under this version compare with another coding of the same admissions."""

    site: str = Field(examples=["hospital-1"], description="a hospital, or `all hospitals`")
    against: str = Field(description="human: the coders; predecessor: the release before")
    chapter: str | None = Field(description="ICD-10 chapter; null: all together")
    ratio: Figure | None = Field(description="comparability ratio: codes given by this version / by the other coding")
    agreement: Figure | None = Field(description="share of admissions with the same code")


class BridgeView(BaseModel):
    """The bridge study in the later version's release."""

    release: str
    predecessor: str | None = Field(description="the release it compares with")
    compares_before: bool = Field(description="whether that release's version is the earlier one of the comparison")
    rows: list[BridgeRow]
    absent: list[str] = Field(description="sentences: what the study leaves out")


class Comparison(BaseModel):
    """Two versions side by side, hospital by hospital; each measured on its own draw of patients, under noise."""

    before: str
    after: str
    differences: list[Difference]
    bridge: BridgeView | None = Field(description="null while the later version is in no release kept here")


def compare(here: Workplace, before: str, after: str) -> Comparison:
    """Every figure that hospitals reported about either version. Raises NotKnown for an unknown version."""
    versions.one(here.reading, before)
    versions.one(here.reading, after)
    old, new = (
        {each.site: each for each in reports.of_version(here.reading, version, full=True)}
        for version in (before, after)
    )
    return Comparison(
        before=before, after=after, differences=list(_differences(old, new)), bridge=_bridge(here, before, after)
    )


def _differences(old: dict[str, Report], new: dict[str, Report]) -> Iterator[Difference]:
    for site in sorted({*old, *new}):
        left = {} if site not in old else old[site].cells
        right = {} if site not in new else new[site].cells
        for name in sorted({*left, *right}, key=_order):
            metric, _slash, chapter = name.partition("/")
            if metric.startswith("predecessor-") or metric not in HEADLINE:
                continue
            yield _difference(site, metric, chapter or None, left.get(name), right.get(name))


def _order(name: str) -> tuple[int, tuple[int, str]]:
    metric, _slash, chapter = name.partition("/")
    return (HEADLINE.index(metric) if metric in HEADLINE else len(HEADLINE), chapter_order(chapter))


def _difference(site: str, metric: str, chapter: str | None, old: Cell | None, new: Cell | None) -> Difference:
    known = old is not None and new is not None and old.value is not None and new.value is not None
    apart = False
    if known and None not in (old.lower, old.upper, new.lower, new.upper):  # type: ignore[union-attr]
        apart = new.lower > old.upper or new.upper < old.lower  # type: ignore[union-attr,operator]
    return Difference(
        site=site,
        metric=metric,
        chapter=chapter,
        before=None if old is None else Figure.model_validate(old),
        after=None if new is None else Figure.model_validate(new),
        change=new.value - old.value if known else None,  # type: ignore[union-attr,operator]
        clear=apart,
    )


def _bridge(here: Workplace, before: str, after: str) -> BridgeView | None:
    """From the newest release of the later version."""
    for found in reversed(releases.of_version(here.reading, after)):
        statement = statement_of(here, found)
        if statement is None or BRIDGE not in statement.documents:
            continue
        study = parse_json_object(here.home.artifacts().get(statement.documents[BRIDGE]), BRIDGE)
        of_before = {each.release for each in releases.of_version(here.reading, before)}
        return BridgeView(
            release=found.release,
            predecessor=study["predecessor"],
            compares_before=study["predecessor"] in of_before,
            rows=[row for site in study["sites"] for against in (HUMAN, PREDECESSOR) for row in _rows(site, against)],
            absent=study["absent"],
        )
    return None


def _rows(site: dict[str, Any], against: str) -> Iterator[BridgeRow]:
    """A row per chapter, all chapters together first."""
    ratios = {each["chapter"]: _figure(each, "ratio") for each in site[against]["ratios"]}
    agreement = {each["chapter"]: _figure(each, "value") for each in site[against]["agreement"]}
    for chapter in sorted({*ratios, *agreement}, key=lambda each: (each is not None, chapter_order(each or ""))):
        yield BridgeRow(
            site=site["site"],
            against=against,
            chapter=chapter,
            ratio=ratios.get(chapter),
            agreement=agreement.get(chapter),
        )


def _figure(item: dict[str, Any], value: str) -> Figure:
    return Figure(value=item[value], lower=item["lower"], upper=item["upper"])
