"""Clipped sums by book-keeping: equal to a loop over patients and to Opacus, bounded, and closed against everything
that it cannot clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs.icd_coding.bookkeeping import NORM_FLOOR, BookKeeping
from jobs.icd_coding.bookkeeping_layers import Grouping, keeps_gradients
from jobs.icd_coding.clipping import ClippingMode, clipping
from jobs.icd_coding.errors import BatchError, ClippingError

torch.set_num_threads(1)

LABELS = 4
Sums = dict[str, NDArray[np.float64]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
DTYPES = [torch.float64, torch.float32]
COUNTS = [(1, 1, 1, 1, 1), (3, 3, 3, 3), (1, 3, 2, 4, 1)]


class Network(nn.Module):
    """Layers between an input of any shape and scores; rows are pooled into patients before the head."""

    def __init__(self, body: nn.Module, width: int, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, LABELS)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        self.counts: tuple[int, ...] = ()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        per_row = hidden.flatten(1, -2).mean(1) if hidden.dim() > 2 else hidden
        owner = torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))
        pooled = per_row.new_zeros((len(self.counts), per_row.shape[-1])).index_add(0, owner, per_row)
        scores: Tensor = self.head(torch.tanh(pooled))
        return scores


class Letters(nn.Module):
    """An embedding, a layer norm and linear layers, as in an encoder."""

    def __init__(self, padding: int | None = 0) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6, padding_idx=padding)
        self.positions = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm(6)
        self.widen, self.narrow = nn.Linear(6, 10), nn.Linear(10, 6, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).expand(len(ids), -1).contiguous()
        x = self.words(ids) + self.positions(positions)
        return x + torch.tanh(self.narrow(nn.functional.gelu(self.widen(self.norm(x)))))  # type: ignore[no-any-return]


def frozen(layer: nn.Module, *names: str) -> nn.Module:
    for name in names:
        layer.get_parameter(name).requires_grad_(False)
    return layer


@dataclass(frozen=True)
class Case:
    """A network, and the shape of one row of its input (ids below `words`, or numbers)."""

    body: Callable[[], nn.Module]
    width: int
    row: tuple[int, ...]
    words: int = 0


CASES = {
    "linear": Case(lambda: nn.Linear(5, 6), 6, (5,)),
    "linear over positions": Case(lambda: nn.Linear(5, 6), 6, (7, 5)),
    "linear over a grid": Case(lambda: nn.Linear(5, 6), 6, (2, 3, 5)),
    "linear without bias": Case(lambda: nn.Linear(5, 6, bias=False), 6, (7, 5)),
    "bias alone": Case(lambda: frozen(nn.Linear(5, 6), "weight"), 6, (7, 5)),
    "weight alone": Case(lambda: frozen(nn.Linear(5, 6), "bias"), 6, (7, 5)),
    "wide linear": Case(lambda: nn.Linear(90, 80), 80, (2, 90)),
    "narrow linear": Case(lambda: nn.Linear(70, 2), 2, (60, 70)),
    "layer norm": Case(lambda: nn.LayerNorm(6), 6, (7, 6)),
    "layer norm of a vector": Case(lambda: nn.LayerNorm(6), 6, (6,)),
    "layer norm over two dimensions": Case(lambda: nn.LayerNorm((3, 6)), 6, (2, 3, 6)),
    "layer norm without shift": Case(lambda: nn.LayerNorm(6, bias=False), 6, (7, 6)),
    "embedding": Case(lambda: nn.Embedding(9, 6), 6, (7,), words=9),
    "embedding with padding": Case(lambda: nn.Embedding(9, 6, padding_idx=2), 6, (7,), words=9),
    "embedding over a grid": Case(lambda: nn.Embedding(9, 6), 6, (2, 3), words=9),
    "below a frozen layer": Case(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Conv1d(7, 7, 1).requires_grad_(False)), 6, (7, 5)
    ),
    "letters": Case(Letters, 6, (7,), words=9),
    "letters without padding": Case(lambda: Letters(None), 6, (7,), words=9),
}


def network(case: Case, dtype: torch.dtype, counts: tuple[int, ...]) -> Network:
    made = Network(case.body(), case.width).to(dtype)
    made.counts = counts
    return made


def batch(case: Case, dtype: torch.dtype, counts: tuple[int, ...], seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(counts), *case.row)
    inputs = (
        torch.randint(0, case.words, shape, generator=generator)
        if case.words
        else torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    )
    return inputs, torch.randint(0, LABELS, (len(counts),), generator=generator)


def losses(net: Network, inputs: Tensor, labels: Tensor, counts: tuple[int, ...]) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        net.counts = counts
        return nn.functional.cross_entropy(net(inputs), labels, reduction="none")

    return forward


def kept(
    net: Network, inputs: Tensor, labels: Tensor, counts: tuple[int, ...], clip: float, mode: ClippingMode
) -> tuple[Sums, int]:
    clipped = clipping(net, clip, mode)
    try:
        dropped = clipped.add(losses(net, inputs, labels, counts), patients=len(counts), rows_per_patient=counts)
        return clipped.total(), dropped
    finally:
        clipped.close()


def by_hand(net: Network, inputs: Tensor, labels: Tensor, counts: tuple[int, ...], clip: float) -> Sums:
    """The definition, one patient after the other, added in float64."""
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    totals = {name: np.zeros(tuple(parameter.shape)) for name, parameter in trained.items()}
    spans = Grouping(counts).spans()
    for patient, (first, last) in enumerate(spans):
        loss = losses(net, inputs[first:last], labels[[patient]], (last - first,))().sum()
        gradients = torch.autograd.grad(loss, list(trained.values()))
        norm = float(torch.cat([gradient.double().ravel() for gradient in gradients]).norm())
        for name, gradient in zip(trained, gradients, strict=True):
            totals[name] += gradient.double().numpy() * min(1.0, clip / (norm + NORM_FLOOR))
    return totals


def assert_close(one: Sums, other: Sums, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=tolerance, rtol=tolerance, err_msg=name)


def norm_of(sums: Sums) -> float:
    return float(np.linalg.norm(np.concatenate([value.ravel() for value in sums.values()])))


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_over_patients(name: str, dtype: torch.dtype, counts: tuple[int, ...]) -> None:
    case = CASES[name]
    inputs, labels = batch(case, dtype, counts)
    for clip in (0.05, 1.0, 1e3):  # everyone clipped, some, nobody
        net = network(case, dtype, counts)
        sums, dropped = kept(net, inputs, labels, counts, clip, "book-keeping")
        assert dropped == 0
        assert all(value.dtype == np.float64 for value in sums.values())
        assert_close(sums, by_hand(net, inputs, labels, counts, clip), TOLERANCE[dtype])


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(
    "name", ["linear over positions", "wide linear", "layer norm", "embedding", "letters without padding"]
)
def test_equals_opacus(name: str, counts: tuple[int, ...]) -> None:
    case = CASES[name]
    inputs, labels = batch(case, torch.float64, counts)
    ours = kept(network(case, torch.float64, counts), inputs, labels, counts, 0.4, "book-keeping")[0]
    modes: list[ClippingMode] = ["hooks", "ghost"] if set(counts) == {1} else ["hooks"]
    for mode in modes:
        net = network(case, torch.float64, counts)
        theirs, dropped = kept(net, inputs, labels, counts, 0.4, mode)
        assert dropped == 0
        assert_close(ours, theirs, 1e-10)
        assert not any(hasattr(parameter, "grad_sample") for parameter in net.parameters())


def test_both_ways_of_a_linear_layer_are_tried_here() -> None:
    ones, threes, ragged = (Grouping(counts) for counts in COUNTS)
    for grouping in (ones, threes, ragged):
        assert not keeps_gradients(grouping, positions=2, outputs=80, inputs=90, bytes_per_number=4)
        assert keeps_gradients(grouping, positions=60, outputs=2, inputs=70, bytes_per_number=4)
    assert not keeps_gradients(ones, positions=10_000, outputs=30_000, inputs=1_000, bytes_per_number=4)  # memory


def test_physical_batches_add_up_and_an_empty_one_adds_nothing() -> None:
    case, counts = CASES["letters"], (1, 3, 2)
    inputs, labels = batch(case, torch.float64, counts)
    net = network(case, torch.float64, counts)
    keeper = BookKeeping(net, 0.3)
    assert all(not value.any() for value in keeper.total().values())

    def never() -> Tensor:
        raise AssertionError("an empty batch needs no forward pass")

    assert keeper.add(never, patients=0) == 0
    keeper.add(losses(net, inputs[:4], labels[:2], (1, 3)), patients=2, rows_per_patient=(1, 3))
    keeper.add(losses(net, inputs[4:], labels[2:], (2,)), patients=1, rows_per_patient=(2,))
    assert_close(keeper.total(), by_hand(net, inputs, labels, counts, 0.3), 1e-10)


class Given(nn.Module):
    """A linear layer whose losses are its outputs times given numbers: any activation with any gradient."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs).to(dtype)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.zero_()

    def losses(self, activations: Tensor, gradients: Tensor) -> Tensor:
        per_row: Tensor = (self.layer(activations) * gradients).flatten(1).sum(1)
        return per_row


