"""The provenance: an in-toto statement that says which run of which plan made the weights, from which materials.

Other supply chain tools read it: the subject is the model file, the predicate SLSA's provenance. Approvers sign it in a
DSSE envelope (`audit.dsse`) when they approve the release.

Source: in-toto attestation framework, Statement v1; SLSA v1.0 provenance.
"""

from __future__ import annotations

from typing import Any

from audit.canonical import canonical_json, format_time, hex_of
from audit.documents.candidate import Candidate
from audit.documents.form import MARK

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:zegel:federated-training:v1"
MODEL_FILE = "model.safetensors"


def provenance(candidate: Candidate) -> bytes:
    """The statement of a candidate, canonical JSON: the payload that is signed."""
    run = candidate.run
    materials = [{"name": "plan.json", "digest": _sha256(run.plan.plan_hash)}]
    materials += [{"name": "initial version", "digest": _sha256(run.initial_version)}]
    materials += [
        {"name": f"data manifest of {hospital.site}", "digest": _sha256(hospital.manifest)}
        for hospital in run.hospitals
        if hospital.rounds_joined
    ]
    versions: dict[str, str] = {"zegel": candidate.software.version} if candidate.software else {}
    byproducts: list[dict[str, Any]] = [
        {"name": f"signed metrics of {metrics.site}", "digest": _sha256(metrics.digest)}
        for metrics in candidate.metrics
    ]
    value: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": MODEL_FILE, "digest": _sha256(candidate.version)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"plan": run.plan.plan_hash, "release": candidate.release},
                "internalParameters": {
                    "form": MARK,
                    "epsilon": candidate.epsilon,
                    "delta": candidate.delta,
                    "accountant": candidate.accountant,
                    "rounds": len(run.rounds),
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": f"urn:zegel:consortium:{hex_of(candidate.root_fingerprint)}", "version": versions},
                "metadata": {
                    "invocationId": run.run_id,
                    "startedOn": format_time(run.started_at),
                    "finishedOn": format_time(run.finished_at),
                },
                "byproducts": byproducts,
            },
        },
    }
    return canonical_json(value)


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": hex_of(digest)}
