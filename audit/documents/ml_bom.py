"""The machine learning bill of materials: CycloneDX 1.6 JSON of the model, its card, and the software around it.

Made from the candidate alone, so that a verifier makes it again; `admin_api.dossier_documents` checks it against
CycloneDX's own schema before anybody approves it. Its serial number is derived from the version, not drawn.

Source: ECMA-424 (CycloneDX 1.6), `modelCard`.
"""

from __future__ import annotations

import uuid
from typing import Any

from audit.canonical import canonical_json, format_time, hex_of
from audit.documents.candidate import Candidate
from audit.documents.form import MARK

_SPACE = uuid.UUID("6f0c2a52-9e0c-5f0e-8a51-2d7f6a1b6c11")  # a namespace of our own, for RFC 9562 version 5


def ml_bom(candidate: Candidate) -> bytes:
    """The bill of materials of a candidate, canonical JSON."""
    model_ref = f"model:{candidate.version}"
    packages = candidate.software.packages if candidate.software else ()
    components: list[dict[str, Any]] = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        }
        for name, version in packages
    ]
    value: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, f'{candidate.release} {candidate.version}')}",
        "version": 1,
        "metadata": {
            "timestamp": format_time(candidate.time),
            "component": _model(candidate, model_ref),
            "properties": [{"name": "zegel:form", "value": MARK}],
        },
        "components": components,
        "dependencies": [{"ref": model_ref, "dependsOn": [each["bom-ref"] for each in components]}],
    }
    if candidate.software:
        value["metadata"]["tools"] = {
            "components": [
                {
                    "type": "application",
                    "name": "zegel",
                    "version": candidate.software.version,
                    "hashes": [{"alg": "SHA-256", "content": hex_of(candidate.software.source)}],
                }
            ]
        }
    return canonical_json(value)


def _model(candidate: Candidate, reference: str) -> dict[str, Any]:
    notes, plan = candidate.notes, candidate.plan
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": candidate.title,
        "version": candidate.release,
        "publisher": candidate.consortium,
        "hashes": [{"alg": "SHA-256", "content": hex_of(candidate.version)}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "classification",
                "architectureFamily": _kind(plan["model"]),
                "modelArchitecture": _kind(plan["encoder"]),
                "datasets": [_data(candidate, index) for index in range(len(candidate.run.hospitals))],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "ICD-10 code"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(candidate)},
        },
        "properties": [
            {"name": "zegel:plan", "value": candidate.run.plan.plan_hash},
            {"name": "zegel:run", "value": candidate.run.run_id},
            {"name": "zegel:epsilon", "value": f"{candidate.epsilon:g}"},
            {"name": "zegel:delta", "value": f"{candidate.delta:g}"},
        ],
    }
    if notes:
        identifier = "name" if notes.licence.startswith("LicenseRef-") else "expression"
        model["licenses"] = (
            [{"license": {"name": notes.licence}}] if identifier == "name" else [{"expression": notes.licence}]
        )
        model["description"] = notes.intended_use
        model["modelCard"]["considerations"] = {
            "users": list(notes.users),
            "useCases": [notes.intended_use],
            "technicalLimitations": [each.what for each in notes.known_failures] + list(notes.exclusions),
        }
    return model


def _data(candidate: Candidate, index: int) -> dict[str, Any]:
    hospital = candidate.run.hospitals[index]
    return {
        "type": "dataset",
        "bom-ref": f"data:{hospital.site}:{hospital.manifest}",
        "name": f"{hospital.site} day admissions",
        "contents": {"properties": [{"name": "zegel:manifest", "value": hospital.manifest}]},
        "classification": "patient records; they never left the hospital",
        "governance": {"owners": [{"organization": {"name": hospital.organisation}}]},
    }


def _metrics(candidate: Candidate) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for metrics in candidate.metrics:
        for name, item in sorted(metrics.values.items()):
            if item["value"] is None:
                continue
            metric: dict[str, Any] = {"type": name, "value": f"{item['value']:.6g}", "slice": metrics.site}
            if item["lower"] is not None and item["upper"] is not None:
                metric["confidenceInterval"] = {
                    "lowerBound": f"{item['lower']:.6g}",
                    "upperBound": f"{item['upper']:.6g}",
                }
            found.append(metric)
    return found


def _kind(settings: object) -> str:
    if isinstance(settings, dict):
        return str(settings.get("kind", "not stated"))
    return str(settings)
