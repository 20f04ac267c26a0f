"""One step with clipped per-patient gradients beside one without: time as a ratio, and peak memory.

    python benchmarks/dp_step.py                      # a table
    python benchmarks/dp_step.py --json > dp_step.json
    python benchmarks/dp_step.py --cases linear lora-128 --rounds 15

Four ways of each step, on the same model and the same batch: without privacy (forward, backward, sum), Opacus by hooks,
Opacus by ghost clipping, and ours (`jobs.icd_coding.bookkeeping`). Every way runs in a process of its own with one
thread. Processes take turns, one step each per round, and a ratio is the median over rounds of a way's processor time
and that of the step without privacy in the same round; so what else the machine does mostly cancels out. Peak memory is
a process's highest resident memory above what it held before its first step. The clipped sums of all ways are compared.

Cases: `linear` is the coding model, 4,096 features and 105 codes in float64, 512 patients, from sparse rows to the
summed vector as a hospital computes it. `lora-T` is an encoder of MiniLM's size (6 layers of 384) with adapters of rank
8 on queries and values, T tokens. `encoder-T` trains all of a small encoder: 4 layers of 256, 4 heads, 8,192 words.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Way = Literal["non-private", "hooks", "ghost", "book-keeping"]
WAYS: tuple[Way, ...] = get_args(Way)
NAMES = {"non-private": "non-private", "hooks": "Opacus hooks", "ghost": "Opacus ghost", "book-keeping": "ours"}
CASES = ("linear", "lora-128", "lora-512", "encoder-128", "encoder-512")
TARGETS = {"linear": 1.3, "lora-128": 1.5, "lora-512": 1.5, "encoder-128": 1.8, "encoder-512": 1.4}
CLIP = 0.5
LABELS = 105
TOKENS_PER_BATCH = 2048
AGREEMENT = 1e-4  # largest difference of two ways' sums, relative to the sum

Step = Callable[[], NDArray[np.float64]]


def linear_step(way: Way) -> Step:
    """From 512 sparse rows to the summed vector."""
    import torch
    from scipy import sparse

    from jobs.icd_coding.gradient import clipped_gradient_sum
    from jobs.icd_coding.model import LinearModel, centred_rows

    patients, features = 512, 4096
    rng = np.random.default_rng(1)
    dense = rng.random((patients, features)) * (rng.random((patients, features)) < 0.08)
    rows = sparse.csr_matrix((dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float32))
    labels = rng.integers(0, LABELS, patients)
    model = LinearModel(features=features, labels=LABELS)
    mean = 0.01 * rng.random(features)
    parameters = model.from_vector(0.1 * rng.normal(size=model.vector_length), feature_mean=mean)
    if way == "hooks":  # every gradient is formed: 512 at once would take 12 GiB
        return lambda: sum_of_slices(
            lambda part: clipped_gradient_sum(parameters, rows[part], labels[part], CLIP, mode=way)[0], patients
        )
    if way != "non-private":
        return lambda: clipped_gradient_sum(parameters, rows, labels, CLIP, mode=way)[0]

    def step() -> NDArray[np.float64]:
        weight = torch.from_numpy(parameters.weight.astype(np.float64)).requires_grad_(True)
        bias = torch.from_numpy(parameters.bias.astype(np.float64)).requires_grad_(True)
        inputs = torch.from_numpy(centred_rows(rows, parameters.feature_mean))
        losses = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, torch.from_numpy(labels), reduction="sum")
        losses.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None and bias.grad is not None
        return np.concatenate([weight.grad.numpy().ravel(), bias.grad.numpy()])

    return step


def sum_of_slices(step: Callable[[slice], NDArray[np.float64]], patients: int) -> NDArray[np.float64]:
    """A step in slices of 32 patients, added up."""
    total = step(slice(0, 32))
    for start in range(32, patients, 32):
        total += step(slice(start, start + 32))
    return total


def network_step(way: Way, module: Any, tokens: int, vocabulary: int) -> Step:
    """One physical batch through a network of tokens."""
    import torch

    from jobs.icd_coding.clipping import clipping

    patients = TOKENS_PER_BATCH // tokens
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, vocabulary, (patients, tokens), generator=generator)
    labels = torch.randint(0, LABELS, (patients,), generator=generator)

    def losses(reduction: str = "none") -> Any:
        return torch.nn.functional.cross_entropy(module(ids), labels, reduction=reduction)

    if way == "non-private":
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

        def step() -> NDArray[np.float64]:
            losses("sum").backward()
            return np.concatenate([parameter.grad.numpy()[:1].ravel() for parameter in trained])

        return step
    clipped = clipping(module, CLIP, way)
    total = {"steps": 0}

    def clipped_step() -> NDArray[np.float64]:
        dropped = clipped.add(losses, patients=patients)
        assert dropped == 0
        total["steps"] += 1
        return np.zeros(0)

    def mean_sum() -> NDArray[np.float64]:
        return np.concatenate([value.ravel() for value in clipped.total().values()]) / total["steps"]

    clipped_step.result = mean_sum  # type: ignore[attr-defined]
    return clipped_step


def small_encoder(tokens: int) -> Any:
    """4 pre-norm layers of width 256 with 4 heads, 8,192 words; mean pooling and a linear head."""
    import torch
    from torch import Tensor, nn

    width, heads, vocabulary = 256, 4, 8192

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.output = nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            rows, length, _ = x.shape
            normal = self.before(x)
            query, key, value = (
                layer(normal).view(rows, length, heads, -1).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            seen = nn.functional.scaled_dot_product_attention(query, key, value)
            x = x + self.output(seen.transpose(1, 2).reshape(rows, length, width))
            wider: Tensor = self.widen(self.between(x))
            sum_of_both: Tensor = x + self.narrow(nn.functional.gelu(wider))
            return sum_of_both

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
            self.layers = nn.ModuleList(Layer() for _ in range(4))
            self.last = nn.LayerNorm(width)
            self.head = nn.Linear(width, LABELS)

        def forward(self, ids: Tensor) -> Tensor:
            # A row of positions for every patient, as per-patient gradients need.
            positions = torch.arange(ids.shape[1]).expand(len(ids), -1).contiguous()
            x: Tensor = self.words(ids) + self.positions(positions)
            for layer in self.layers:
                x = layer(x)
            scores: Tensor = self.head(self.last(x).mean(1))
            return scores

    return Encoder()


def adapted_encoder() -> Any:
    """A BERT of MiniLM's size with random weights, adapters on queries and values, mean pooling and a linear head."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from torch import Tensor, nn
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=8192
    )
    adapters = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.0)
    encoder = inject_adapter_in_model(adapters, BertModel(config, add_pooling_layer=False).requires_grad_(False)).eval()
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:  # at their start of zero, A has no gradient
            torch.nn.init.normal_(parameter, std=0.02)

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = encoder, nn.Linear(384, LABELS)

        def forward(self, ids: Tensor) -> Tensor:
            hidden = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            scores: Tensor = self.head(hidden.mean(1))
            return scores

    return Adapted()


