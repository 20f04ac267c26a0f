"""The release notes of the demo's release: what people would write about a model trained on synthetic letters."""

from __future__ import annotations

from datetime import date, timedelta

from audit.documents.notes import DriftTrigger, KnownFailure, ReleaseNotes

VALID_FOR = timedelta(days=365)


def demo_notes(today: date) -> ReleaseNotes:
    """Notes of a release made today; usable for a year."""
    return ReleaseNotes(
        title="Day admissions coder, demonstration",
        intended_use="Shows how a release is made and checked. Its letters are synthetic, so it codes nothing real.",
        users=("anybody who tries Zegel",),
        exclusions=("coding of real admissions", "clinical decisions"),
        icd_edition="ICD-10, the codes of the synthetic sample",
        coding_rules="the sample's own: one main diagnosis per day admission",
        language="nl",
        licence="Apache-2.0",
        known_failures=(
            KnownFailure(
                "Conditions that the letters describe in few words are confused with each other.",
                "Look at all three suggestions before accepting the first.",
            ),
        ),
        drift_triggers=(
            DriftTrigger(
                "share of automatic codes that an audited sample finds wrong",
                "above 10% in a month",
                "the hospital stops automatic coding and reports to the release manager",
            ),
        ),
        rollback=None,
        expires=today + VALID_FOR,
        coder_agreement=None,
        contact="the demo's release manager",
    )