@settings(derandomize=True, max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    positions=st.sampled_from([1, 2, 5, 70]),
    widths=st.sampled_from([(1, 1), (3, 5), (90, 80)]),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([1e-18, 1.0, 1e4, 1e12]),
    clip=st.floats(1e-3, 10),
    cancelling=st.booleans(),
)
def test_one_patient_contributes_at_most_the_clip_norm(
    seed: int,
    positions: int,
    widths: tuple[int, int],
    dtype: torch.dtype,
    scale: float,
    clip: float,
    cancelling: bool,
) -> None:
    """To the last bits, also in float32 and where huge terms cancel: what is measured is what is added."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn((1, positions, widths[0]), generator=generator, dtype=torch.float64)
    gradients = torch.randn((1, positions, widths[1]), generator=generator, dtype=torch.float64)
    if cancelling:  # pairs of positions that almost undo each other
        activations[:, 1::2] = activations[:, : positions // 2 * 2 : 2]
        gradients[:, 1::2] = -gradients[:, : positions // 2 * 2 : 2] * (1 + 1e-7)
    net = Given(*widths, dtype=dtype)
    keeper = BookKeeping(net, clip)
    a, g = (activations * scale).to(dtype), gradients.to(dtype)
    assert keeper.add(lambda: net.losses(a, g), patients=1) == 0
    assert norm_of(keeper.total()) <= clip


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(1, 4), min_size=2, max_size=6).map(tuple),
    data=st.data(),
)
def test_neighbours_differ_by_at_most_the_clip_norm(seed: int, counts: tuple[int, ...], data: st.DataObject) -> None:
    """A patient leaves with all chunks of the letter."""
    case, clip = CASES["letters"], 0.2
    without = data.draw(st.integers(0, len(counts) - 1))
    inputs, labels = batch(case, torch.float64, counts, seed)
    first, last = Grouping(counts).spans()[without]
    rows = torch.tensor([row for row in range(len(inputs)) if not first <= row < last])
    others = torch.tensor([patient for patient in range(len(counts)) if patient != without])
    everybody, _ = kept(network(case, torch.float64, counts), inputs, labels, counts, clip, "book-keeping")
    fewer = tuple(counts[patient] for patient in others.tolist())
    rest, _ = kept(network(case, torch.float64, fewer), inputs[rows], labels[others], fewer, clip, "book-keeping")
    assert norm_of({name: everybody[name] - rest[name] for name in rest}) <= clip * (1 + 1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["linear", "linear over positions", "wide linear", "layer norm"])
@pytest.mark.parametrize("mode", ["book-keeping", "hooks"])
def test_a_patient_with_broken_numbers_adds_nothing_and_is_counted(name: str, bad: float, mode: ClippingMode) -> None:
    case, counts = CASES[name], (1, 3, 2)
    inputs, labels = batch(case, torch.float64, counts)
    broken = inputs.clone()
    broken[2].view(-1)[0] = bad  # in the second patient's second chunk
    sums, dropped = kept(network(case, torch.float64, counts), broken, labels, counts, 0.3, mode)
    healthy = torch.tensor([0, 4, 5])
    rest, _ = kept(network(case, torch.float64, (1, 2)), inputs[healthy], labels[[0, 2]], (1, 2), 0.3, mode)
    assert_close(sums, rest, 1e-10)
    assert dropped == 1


@pytest.mark.parametrize("mode", ["book-keeping", "hooks"])
def test_a_layer_that_the_losses_do_not_depend_on_has_no_gradient(mode: ClippingMode) -> None:
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    inputs = torch.ones(3, 2)

    def forward() -> Tensor:
        net[1](inputs)  # called, and not used
        per_row: Tensor = net[0](inputs).sum(1)
        return per_row

    clipped = clipping(net, 1.0, mode)
    assert clipped.add(forward, patients=3) == 0
    sums = clipped.total()
    assert sums["0.weight"].any() and not sums["1.weight"].any() and sums["1.weight"].shape == (2, 2)


def test_an_infinite_loss_drops_its_patient() -> None:
    net = nn.Linear(2, 2, bias=False).double()
    inputs = torch.ones((2, 2), dtype=torch.float64)
    keeper = BookKeeping(net, 1.0)
    offset = torch.tensor([0.0, float("inf")], dtype=torch.float64)
    assert keeper.add(lambda: net(inputs).sum(1) + offset, patients=2) == 1
    assert norm_of(keeper.total()) <= 1.0


def test_overflow_in_float32_drops_the_patient() -> None:
    net = Given(3, 3, torch.float32)
    keeper = BookKeeping(net, 1.0)
    a, g = torch.full((2, 4, 3), 1e30), torch.full((2, 4, 3), 1e30)
    a[1], g[1] = 1.0, 1.0
    assert keeper.add(lambda: net.losses(a, g), patients=2) == 1
    assert 0.99 < norm_of(keeper.total()) <= 1.0


def test_nothing_is_left_behind() -> None:
    case, counts = CASES["letters"], (2, 1)
    inputs, labels = batch(case, torch.float32, counts)
    net = network(case, torch.float32, counts)
    frozen(net, "head.bias")
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    state = torch.get_rng_state()
    first, _ = kept(net, inputs, labels, counts, 0.3, "book-keeping")
    second, _ = kept(net, inputs, labels, counts, 0.3, "book-keeping")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first.keys() == trained == {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())
    assert torch.equal(torch.get_rng_state(), state)
    nn.functional.cross_entropy(net(inputs), labels).backward()  # type: ignore[no-untyped-call]
    assert {name for name, parameter in net.named_parameters() if parameter.grad is not None} == trained


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.output = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.output.weight = self.words.weight


class Odd(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).abs()


class Loose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def shared() -> nn.Module:
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, layer)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1)), "parameter 1.weight: a Conv1d cannot be clipped"),
        (lambda: nn.MultiheadAttention(4, 2), "parameter in_proj_weight: a MultiheadAttention cannot"),
        (lambda: nn.Sequential(Odd(2, 2)), "parameter 0.weight: a Odd cannot"),
        (Loose, "parameter scale: a Loose cannot"),
        (Tied, "output.weight: tied to words.weight"),
        (shared, "1.weight: tied to 0.weight"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), "layer 1: batch normalisation"),
        (lambda: nn.Embedding(3, 2, max_norm=1.0), "max_norm"),
        (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "all float32 or all float64"),
        (lambda: nn.Linear(2, 2).half(), "all float32 or all float64"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "nothing to train"),
        (nn.Identity, "nothing to train"),
    ],
)
def test_what_cannot_be_clipped_is_refused(module: Callable[[], nn.Module], message: str) -> None:
    modes: Sequence[ClippingMode] = ("book-keeping", "hooks", "ghost")
    for mode in modes:
        with pytest.raises(ClippingError, match=message):
            clipping(module(), 1.0, mode)


def test_what_cannot_be_clipped_may_stay_frozen() -> None:
    net = nn.Sequential(nn.Conv1d(2, 2, 1).requires_grad_(False), nn.BatchNorm1d(2).eval().requires_grad_(False))
    net.append(nn.Linear(3, 2))
    keeper = BookKeeping(net, 1.0)
    assert keeper.add(lambda: net(torch.ones(4, 2, 3)).sum((1, 2)), patients=4) == 0
    assert keeper.total().keys() == {"2.weight", "2.bias"}


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_bound_is_refused(clip: float) -> None:
    modes: Sequence[ClippingMode] = ("book-keeping", "hooks")
    for mode in modes:
        with pytest.raises(BatchError, match="l2_clip_norm"):
            clipping(nn.Linear(2, 2), clip, mode)


class Wrong(nn.Module):
    """Ways to use layers that no gradient per patient can be had from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.places = nn.Embedding(3, 2)
        self.places.requires_grad_(False)

    def losses(self, what: str, inputs: Tensor) -> Tensor:
        x: Tensor = self.first(inputs)
        if what == "twice":
            x = self.first(x)
        if what == "overwritten":
            x = torch.tanh(x)
            y = self.second(x)
            with torch.no_grad():
                x.mul_(2.0)
            return y.sum(1)  # type: ignore[no-any-return]
        if what != "unused":
            x = self.second(x)
        if what == "one row of places":
            x = x + self.places(torch.tensor([[1]]))[0]
        return x.sum() if what == "one loss" else x.sum(1)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("twice", ClippingError, "layer first: used twice"),
        ("unused", ClippingError, "layer second: trained, but the forward pass does not call it"),
        ("overwritten", ClippingError, "layer second: its input was overwritten"),
        ("one row of places", ClippingError, r"layer places: expected its input to have a row for each of 3 rows"),
        ("one loss", BatchError, r"losses: expected shape \(3,\)"),
    ],
)
def test_wrong_use_of_layers_is_refused_and_leaves_no_trace(what: str, error: type[Exception], message: str) -> None:
    net = Wrong()
    net.places.requires_grad_(what == "one row of places")
    keeper = BookKeeping(net, 1.0)
    with pytest.raises(error, match=message):
        keeper.add(lambda: net.losses(what, torch.ones(3, 2)), patients=3)
    assert all(not value.any() for value in keeper.total().values())
    assert all(parameter.requires_grad for parameter in net.first.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, 1, 1)])
@pytest.mark.parametrize("mode", ["book-keeping", "hooks"])
def test_counts_must_fit_the_patients(counts: tuple[int, ...], mode: ClippingMode) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(BatchError, match="rows_per_patient: expected 3 counts"):
        clipping(net, 1.0, mode).add(lambda: net(torch.ones(3, 2)).sum(1), patients=3, rows_per_patient=counts)


def test_ghost_clipping_of_opacus_refuses_what_it_cannot_do() -> None:
    net = nn.Linear(2, 2)
    ghost = clipping(net, 1.0, "ghost")
    with pytest.raises(ClippingError, match="one row per patient"):
        ghost.add(lambda: net(torch.ones(2, 2)).sum(1)[:1], patients=1, rows_per_patient=(2,))
    with pytest.raises(ClippingError, match="not finite"):
        ghost.add(lambda: net(torch.full((1, 2), np.nan)).sum(1), patients=1)
