"""The fine-tuned encoder at a hospital: letters in, clipped gradient sums and scores out. Importing this imports torch.

The encoder is loaded from the hospital's own disk, after the digest of its files was found to be the plan's
(`transformer`), and gets its adapters from peft. Dropout is off, so a gradient is a function of the model and the
letter.

Formal guarantees of `clipped_gradient_sum`:

- one admission, however many chunks its letter has, adds a vector of norm at most `l2_clip_norm`, over adapters and
  head together; the chunks' gradients are added before they are clipped (`bookkeeping`);
- an admission whose numbers are not finite adds nothing and is counted.

A learner may be used by several threads; they take turns. On one machine the same calls give the same numbers.
Tokens, rows and labels are private data.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audit.canonical import hex_of
from jobs.icd_coding.clipping import ClippingMode, clipping
from jobs.icd_coding.errors import BatchError, EncoderError, EncoderNotInstalled, ModelFormatError
from jobs.icd_coding.lora import LoraModel, LoraParameters
from jobs.icd_coding.transformer import clean_text
from jobs.icd_coding.transformer_files import model_digest
from jobs.icd_coding.transformer_model import LoadedTransformer, load_transformer

PHYSICAL_TOKENS = 2048  # padded tokens in one pass through the encoder; bounds memory, unless one letter has more

_ADAPTER = "zegel"
_POOLER = "pooler."  # a head on the first token; the mean of all tokens does not depend on it


@dataclass(frozen=True, eq=False)
class Tokens:
    """Letters as tokens, cut into chunks.

    Attributes:
        ids: all tokens, one chunk after the other.
        chunk_starts: (chunks + 1,) where each chunk begins in `ids`, and the end.
        text_starts: (texts + 1,) which chunk each text begins with, and the end; a text without a token has none.
    """

    ids: NDArray[np.int32]
    chunk_starts: NDArray[np.int64]
    text_starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text_starts) - 1

    def chunks(self, text: int) -> list[NDArray[np.int32]]:
        """The chunks of one text."""
        spans = self.chunk_starts[self.text_starts[text] : self.text_starts[text + 1] + 1]
        return [self.ids[first:last] for first, last in pairwise(spans)]


class LoraLearner:
    """A plan's model with its encoder loaded."""

    def __init__(self, model: LoraModel, loaded: LoadedTransformer) -> None:
        """Puts the adapters into `loaded`, which is this learner's from now on.

        Raises: EncoderError if the encoder's layers are not those the plan names.
        """
        if loaded.features != model.encoder.features:
            raise EncoderError(
                f"transformer {model.encoder.model}: the plan says {model.encoder.features} features, "
                f"the model has {loaded.features}"
            )
        self._model = model
        self._loaded = loaded
        self._module = _Tuned(model, loaded.model)
        self._pad = loaded.pad_token
        self._lock = threading.Lock()

    @classmethod
    def open(cls, model: LoraModel, models: Path | None) -> LoraLearner:
        """Load the plan's encoder from the folder of installed models, offline.

        Raises: EncoderNotInstalled; EncoderError when its files are not the plan's, or cannot be used.
        """
        encoder = model.encoder
        if models is None:
            raise EncoderError(f"transformer {encoder.model}: needs the folder of installed models")
        folder = models / hex_of(encoder.digest)
        if not folder.is_dir():
            raise EncoderNotInstalled(
                f"transformer {encoder.model}: the model {encoder.digest} is not installed in {models}; "
                "install it with `zegel site encoder add`"
            )
        found = model_digest(folder)
        if found != encoder.digest:
            raise EncoderError(
                f"{folder}: expected the model {encoder.digest}, its files are {found}; they were altered: "
                "remove it and install it again with `zegel site encoder add`"
            )
        with torch.random.fork_rng(devices=[]):  # a head that the files lack is drawn at random, and not used
            return cls(model, load_transformer(folder))

    def tokens(self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None) -> Tokens:
        """Cut letters into chunks of tokens, once for a run; `progress` hears how many are done, and of how many."""
        encoder = self._model.encoder
        ids = array("i")  # a list of numbers would take nine times the memory
        chunk_starts, text_starts = [0], [0]
        with self._lock:
            for done, text in enumerate(texts, start=1):
                for chunk in self._loaded.token_chunks(clean_text(text), encoder.max_tokens, encoder.chunks):
                    ids.extend(chunk)
                    chunk_starts.append(len(ids))
                text_starts.append(len(chunk_starts) - 1)
                progress(done, len(texts))
        return Tokens(
            ids=np.array(ids, dtype=np.int32),
            chunk_starts=np.array(chunk_starts, dtype=np.int64),
            text_starts=np.array(text_starts, dtype=np.int64),
        )

    def clipped_gradient_sum(
        self,
        parameters: LoraParameters,
        tokens: Tokens,
        rows: NDArray[np.integer],
        labels: NDArray[np.integer],
        l2_clip_norm: float,
        *,
        mode: ClippingMode = "book-keeping",
    ) -> tuple[NDArray[np.float64], int]:
        """The sum of the admissions' clipped gradients.

        Args:
            parameters: the round's model.
            tokens: of the hospital's letters.
            rows: (n,) which letters, one for each sampled patient.
            labels: (n,) their label numbers, 0..labels-1.
            l2_clip_norm: the bound C on one patient's contribution, > 0.
            mode: who computes it; all give the same sum.
        Returns: the sum in the order of `LoraParameters.to_vector`, and how many admissions were dropped because a
            number was not finite. That count is private and stays here.
        Raises: BatchError if shapes, rows or labels do not fit; ModelFormatError for another model's parameters.
        """
        self._check(tokens, rows)
        if labels.shape != rows.shape:
            raise BatchError(f"labels: expected {len(rows)} of them, got shape {labels.shape}")
        if labels.dtype.kind not in "iu" or (
            len(labels) and not 0 <= labels.min() <= labels.max() < self._model.labels
        ):
            raise BatchError(f"labels: expected whole numbers in 0..{self._model.labels - 1}; drop unknown codes first")
        truth = torch.from_numpy(labels.astype(np.int64))
        with self._lock:
            self._module.set(parameters)
            clipped = clipping(self._module, l2_clip_norm, mode)
            dropped = 0
            try:
                for batch, places in self._batches(tokens, rows):
                    dropped += clipped.add(
                        self._losses(batch, truth[places]),
                        patients=len(places),
                        rows_per_patient=batch.rows_per_letter,
                    )
                totals = clipped.total()
            finally:
                clipped.close()
        return self._module.flat(totals), dropped

    def _losses(self, batch: _Letters, truth: Tensor) -> Callable[[], Tensor]:
        smoothing = self._model.label_smoothing
        return lambda: nn.functional.cross_entropy(
            self._module(batch), truth, reduction="none", label_smoothing=smoothing
        )

    def scores(self, parameters: LoraParameters, tokens: Tokens, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Scores of these letters, (n, labels).

        Raises: BatchError for rows that `tokens` does not have; ModelFormatError for another model's parameters.
        """
        self._check(tokens, rows)
        result = np.zeros((len(rows), self._model.labels))
        with self._lock, torch.inference_mode():
            self._module.set(parameters)
            for batch, places in self._batches(tokens, rows):
                result[places.numpy()] = self._module(batch).double().numpy()
        return result

    @staticmethod
    def _check(tokens: Tokens, rows: NDArray[np.integer]) -> None:
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise BatchError(f"rows: expected a flat array of whole numbers, got shape {rows.shape} of {rows.dtype}")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(tokens):
            raise BatchError(f"rows: expected numbers in 0..{len(tokens) - 1}, got {rows.min()}..{rows.max()}")

    def _batches(self, tokens: Tokens, rows: NDArray[np.integer]) -> Iterator[tuple[_Letters, Tensor]]:
        """Physical batches of letters of like length, and which of `rows` each holds."""
        letters = [tokens.chunks(int(row)) for row in rows]
        width = [max((len(chunk) for chunk in letter), default=1) for letter in letters]
        height = [max(len(letter), 1) for letter in letters]
        waiting = sorted(range(len(rows)), key=lambda place: (width[place], height[place]))
        start = 0
        while start < len(waiting):
            end, held = start + 1, height[waiting[start]]
            # Sorted by width, so the last letter decides how wide all of them are padded.
            while end < len(waiting) and (held + height[waiting[end]]) * width[waiting[end]] <= PHYSICAL_TOKENS:
                held += height[waiting[end]]
                end += 1
            places = waiting[start:end]
            yield _letters([letters[place] for place in places], pad=self._pad), torch.tensor(places)
            start = end


@dataclass(frozen=True, eq=False)
class _Letters:
    """Some letters' chunks as one batch of the encoder.

    Attributes:
        ids: (rows, width) padded tokens.
        attention: (rows, width) 1 where the encoder looks.
        counted: (rows, width) 1 where a token counts for the letter's vector; nowhere in an empty letter.
        rows_per_letter: chunks of each letter; an empty letter has one of padding.
    """

    ids: Tensor
    attention: Tensor
    counted: Tensor
    rows_per_letter: tuple[int, ...]


def _letters(letters: Sequence[Sequence[NDArray[np.int32]]], *, pad: int) -> _Letters:
    counts = tuple(max(len(letter), 1) for letter in letters)
    width = max((len(chunk) for letter in letters for chunk in letter), default=1)
    ids = torch.full((sum(counts), width), pad, dtype=torch.long)
    counted = torch.zeros((sum(counts), width), dtype=torch.float32)
    attention = torch.zeros((sum(counts), width), dtype=torch.long)
    row = 0
    for letter, count in zip(letters, counts, strict=True):
        for offset, chunk in enumerate(letter):
            ids[row + offset, : len(chunk)] = torch.from_numpy(chunk.astype(np.int64))
            counted[row + offset, : len(chunk)] = 1.0
            attention[row + offset, : len(chunk)] = 1
        if not letter:
            attention[row, 0] = 1  # a row that looks nowhere would have no softmax
        row += count
    return _Letters(ids, attention, counted, counts)


class _Tuned(nn.Module):
    """Encoder with adapters, pooling and head. Only adapters and head are trained."""

    def __init__(self, model: LoraModel, encoder: nn.Module) -> None:
        super().__init__()
        self._model = model
        self.encoder = _adapted(model, encoder)
        # Made without start values: drawing them would move torch's global generator.
        self.head = nn.Linear(
            model.encoder.features + (model.bias_scale > 0), model.labels, bias=False, device="meta"
        ).to_empty(device="cpu")
        self._adapters = {
            f"{target.path}.lora_{side}": f"encoder.{target.path}.lora_{side}.{_ADAPTER}.weight"
            for target in model.targets
            for side in "AB"
        }
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if expected := trained ^ {*self._adapters.values(), "head.weight"}:
            raise EncoderError(f"lora: the adapters are not where they should be: {sorted(expected)[0]}")

    def forward(self, letters: _Letters) -> Tensor:
        """(letters, labels) scores."""
        hidden = self.encoder(input_ids=letters.ids, attention_mask=letters.attention).last_hidden_state
        per_row = torch.einsum("btf,bt->bf", hidden, letters.counted)
        owner = torch.repeat_interleave(
            torch.arange(len(letters.rows_per_letter)), torch.tensor(letters.rows_per_letter)
        )
        sums = per_row.new_zeros((len(letters.rows_per_letter), per_row.shape[1])).index_add(0, owner, per_row)
        features = nn.functional.normalize(sums, dim=1)
        if self._model.bias_scale > 0:
            constant = features.new_full((len(features), 1), self._model.bias_scale)
            features = torch.cat([features, constant], dim=1)
        scores: Tensor = self._model.head_scale * self.head(features)
        return scores

    def set(self, parameters: LoraParameters) -> None:
        """Take over a version's numbers. Raises: ModelFormatError if they are another model's."""
        shapes = {name: tensor.shape for name, tensor in parameters.tensors.items()}
        if shapes != self._model.shapes:
            raise ModelFormatError(f"model: expected the tensors {self._model.shapes}, got {shapes}")
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, place in self._adapters.items():
                own[place].copy_(torch.from_numpy(parameters.tensors[name].copy()))
            features = self._model.encoder.features
            self.head.weight[:, :features] = torch.from_numpy(parameters.tensors["head.weight"].copy())
            if self._model.bias_scale > 0:
                self.head.weight[:, features] = torch.from_numpy(parameters.tensors["head.bias"].copy())

    def flat(self, totals: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Sums by parameter name as a vector in the order of `LoraModel.shapes`."""
        features = self._model.encoder.features
        head = totals["head.weight"]
        named = {name: totals[place] for name, place in self._adapters.items()}
        named["head.weight"] = head[:, :features]
        named["head.bias"] = head[:, features] if self._model.bias_scale > 0 else np.zeros(self._model.labels)
        return np.concatenate([named[name].ravel() for name in self._model.shapes])


def _adapted(model: LoraModel, encoder: nn.Module) -> nn.Module:
    """The encoder with adapters of the plan's rank, their numbers still arbitrary. Raises: EncoderError."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = dict(encoder.named_modules())
    for target in model.targets:
        layer = layers.get(target.path)
        if type(layer) is not nn.Linear:
            found = "no such layer" if layer is None else f"a {type(layer).__name__}"
            raise EncoderError(f"lora: targets: {target.path}: expected a linear layer of the encoder, got {found}")
        if (layer.out_features, layer.in_features) != (target.outputs, target.inputs):
            raise EncoderError(
                f"lora: targets: {target.path}: the plan says [{target.outputs}, {target.inputs}], "
                f"the encoder has [{layer.out_features}, {layer.in_features}]"
            )
    encoder.requires_grad_(False)
    config = LoraConfig(
        r=model.rank,
        lora_alpha=model.alpha,  # type: ignore[arg-type]  # any number serves, whatever peft's hint says
        target_modules=[target.path for target in model.targets],
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):  # peft draws start values; nobody else's randomness may notice
        return inject_adapter_in_model(config, encoder, adapter_name=_ADAPTER).eval()


def lora_targets(folder: Path, names: Sequence[str] = ("query", "value")) -> dict[str, list[int]]:
    """The linear layers of an encoder that end in one of these names, as a plan's `targets` says them.

    Args:
        folder: a model's files on this machine.
        names: last parts of layers' names, such as "query"; they differ between architectures.
    Returns: layer -> [outputs, inputs], sorted.
    Raises: EncoderError if the model cannot be loaded, or no layer has such a name.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = load_transformer(folder).model
    found = {
        path: [layer.out_features, layer.in_features]
        for path, layer in encoder.named_modules()
        if type(layer) is nn.Linear and path.rpartition(".")[2] in names and not path.startswith(_POOLER)
    }
    if not found:
        raise EncoderError(f"{folder}: no linear layer is called {' or '.join(names)}; look for others in the model")
    return dict(sorted(found.items()))
