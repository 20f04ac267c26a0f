"""The federated model on a table of texts and codes: budgets, estimators and noise modes side by side.

    python benchmarks/text.py --train train.csv --test dev.csv            # a table
    python benchmarks/text.py --train both.csv --train-split train --test both.csv --test-split dev --json

Every row comes from `zegel benchmark text`: the real coordinator and participants over the in-memory transport. The
targets are those set for RuMedTop3 (train -> dev, 8 hospitals, delta 1e-5) under distributed noise, for the better of
the two estimators; for another table read the values only. Pooled and single-hospital models stand beside them.
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
    "8": {"hit@1": 0.41, "hit@3": 0.64},
    "3": {"hit@1": 0.33, "hit@3": 0.52},
    "1": {"hit@1": 0.22, "hit@3": 0.37},
}
WAYS = ("dp-sgd distributed", "ridge distributed", "dp-sgd local", "ridge local")
SHOWN = ("hit@1", "hit@3", "macro-F1", "rounds", "upload per hospital", "wall time")
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
    parser.add_argument("--way", action="append", choices=WAYS, help="estimator and noise; all if not given")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for path in (arguments.train, arguments.test):
        if not path.exists():
            parser.error(f"{path} is not there; this benchmark needs a table of texts and codes")
    rows: list[dict[str, Any]] = []
    ways = tuple(arguments.way or WAYS)
    for way in ways:
        for epsilon in arguments.epsilon:
            if epsilon == "none" and way.endswith("local"):
                continue  # without noise the two modes are one
            rows += measure(arguments, epsilon, way, first=not rows)
    if arguments.json:
        print(json.dumps(rows))
        return
    print_table(rows, ways, arguments.epsilon)
    for row in rows:
        target = "" if row["target"] is None else f"  target {row['target']}: {'holds' if row['holds'] else 'MISSED'}"
        value = "none" if row["value"] is None else f"{row['value']:.4g}"
        print(f"{row['name']:72} {value:>12} {row['unit']}{target}")


def print_table(rows: list[dict[str, Any]], ways: tuple[str, ...], epsilons: list[str]) -> None:
    """One line for each estimator, noise mode and budget."""
    values = {row["name"]: row["value"] for row in rows}
    print(f"{'estimator, noise':22}{'epsilon':>8}" + "".join(f"{name:>22}" for name in SHOWN))
    for way in ways:
        for epsilon in epsilons:
            found = [values.get(f"{way}, epsilon {epsilon}: {name}") for name in SHOWN]
            if found[0] is not None:
                print(f"{way:22}{epsilon:>8}" + "".join(f"{value:>22,.3f}" for value in found if value is not None))
    print()


def measure(arguments: argparse.Namespace, epsilon: str, way: str, *, first: bool) -> list[dict[str, Any]]:
    """One run of the command; single-hospital models are trained once, since they do not depend on the way."""
    estimator, noise = way.split()
    command = [sys.executable, "-m", "admin_api.cli", "benchmark", "text", "--json", "--epsilon", epsilon]
    command += ["--train", str(arguments.train), "--test", str(arguments.test)]
    command += ["--hospitals", str(arguments.hospitals), "--seed", str(arguments.seed)]
    for name in ("train_split", "test_split"):
        if getattr(arguments, name):
            command += [f"--{name.replace('_', '-')}", getattr(arguments, name)]
    command += ["--estimator", estimator, "--noise", noise, "--single" if first else "--no-single"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"{way}, epsilon {epsilon}: {answer.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    values = {row["name"]: row["value"] for row in found}
    rows = []
    for row in found:
        target = TARGETS.get(epsilon, {}).get(row["name"]) if way == "dp-sgd distributed" else None
        rows.append(
            {
                "name": f"{way}, epsilon {epsilon}: {row['name']}",
                "value": row["value"],
                "unit": row["unit"],
                "target": None if target is None else f">= {target}",
                "holds": None if target is None else row["value"] >= target,
            }
        )
    if epsilon == "none" and estimator == "dp-sgd":
        for name in ("hit@1", "hit@3"):
            gap = abs(values[name] - values[f"pooled {name}"])
            rows.append(
                {
                    "name": f"{way}, epsilon none: |federated - pooled| {name}",
                    "value": gap,
                    "unit": "share",
                    "target": f"<= {GAP}",
                    "holds": gap <= GAP,
                }
            )
    return rows


if __name__ == "__main__":
    main()