def make_step(case: str, way: Way) -> Step:
    """The step of a case, done in one of the ways."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if case == "linear":
        return linear_step(way)
    kind, _, tokens = case.partition("-")
    module = adapted_encoder() if kind == "lora" else small_encoder(int(tokens))
    return network_step(way, module, int(tokens), 8192)


def work(case: str, way: Way) -> None:
    """A process of one way: a step for every line that comes in; at the end, peak memory and the sum."""
    import psutil

    step = make_step(case, way)
    before = psutil.Process().memory_info().rss
    print("ready", flush=True)
    result = np.zeros(0)
    for _ in sys.stdin:
        start = time.process_time()
        result = step()
        print(time.process_time() - start, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    result = getattr(step, "result", lambda: result)()
    directions = np.random.default_rng(3).normal(size=(4, result.size))
    print(
        json.dumps(
            {
                "peak_bytes": peak - before,
                "norm": float(np.linalg.norm(result)),
                "views": (directions @ result).tolist(),
            }
        )
    )


def measure(case: str, rounds: int) -> list[dict[str, Any]]:
    """Runs the four ways of a case in turns."""
    with ExitStack() as stack:
        workers = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--as-worker", case, way]
            worker = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
                )
            )
            stack.callback(worker.kill)
            workers[way] = worker
            answer(worker, way)  # built; one after the other, so that memory at the start is its own
        seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds + 1):
            # Each round begins with another way, so that none always runs after the same neighbour.
            for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                worker = workers[way]
                assert worker.stdin is not None
                worker.stdin.write("step\n")
                worker.stdin.flush()
                taken = float(answer(worker, way))
                if number:  # the first is a warm-up
                    seconds[way].append(taken)
        ends = {}
        for way, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.close()
            ends[way] = json.loads(answer(worker, way))
    lines = []
    for way in WAYS:
        ratios = [own / base for own, base in zip(seconds[way], seconds["non-private"], strict=True)]
        ratio = statistics.median(ratios)
        target = TARGETS[case] if way == "book-keeping" else None
        lines.append(
            {
                "case": case,
                "way": way,
                "ratio": ratio,
                "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2] if rounds > 1 else [ratio, ratio],
                "seconds": statistics.median(seconds[way]),
                "peak_mib": ends[way]["peak_bytes"] / 2**20,
                "target": target,
                "holds": None if target is None else ratio <= target,
                "agrees": None if way == "non-private" else agree(ends[way], ends["book-keeping"]),
            }
        )
    return lines


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sums are the same vector, seen along four random directions."""
    difference = np.abs(np.array(one["views"]) - np.array(other["views"])).max()
    return bool(difference <= AGREEMENT * other["norm"])


def answer(worker: subprocess.Popen[str], way: Way) -> str:
    """The next line of a worker. Exits when it died: its own message stands above."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"{NAMES[way]}: the process ended; see above")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=9, help="steps of every way that are timed (default 9)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--as-worker", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_worker:
        work(*arguments.as_worker)
        return
    if arguments.rounds < 1:
        parser.error("--rounds: expected at least 1")
    lines = []
    for case in arguments.cases:
        lines += measure(case, arguments.rounds)
        if not arguments.json:
            for line in lines[-len(WAYS) :]:
                print(tell(line), flush=True)
    if arguments.json:
        print(json.dumps(lines))
    if any(line["agrees"] is False for line in lines):
        sys.exit("the ways do not give the same sum")


def tell(line: dict[str, Any]) -> str:
    """A line of the table."""
    low, high = line["ratio_quartiles"]
    text = f"{line['case']:12} {NAMES[line['way']]:14} {line['ratio']:6.2f}x  ({low:.2f}-{high:.2f})"
    text += f"  {line['seconds'] * 1000:8.1f} ms  {line['peak_mib']:7.0f} MiB"
    if line["target"] is not None:
        text += f"  target <= {line['target']}: {'holds' if line['holds'] else 'MISSED'}"
    return text + ("  SUMS DIFFER" if line["agrees"] is False else "")


if __name__ == "__main__":
    main()
