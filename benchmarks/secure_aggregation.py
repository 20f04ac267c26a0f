"""Secure aggregation: time, traffic and memory, beside flwr's SecAgg+ primitives and TenSEAL's CKKS.

    python benchmarks/secure_aggregation.py                                    # a table
    python benchmarks/secure_aggregation.py --peers-python peers/bin/python    # with the peers
    python benchmarks/secure_aggregation.py --json > secure_aggregation.json

What is measured is the processor time that a round costs one party, which other work on the machine lengthens least:
every message is written and parsed, every signature is RSA-2048 (PSS) as with the hospitals' certificates, and every
sum is checked to be exact. Times are medians. Not included: transport, and the training that made the vector.

The peers run in an environment of their own (requirements-peers.txt), through this same file with
`--as-peer`. What is not installed is reported as absent. flwr's numbers are its primitives put together as
its client mod and workflow do (key agreement, pseudo_rand_gen, add, mod; combine_shares, pseudo_rand_gen,
subtract, mod), without its quantisation, transport and share encryption.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

MILLION = 1_000_000
PEER_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Line:
    """One result.

    Attributes:
      name: what was measured.
      value: the number; None if it could not be measured.
      unit: its unit, or why there is no number.
      target: what it should be; empty if there is no target.
      holds: whether it is; None if there is no target or no number.
    """

    name: str
    value: float | None
    unit: str
    target: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class RoundCost:
    """What one round cost: seconds, bytes, vectors."""

    client_mask_s: float
    client_rest_s: float
    server_sum_s: float
    server_unmask_s: float
    upload_bytes: float
    upload_rest_bytes: float


def wire_bytes(wire: dict[str, Any]) -> int:
    """Bytes of a message's values, arrays as they lie in memory."""
    size = 0
    for value in wire.values():
        if isinstance(value, np.ndarray):
            size += value.nbytes
        elif isinstance(value, bytes):
            size += len(value)
        else:
            size += len(json.dumps(value))
    return size


