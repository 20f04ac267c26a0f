"""The federated model on a table of texts and codes, at several budgets, beside pooled and single-hospital models.

    python benchmarks/text.py --train train.csv --test dev.csv            # a table
    python benchmarks/text.py --train both.csv --train-split train --test both.csv --test-split dev --json

Every row comes from `zegel benchmark text`: the real coordinator and participants over the in-memory transport. The
targets are those set for RuMedTop3 (train -> dev, 8 hospitals, delta 1e-5); for another table read the values only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TARGETS = {
    "none": {"hit@1": 0.46, "hit@3": 0.70},
    "8": {"hit@1": 0.40, "hit@3": 0.63},
    "3": {"hit@1": 0.31, "hit@3": 0.50},
    "1": {},
}
GAP = 0.01  # without privacy, federated and pooled may differ by this much


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--train-split")
    parser.add_argument("--test-split")
    parser.add_argument("--hospitals", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epsilon", nargs="*", default=list(TARGETS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for path in (arguments.train, arguments.test):
        if not path.exists():
            parser.error(f"{path} is not there; this benchmark needs a table of texts and codes")
    rows: list[dict[str, Any]] = []
    for epsilon in arguments.epsilon:
        rows += measure(arguments, epsilon)
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        target = "" if row["target"] is None else f"  target {row['target']}: {'holds' if row['holds'] else 'MISSED'}"
        value = "none" if row["value"] is None else f"{row['value']:.4g}"
        print(f"{row['name']:55} {value:>12} {row['unit']}{target}")


def measure(arguments: argparse.Namespace, epsilon: str) -> list[dict[str, Any]]:
    """One run of the command; single-hospital models are trained once, since they do not depend on epsilon."""
    command = [sys.executable, "-m", "admin_api.cli", "benchmark", "text", "--json", "--epsilon", epsilon]
    command += ["--train", str(arguments.train), "--test", str(arguments.test)]
    command += ["--hospitals", str(arguments.hospitals), "--seed", str(arguments.seed)]
    for name in ("train_split", "test_split"):
        if getattr(arguments, name):
            command += [f"--{name.replace('_', '-')}", getattr(arguments, name)]
    command.append("--single" if epsilon == arguments.epsilon[0] else "--no-single")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"epsilon {epsilon}: {answer.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    values = {row["name"]: row["value"] for row in found}
    rows = []
    for row in found:
        target = TARGETS.get(epsilon, {}).get(row["name"])
        rows.append(
            {
                "name": f"epsilon {epsilon}: {row['name']}",
                "value": row["value"],
                "unit": row["unit"],
                "target": None if target is None else f">= {target}",
                "holds": None if target is None else row["value"] >= target,
            }
        )
    if epsilon == "none":
        for name in ("hit@1", "hit@3"):
            gap = abs(values[name] - values[f"pooled {name}"])
            rows.append(
                {
                    "name": f"epsilon none: |federated - pooled| {name}",
                    "value": gap,
                    "unit": "share",
                    "target": f"<= {GAP}",
                    "holds": gap <= GAP,
                }
            )
    return rows


if __name__ == "__main__":
    main()
