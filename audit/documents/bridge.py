"""The bridge study: would the series of coded diagnoses break if this release replaced the coders, or its predecessor?

Computed from the noisy counts in the hospitals' signed metric statements, so it costs no privacy. Two bridges, each per
ICD-10 chapter: against the human coders (codes the model would give / codes they gave) and against the release before
(codes this version gives / codes that one gave, on the same admissions).

A *comparability ratio* R = P/T has the interval R +- z sqrt(P + T - 2B + s^2 (1 + R^2)) / T, where B counts admissions
known to be in the chapter under both codings (those with exactly the same code; there may be more, so the interval errs
on the wide side) and s is the standard deviation of the privacy noise on each count. Where a hospital does not say its
noise there is no interval. Only +, -, *, / and the square root are used, so that every machine gets the same digits.

Source: Anderson et al. 2001, Comparability of cause of death between ICD-9 and ICD-10 (NVSR 49-2), for the ratio and
the variance of dual-coded counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from audit.canonical import canonical_json
from audit.documents.candidate import Candidate
from audit.documents.form import MARK
from audit.metrics_trace import MetricsTrace

SCHEMA = "zegel/bridge-study/v1"
Z = 1.959964  # 95%, two-sided
ALL_HOSPITALS = "all hospitals"
_NUMERALS = (
    *("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI"),
    *("XII", "XIII", "XIV", "XV", "XVI", "XVII", "XVIII", "XIX", "XX", "XXI", "XXII"),
)


@dataclass(frozen=True)
class Ratio:
    """One chapter's comparability ratio. `lower` and `upper` are null where the noise is not stated."""

    chapter: str
    count: float  # noisy, by the coding compared
    reference: float  # noisy, by the human coders or the predecessor; at least 1
    ratio: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Agreement:
    """The share of admissions with the same code, with its interval as the hospital reported it."""

    chapter: str | None  # None: all chapters together
    value: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Bridge:
    """One coding held against another."""

    ratios: tuple[Ratio, ...]
    agreement: tuple[Agreement, ...]


@dataclass(frozen=True)
class SiteBridges:
    """Both bridges at one hospital, or over all of them."""

    site: str
    human: Bridge
    predecessor: Bridge


@dataclass(frozen=True)
class BridgeStudy:
    """What the metric statements say about continuity, and what they leave out."""

    sites: tuple[SiteBridges, ...]  # the sum over hospitals first
    absent: tuple[str, ...]  # sentences

    def to_bytes(self, candidate: Candidate) -> bytes:
        """The document, canonical JSON."""
        notes = candidate.notes
        return canonical_json(
            {
                "schema": SCHEMA,
                "form": MARK,
                "release": candidate.release,
                "version": candidate.version,
                "predecessor": candidate.predecessor,
                "codes": code_level(candidate.plan["label_space"]),
                "interval": "95%, from the noise and the sampling of the counts; wide rather than narrow",
                "coder_agreement": asdict(notes.coder_agreement) if notes and notes.coder_agreement else None,
                "sites": [_plain(asdict(site)) for site in self.sites],
                "absent": list(self.absent),
            }
        )


def bridge_study(candidate: Candidate) -> BridgeStudy:
    """Both bridges per hospital and over all hospitals, from the metric statements alone."""
    sites = [SiteBridges(each.site, *(_bridge(each, kind) for kind in _KINDS)) for each in candidate.metrics]
    if len(sites) > 1:
        sites.insert(0, SiteBridges(ALL_HOSPITALS, *(_pooled(candidate.metrics, kind) for kind in _KINDS)))
    absent: list[str] = []
    if not any(site.human.ratios for site in sites):
        absent.append("No hospital reported counts per chapter, so there is no comparability ratio by chapter.")
    if candidate.predecessor is None:
        absent.append("There is no earlier certified release to compare with.")
    elif not any(site.predecessor.agreement or site.predecessor.ratios for site in sites):
        absent.append(f"No hospital reported how the predecessor {candidate.predecessor} does on the same admissions.")
    if not (candidate.notes and candidate.notes.coder_agreement):
        absent.append("The release notes state no agreement between two human coders to hold these figures against.")
    if candidate.sites_without_metrics:
        absent.append(f"Planned, but without metrics: {', '.join(candidate.sites_without_metrics)}.")
    return BridgeStudy(tuple(sites), tuple(absent))