def rsa_identity() -> tuple[Callable[[bytes], bytes], Callable[[str, bytes, bytes], None]]:
    """A signer and verifier of the cost of the hospitals' certificates. One key stands for all hospitals."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key()
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)

    def verify(_peer: str, message: bytes, signature: bytes) -> None:
        public.verify(signature, message, pss, hashes.SHA256())

    return lambda message: key.sign(message, pss, hashes.SHA256()), verify


def measure_round(
    sites: int,
    dimension: int,
    *,
    dropped: int = 0,
    allowed_dropouts: int | None = None,
    ring_bits: Literal[32, 64] = 64,
    repeats: int = 5,
) -> RoundCost:
    """Runs rounds in this process and returns the median cost of one party's part.

    Args:
      dropped: hospitals whose vectors never come.
      allowed_dropouts: as many as the threshold bears if not given.
    """
    from privacy.secagg.messages import (
        MaskedVector,
        RoundRequest,
        SurvivorsRequest,
        SurvivorsSignature,
        UnmaskAnswer,
        UnmaskRequest,
    )
    from privacy.secagg.parameters import SecAggParameters, default_threshold
    from privacy.secagg.simulate import Federation

    names = tuple(f"hospital-{i:02}" for i in range(1, sites + 1))
    signer, verifier = rsa_identity()
    federation = Federation(
        parameters=SecAggParameters(
            consortium="benchmark",
            run_id="run-1",
            sites=names,
            dimension=dimension,
            allowed_dropouts=sites - default_threshold(sites) if allowed_dropouts is None else allowed_dropouts,
            ring_bits=ring_bits,
        ),
        signers=dict.fromkeys(names, signer),
        verifier=verifier,
        randomness=os.urandom,
    )
    high = (1 << (ring_bits - 1)) // sites
    vector = np.random.default_rng(1).integers(-high, high, dimension)
    server = federation.server
    costs: list[RoundCost] = []
    for round_number in range(1, repeats + 1):
        federation.set_up(round_number)
        masking, rest, summing, unmasking = [], dict.fromkeys(names, 0.0), [], []
        upload = upload_rest = 0
        for site, round_request in server.start_round().items():
            if site in names[:dropped]:
                continue
            wire = round_request.to_message()
            client = federation.clients[site]
            start = time.process_time()
            client.open_round(RoundRequest.from_message(wire))
            answer = client.mask(vector).to_message()
            masking.append(time.process_time() - start)
            upload = wire_bytes(answer)
            start = time.process_time()
            server.receive_masked_vector(site, MaskedVector.from_message(answer))
            summing.append(time.process_time() - start)
            del answer
        for site, survivors_request in server.survivors_requests().items():
            wire = survivors_request.to_message()
            start = time.process_time()
            answer = federation.clients[site].sign_survivors(SurvivorsRequest.from_message(wire)).to_message()
            rest[site] += time.process_time() - start
            upload_rest = wire_bytes(answer)
            server.receive_signature(site, SurvivorsSignature.from_message(answer))
        for site, unmask_request in server.unmask_requests(round_number + 1).items():
            wire = unmask_request.to_message()
            start = time.process_time()
            answer = federation.clients[site].unmask(UnmaskRequest.from_message(wire)).to_message()
            rest[site] += time.process_time() - start
            start = time.process_time()
            server.receive_answer(site, UnmaskAnswer.from_message(answer))
            unmasking.append(time.process_time() - start)
        upload_rest += wire_bytes(answer)
        start = time.process_time()
        aggregate = server.finish()
        unmasking.append(time.process_time() - start)
        assert np.array_equal(aggregate.total, vector * (sites - dropped)), "the sum is not exact"
        costs.append(
            RoundCost(
                client_mask_s=statistics.median(masking),
                client_rest_s=statistics.median(rest[site] for site in names[dropped:]),
                server_sum_s=sum(summing),
                server_unmask_s=sum(unmasking),
                upload_bytes=float(upload),
                upload_rest_bytes=float(upload_rest),
            )
        )
    return _median_cost(costs)


def measure_dropout(
    sites: int, dimension: int, *, allowed_dropouts: int, pairs: int = 5
) -> tuple[RoundCost, RoundCost, float]:
    """An undisturbed round and one with a hospital dropped, in turns, so that what else the machine does hits both.

    Returns:
      The median costs of both, and the median of the pairs' ratios of the server's unmasking.
    """
    costs: dict[int, list[RoundCost]] = {0: [], 1: []}
    for _ in range(pairs):
        for lost, found in costs.items():
            found.append(measure_round(sites, dimension, dropped=lost, allowed_dropouts=allowed_dropouts, repeats=1))
    plain, dropped = costs.values()
    ratios = [late.server_unmask_s / early.server_unmask_s for early, late in zip(plain, dropped, strict=True)]
    return _median_cost(plain), _median_cost(dropped), statistics.median(ratios)


def _median_cost(costs: list[RoundCost]) -> RoundCost:
    return RoundCost(**{field: statistics.median(asdict(cost)[field] for cost in costs) for field in asdict(costs[0])})


def measure_peak_vectors(sites: int, dimension: int) -> tuple[float, float]:
    """Peak memory of a client and of the server in one round, in vectors of 8 bytes per parameter.

    The client's counts the vector it was given; the server's the vector it is being handed, read from disk.
    """
    from privacy.secagg.messages import MaskedVector
    from privacy.secagg.simulate import Federation

    federation = Federation.of(sites, dimension=dimension, randomness=os.urandom)
    federation.set_up(1)
    vector = np.ones(dimension, np.int64)
    server = federation.server
    requests = server.start_round()
    peak_client = peak_server = 0

    def peak_of(act: Callable[[], object]) -> int:
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        act()
        return tracemalloc.get_traced_memory()[1] - before

    with tempfile.TemporaryDirectory() as folder:
        wires: dict[str, dict[str, Any]] = {}
        tracemalloc.start()
        try:
            for site, request in requests.items():
                client = federation.clients[site]

                def mask(client: Any = client, request: Any = request, site: str = site) -> None:
                    client.open_round(request)
                    wire = client.mask(vector).to_message()
                    np.save(Path(folder) / f"{site}.npy", wire.pop("vector"))
                    wires[site] = wire

                peak_client = max(peak_client, peak_of(mask) + vector.nbytes)
            for site, wire in wires.items():

                def receive(site: str = site, wire: dict[str, Any] = wire) -> None:
                    upload = wire | {"vector": np.load(Path(folder) / f"{site}.npy")}
                    server.receive_masked_vector(site, MaskedVector.from_message(upload))

                peak_server = max(peak_server, peak_of(receive))
            for site, survivors in server.survivors_requests().items():
                server.receive_signature(site, federation.clients[site].sign_survivors(survivors))
            for site, unmask in server.unmask_requests().items():
                server.receive_answer(site, federation.clients[site].unmask(unmask))
            peak_server = max(peak_server, peak_of(server.finish))
        finally:
            tracemalloc.stop()
    size = 8.0 * dimension
    return peak_client / size, peak_server / size + 1  # the running sum was there before


def median_time(act: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of a few calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return statistics.median(times)


def peer_flwr() -> dict[str, float]:
    """flwr's SecAgg+ primitives, 10 clients, 1e6 parameters, its default modulus 2^32.

    Runs in the peers' environment.
    """
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic  # type: ignore[import-not-found]
    from flwr.common.secure_aggregation.crypto.shamir import (  # type: ignore[import-not-found]
        combine_shares,
        create_shares,
    )
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import (  # type: ignore[import-not-found]
        generate_shared_key,
    )
    from flwr.common.secure_aggregation.secaggplus_utils import (  # type: ignore[import-not-found]
        pseudo_rand_gen,
    )
    from flwr.supercore.primitives.asymmetric import generate_key_pairs  # type: ignore[import-not-found]

    sites, modulus, shape = 10, 1 << 32, [(MILLION,)]
    pairs = [generate_key_pairs() for _ in range(sites)]
    seeds = [os.urandom(32) for _ in range(sites)]
    vector = [np.arange(MILLION, dtype=np.int64) % 4096]

    def mask(me: int) -> list[Any]:
        masked = arithmetic.parameters_addition(vector, pseudo_rand_gen(seeds[me], modulus, shape))
        for peer in range(sites):
            if peer != me:
                key = generate_shared_key(pairs[me][0], pairs[peer][1])
                change = pseudo_rand_gen(key, modulus, shape)
                operation = arithmetic.parameters_addition if me > peer else arithmetic.parameters_subtraction
                masked = operation(masked, change)
        return list(arithmetic.parameters_mod(masked, modulus))

    shares = [create_shares(seed, 7, sites) for seed in seeds]

    def unmask(total: list[Any], survivors: list[int], dropped: list[int]) -> list[Any]:
        for site in survivors:
            seed = combine_shares(shares[site][:7])
            total = arithmetic.parameters_subtraction(total, pseudo_rand_gen(seed, modulus, shape))
        for site in dropped:
            for peer in survivors:
                key = generate_shared_key(pairs[site][0], pairs[peer][1])
                change = pseudo_rand_gen(key, modulus, shape)
                operation = arithmetic.parameters_subtraction if peer > site else arithmetic.parameters_addition
                total = operation(total, change)
        return list(arithmetic.parameters_mod(total, modulus))

    uploads = [mask(site) for site in range(sites)]
    for dropped in ([], [3]):
        survivors = [site for site in range(sites) if site not in dropped]
        total = [np.sum([uploads[site][0] for site in survivors], axis=0)]
        right = np.array_equal(unmask(total, survivors, dropped)[0], vector[0] * len(survivors))
        assert right, "flwr's sum is not exact"
    everyone = list(range(sites))
    total = [np.sum([upload[0] for upload in uploads], axis=0)]
    return {
        "client_mask_s": median_time(lambda: mask(4)),
        "server_unmask_s": median_time(lambda: unmask(total, everyone, [])),
        "server_unmask_one_dropped_s": median_time(lambda: unmask(total, everyone[:-1], everyone[-1:])),
        "upload_bytes_per_parameter": uploads[0][0].nbytes / MILLION,
    }


def peer_tenseal() -> dict[str, float]:
    """TenSEAL CKKS with the parameters NVFlare uses (8192, 60-40-40, scale 2^40), 1e6 parameters."""
    import tenseal  # type: ignore[import-not-found]

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    vector = np.random.default_rng(1).normal(size=MILLION)
    chunks = [vector[start : start + 4096] for start in range(0, MILLION, 4096)]

    def encrypt() -> list[bytes]:
        return [tenseal.ckks_vector(context, chunk).serialize() for chunk in chunks]

    upload = encrypt()

    def decrypt() -> None:
        for blob in upload:
            tenseal.ckks_vector_from(context, blob).decrypt()

    return {
        "client_encrypt_s": median_time(encrypt),
        "client_decrypt_s": median_time(decrypt),
        "upload_bytes_per_parameter": sum(map(len, upload)) / MILLION,
    }


PEERS: dict[str, Callable[[], dict[str, float]]] = {"flwr": peer_flwr, "tenseal": peer_tenseal}


def run_peer(name: str, python: str | None) -> dict[str, float] | str:
    """A peer's numbers, or why there are none."""
    if python is None:
        return "absent: no --peers-python given"
    program = [python, str(Path(__file__).resolve()), "--as-peer", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            program, capture_output=True, text=True, timeout=PEER_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"absent: {error}"
    if done.returncode != 0:
        return f"absent: {(done.stderr.strip().splitlines() or ['it failed without a message'])[-1]}"
    numbers: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return numbers


def at_most(name: str, value: float, unit: str, limit: float) -> Line:
    """A line whose target is an upper limit."""
    return Line(name, value, unit, f"at most {limit:g} {unit}", value <= limit)


def measure(peers_python: str | None) -> list[Line]:
    """All lines."""
    # The plan that allows the one dropout measured, and the one that allows as many as the threshold bears.
    ten, ten_dropped, ratio = measure_dropout(10, MILLION, allowed_dropouts=1)
    most, most_dropped, most_ratio = measure_dropout(10, MILLION, allowed_dropouts=3)
    ten_small_ring = measure_round(10, MILLION, allowed_dropouts=1, ring_bits=32)
    forty = measure_round(40, MILLION, repeats=3)
    peak_client, peak_server = measure_peak_vectors(10, MILLION)
    ten_name = "10 hospitals, 1e6 parameters"  # one dropout allowed, unless said otherwise
    lines = [
        Line(f"{ten_name}: client masking", ten.client_mask_s, "s"),
        Line(f"{ten_name}: client, calls 2 and 3", ten.client_rest_s, "s"),
        Line(f"{ten_name}: server adding the vectors", ten.server_sum_s, "s"),
        Line(f"{ten_name}: server unmasking", ten.server_unmask_s, "s"),
        at_most(f"{ten_name}: upload, 2^64 ring", _all_bytes(ten) / MILLION, "B/parameter", 8.1),
        at_most(f"{ten_name}: upload, 2^32 ring", _all_bytes(ten_small_ring) / MILLION, "B/parameter", 4.1),
        Line(f"{ten_name}: client masking, 2^32 ring", ten_small_ring.client_mask_s, "s"),
        Line(f"{ten_name}: server unmasking, 2^32 ring", ten_small_ring.server_unmask_s, "s"),
        at_most(f"{ten_name}: client peak memory", peak_client, "vectors", 3),
        at_most(f"{ten_name}: server peak memory", peak_server, "vectors", 3),
        Line(f"{ten_name}: server unmasking, one dropped", ten_dropped.server_unmask_s, "s"),
        at_most(f"{ten_name}: unmasking with one dropped / undisturbed", ratio, "x", 1.5),
        Line(f"{ten_name}, 3 dropouts allowed: client masking", most.client_mask_s, "s"),
        Line(f"{ten_name}, 3 dropouts allowed: unmasking, one dropped", most_dropped.server_unmask_s, "s"),
        at_most(f"{ten_name}, 3 dropouts allowed: one dropped / undisturbed", most_ratio, "x", 1.5),
        at_most(
            "40 hospitals, 1e6 parameters: client, all calls",
            forty.client_mask_s + forty.client_rest_s,
            "s",
            1.0,
        ),
        Line("40 hospitals, 1e6 parameters: server unmasking", forty.server_unmask_s, "s"),
    ]
    flwr = run_peer("flwr", peers_python)
    for ours, theirs, label in (
        (ten.client_mask_s, "client_mask_s", "client masking"),
        (ten.server_unmask_s, "server_unmask_s", "server unmasking"),
        (ten_dropped.server_unmask_s, "server_unmask_one_dropped_s", "server unmasking, one dropped"),
    ):
        if isinstance(flwr, str):
            lines.append(Line(f"flwr SecAgg+: {label}", None, flwr, "ours at most half of flwr's"))
            continue
        lines.append(Line(f"flwr SecAgg+: {label}", flwr[theirs], "s"))
        lines.append(at_most(f"{ten_name}: {label}, ours / flwr's", ours / flwr[theirs], "x", 0.5))
    if not isinstance(flwr, str):
        lines.append(Line("flwr SecAgg+: upload", flwr["upload_bytes_per_parameter"], "B/parameter"))
    tenseal = run_peer("tenseal", peers_python)
    for theirs, label, unit in (
        ("client_encrypt_s", "client encrypting and serialising", "s"),
        ("client_decrypt_s", "client reading and decrypting", "s"),
        ("upload_bytes_per_parameter", "upload", "B/parameter"),
    ):
        value = None if isinstance(tenseal, str) else tenseal[theirs]
        lines.append(Line(f"TenSEAL CKKS: {label}", value, tenseal if isinstance(tenseal, str) else unit))
    for sites in (4, 10, 20, 40):
        for dimension in (10_000, 100_000, MILLION):
            done = {(10, MILLION): (most, most_dropped), (40, MILLION): (forty, None)}.get((sites, dimension))
            whole, dropped = done or (measure_round(sites, dimension, repeats=3), None)
            dropped = dropped or measure_round(sites, dimension, dropped=1, repeats=3)
            growth = f"growth: {sites} hospitals, {dimension:g} parameters"
            lines += [
                Line(f"{growth}: client masking", whole.client_mask_s, "s"),
                Line(f"{growth}: client, calls 2 and 3", whole.client_rest_s, "s"),
                Line(f"{growth}: server unmasking", whole.server_unmask_s, "s"),
                Line(f"{growth}: server unmasking, one dropped", dropped.server_unmask_s, "s"),
                Line(f"{growth}: upload", _all_bytes(whole) / dimension, "B/parameter"),
            ]
    return lines


def _all_bytes(cost: RoundCost) -> float:
    return cost.upload_bytes + cost.upload_rest_bytes


def print_table(lines: list[Line]) -> None:
    """Prints the lines, then the growth with hospitals and parameters as a table."""
    for line in lines:
        if line.name.startswith("growth:"):
            continue
        value = "-" if line.value is None else f"{line.value:.4g}"
        verdict = {True: "holds", False: "MISSED", None: ""}[line.holds]
        print(f"{line.name:<70} {value:>9} {line.unit:<12} {line.target:<28} {verdict}".rstrip())
    growth = [line for line in lines if line.name.startswith("growth:")]
    print(f"\n{'growth':<36} {'mask s':>8} {'rest s':>8} {'unmask s':>9} {'1 dropped':>10} {'B/param':>9}")
    for start in range(0, len(growth), 5):
        row = growth[start : start + 5]
        label = row[0].name.removeprefix("growth: ").rsplit(":", 1)[0]
        mask, rest, unmask, dropped, upload = (line.value or 0.0 for line in row)
        print(f"{label:<36} {mask:>8.4f} {rest:>8.4f} {unmask:>9.4f} {dropped:>10.4f} {upload:>9.3f}")


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description="Secure aggregation: time, traffic and memory.")
    parser.add_argument("--json", action="store_true", help="print one JSON array and nothing else")
    parser.add_argument("--peers-python", help="python of an environment with requirements-peers.txt")
    parser.add_argument("--as-peer", choices=sorted(PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer is not None:
        print(json.dumps(PEERS[arguments.as_peer]()))
        return
    lines = measure(arguments.peers_python)
    if arguments.json:
        json.dump([asdict(line) for line in lines], sys.stdout, indent=1)
        print()
    else:
        print_table(lines)


if __name__ == "__main__":
    main()
