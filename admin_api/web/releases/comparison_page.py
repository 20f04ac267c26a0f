"""The page that holds two versions against each other."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from admin_api.reading import versions
from admin_api.web import charts
from admin_api.web.context import Here, Who
from admin_api.web.language import _, current
from admin_api.web.releases.comparison import HUMAN, Comparison, Difference, compare
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from audit.documents.bridge import ALL_HOSPITALS

router = APIRouter(route_class=PageRoute, include_in_schema=False)
AT_ONCE = 50
_Version = Annotated[str | None, Query(pattern=r"^sha256:[0-9a-f]{64}$")]


@router.get("/releases/compare", name="releases.compare.page")
def compare_page(request: Request, here: Here, who: Who, before: _Version = None, after: _Version = None) -> Response:
    """Two versions side by side."""
    known = versions.listed(here.reading, limit=AT_ONCE).items
    found = compare(here, before, after) if before is not None and after is not None else None
    return render(
        request,
        "releases/compare.html",
        versions=known,
        choices=[
            (
                each.version,
                f"{current().short_digest(each.version)}  {current().date(each.time)}  "
                + (each.releases[0].release if each.releases else each.run),
            )
            for each in known
        ],
        before=before,
        after=after,
        comparison=found,
        rows=[] if found is None else [_row(each) for each in found.differences if each.chapter is None],
        chapters=[] if found is None else [
            {"chapter": each.chapter, **_row(each)} for each in found.differences if each.chapter is not None
        ],
        charts=[] if found is None else _charts(found),
        curve=None if found is None else _curve(found),
        bridge=[] if found is None or found.bridge is None else [
            {
                "site": _("all hospitals") if each.site == ALL_HOSPITALS else each.site,
                "against": _("the coders") if each.against == HUMAN else _("the release before"),
                "chapter": each.chapter or _("all"),
                "ratio": None if each.ratio is None else each.ratio.model_dump(),
                "agreement": None if each.agreement is None else each.agreement.model_dump(),
            }
            for each in found.bridge.rows
        ],
    )  # fmt: skip


def _row(each: Difference) -> dict[str, Any]:
    return {
        "site": each.site,
        "metric": each.metric,
        "before": None if each.before is None else each.before.model_dump(),
        "after": None if each.after is None else each.after.model_dump(),
        "change": each.change,
        "clear": None if each.change is None else _("apart") if each.clear else _("overlap"),
    }


def _charts(found: Comparison) -> list[tuple[str, charts.Chart]]:
    made = []
    for metric in ("hit@1", "hit@3"):
        dots = [
            charts.Dot(
                each.site,
                each.after.value if each.after else None,
                each.after.lower if each.after else None,
                each.after.upper if each.after else None,
                before=each.before.value if each.before else None,
            )
            for each in found.differences
            if each.metric == metric and each.chapter is None
        ]
        if dots:
            title = _("%(metric)s by hospital", metric=metric)
            made.append((title, charts.dots_with_intervals(title, dots)))
    return made


def _curve(found: Comparison) -> charts.Chart | None:
    """Where each hospital stands between coding more and erring less: one point a version, at the plan's threshold."""
    known = {(each.site, each.metric): each for each in found.differences if each.chapter is None}
    lines = []
    for site in sorted({site for site, _metric in known}):
        coverage, precision = known.get((site, "coverage")), known.get((site, "precision"))
        if coverage is None or precision is None:
            continue
        points = [
            charts.Point(
                x=x.value,
                y=1 - y.value,
                lower=None if y.upper is None else 1 - y.upper,
                upper=None if y.lower is None else 1 - y.lower,
            )
            for x, y in ((coverage.before, precision.before), (coverage.after, precision.after))
            if x is not None and y is not None and x.value is not None and y.value is not None
        ]
        if points:
            lines.append(charts.Series(site, points))
    return charts.risk_coverage(_("Coverage and risk, by hospital"), lines) if lines else None