def code_level(labels: Sequence[str]) -> str:
    """The level at which agreement is counted, in words."""
    if all(len(label) <= 3 for label in labels):
        return f"ICD-10 categories (3 characters), {len(labels)} of them"
    return f"ICD-10 codes of up to {max(len(label.replace('.', '')) for label in labels)} characters, {len(labels)}"


def chapter_order(chapter: str) -> tuple[int, str]:
    """For sorting: ICD-10's own order of chapters, anything unknown after them."""
    return (_NUMERALS.index(chapter) if chapter in _NUMERALS else len(_NUMERALS), chapter)


@dataclass(frozen=True)
class _Kind:
    """Which reported values make a bridge."""

    reference: str  # prefix of the counts held against `predicted/`
    agreement: str  # the share of admissions with the same code under both codings
    shares_reference: bool  # `agreement/CHAPTER` is a share of the reference's count, so their product counts the same


_KINDS = (_Kind("true/", "hit@1", True), _Kind("predecessor-predicted/", "agreement", False))


@dataclass(frozen=True)
class _Pair:
    """Two noisy counts of one chapter over the same admissions."""

    count: float
    reference: float
    same: float  # admissions known to be in both
    variance: float | None  # of the noise on each count; None: not stated

    def __add__(self, other: _Pair) -> _Pair:
        known = self.variance is not None and other.variance is not None
        return _Pair(
            self.count + other.count,
            self.reference + other.reference,
            self.same + other.same,
            (self.variance or 0.0) + (other.variance or 0.0) if known else None,
        )


def _pairs(metrics: MetricsTrace, kind: _Kind) -> dict[str, _Pair]:
    """By chapter; a chapter of which one side was suppressed is left out, since it would bend the ratio."""
    values = {name: float(item["value"]) for name, item in metrics.values.items() if item["value"] is not None}
    std = metrics.mechanism.get("noise_std")
    stated = isinstance(std, int | float) and not isinstance(std, bool) and std >= 0
    variance = float(std) * float(std) if stated and std is not None else None
    pairs: dict[str, _Pair] = {}
    for chapter in _chapters(values):
        count, reference = values.get(f"predicted/{chapter}"), values.get(f"{kind.reference}{chapter}")
        if count is not None and reference is not None:
            share = values.get(f"{kind.agreement}/{chapter}", 0.0) if kind.shares_reference else 0.0
            same = min(max(share, 0.0), 1.0) * max(reference, 0.0)
            pairs[chapter] = _Pair(count, reference, same, variance)
    return pairs


def _pooled(metrics: Sequence[MetricsTrace], kind: _Kind) -> Bridge:
    total: dict[str, _Pair] = {}
    for each in metrics:
        for chapter, pair in _pairs(each, kind).items():
            total[chapter] = total[chapter] + pair if chapter in total else pair
    return Bridge(_ratios(total), ())


def _bridge(metrics: MetricsTrace, kind: _Kind) -> Bridge:
    return Bridge(_ratios(_pairs(metrics, kind)), _agreements(metrics, kind.agreement))


def _ratios(pairs: Mapping[str, _Pair]) -> tuple[Ratio, ...]:
    chapters = sorted(pairs, key=chapter_order)
    return tuple(_ratio(chapter, pairs[chapter]) for chapter in chapters if pairs[chapter].reference >= 1)


def _ratio(chapter: str, pair: _Pair) -> Ratio:
    """Noisy counts may be out of order or negative, so the spread is kept positive."""
    count = max(pair.count, 0.0)
    ratio = count / pair.reference
    lower = upper = None
    if pair.variance is not None:
        discordant = max(count + pair.reference - 2 * min(pair.same, count, pair.reference), 1.0)
        half = Z * math.sqrt(discordant + pair.variance * (1 + ratio * ratio)) / pair.reference
        lower, upper = max(ratio - half, 0.0), ratio + half
    return Ratio(chapter, pair.count, pair.reference, ratio, lower, upper)


def _agreements(metrics: MetricsTrace, metric: str) -> tuple[Agreement, ...]:
    found: list[Agreement] = []
    for name in [metric, *(f"{metric}/{chapter}" for chapter in sorted(_chapters(metrics.values), key=chapter_order))]:
        item = metrics.values.get(name)
        if item is not None and item["value"] is not None:
            chapter = name.partition("/")[2] or None
            found.append(Agreement(chapter, float(item["value"]), _float(item["lower"]), _float(item["upper"])))
    return tuple(found)


def _chapters(names: Mapping[str, Any]) -> set[str]:
    return {name.partition("/")[2] for name in names if "/" in name}


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
