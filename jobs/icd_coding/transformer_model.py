"""A frozen transformer at work: from texts to sums of token vectors. Importing this imports torch.

Loading is closed: only the decisive files are visible to the library (`transformer_files`), from the local disk,
without code of the model's own and without the network. A weight that the files lack would be drawn at random, so
a model that lacks any that features depend on is refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.transformer_files import TOKENIZER, check_own_code, decisive_files

BATCH_TOKENS = 1024  # padded tokens in one pass: more is slower on a CPU, whose caches it outgrows, and takes memory
_POOLER = "pooler."  # a head on the first token that mean pooling never reads; many published files lack it


@dataclass(frozen=True, eq=False)
class LoadedTransformer:
    """A model and its tokenizer in memory, in evaluation mode, float32.

    Attributes:
        features: width of its token vectors.
        positions: the most tokens it says it can read at once, or None when it does not say.
    """

    model: torch.nn.Module
    tokenizer: Tokenizer
    features: int
    positions: int | None
    pad_token: int

    def token_sums(self, texts: Sequence[str], *, max_tokens: int, chunks: int) -> NDArray[np.float64]:
        """The sum of each text's last-layer token vectors.

        A text is cut into consecutive chunks of at most `max_tokens` tokens, special tokens included; what does not
        fit into `chunks` of them is left out. Every token of every chunk counts once, so dividing by their number
        would give the mean over tokens of all chunks.

        Returns: (n, features) float64; zeros for a text without a single token of its own.
        Raises: EncoderError when the model cannot run such chunks or gives numbers that are not finite.
        """
        pieces = [
            (number, chunk)
            for number, text in enumerate(texts)
            for chunk in self.token_chunks(text, max_tokens, chunks)
        ]
        pieces.sort(key=lambda piece: len(piece[1]))  # little padding: neighbours are of like length
        totals = np.zeros((len(texts), self.features))
        start = 0
        while start < len(pieces):
            end = start + 1
            while end < len(pieces) and len(pieces[end][1]) * (end + 1 - start) <= BATCH_TOKENS:
                end += 1
            batch = pieces[start:end]
            sums = self._batch_sums([chunk for _, chunk in batch])
            np.add.at(totals, [number for number, _ in batch], sums)
            start = end
        if not np.isfinite(totals).all():
            raise EncoderError("transformer: the model gave numbers that are not finite; use another model")
        return totals

    def token_chunks(self, text: str, max_tokens: int, chunks: int) -> list[list[int]]:
        """The text's first `chunks` chunks of at most `max_tokens` tokens; none if it has no token of its own."""
        self.tokenizer.enable_truncation(max_length=max_tokens)  # the rest comes as further chunks, not lost
        first = self.tokenizer.encode(text)
        if all(first.special_tokens_mask):
            return []
        return [encoding.ids for encoding in (first, *first.overflowing)[:chunks]]

    def _batch_sums(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        width = max(len(chunk) for chunk in batch)
        tokens = torch.full((len(batch), width), self.pad_token, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, chunk in enumerate(batch):
            tokens[row, : len(chunk)] = torch.tensor(chunk)
            mask[row, : len(chunk)] = 1
        try:
            with torch.inference_mode():
                hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
                sums = torch.einsum("btf,bt->bf", hidden, mask.to(hidden.dtype))
        except (IndexError, RuntimeError, ValueError) as error:
            says = "" if self.positions is None else f"; its config.json says {self.positions} positions"
            raise EncoderError(f"transformer: the model cannot read {width} tokens at once{says}: {error}") from error
        return np.asarray(sums.numpy(), dtype=np.float64)


def load_transformer(folder: Path) -> LoadedTransformer:
    """Load the model whose decisive files lie in `folder`.

    Raises: EncoderError when files are missing, the model brings code of its own, its architecture is unknown or needs
        two inputs, or weights are missing or of another shape.
    """
    from transformers import AutoConfig, AutoModel

    decisive_files(folder)  # says best what is missing
    check_own_code(folder)
    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _only_decisive_files(folder) as seen, _quiet():
            config = AutoConfig.from_pretrained(seen, **closed)
            model, loading = AutoModel.from_pretrained(
                seen,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # every architecture has it; a config.json may name code to fetch here
                output_loading_info=True,
                **closed,
            )
            tokenizer = Tokenizer.from_file(str(seen / TOKENIZER))
    except EncoderError:
        raise
    # What the libraries raise for a folder they cannot load; a tokenizer's own error is a plain Exception.
    except Exception as error:
        raise EncoderError(f"{folder}: cannot be loaded as a text model: {_first_line(error)}") from error
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(_POOLER))
    if missing or loading["mismatched_keys"] or loading["error_msgs"]:
        what = missing or sorted(map(str, loading["mismatched_keys"])) or loading["error_msgs"]
        raise EncoderError(f"{folder}: {len(what)} weights are missing or of another shape, the first {what[0]}")
    if getattr(config, "is_encoder_decoder", False):
        raise EncoderError(f"{folder}: {config.model_type} needs a second input; use a model that only reads text")
    tokenizer.no_padding()
    model.eval()
    model.requires_grad_(False)
    return LoadedTransformer(
        model=model,
        tokenizer=tokenizer,
        features=int(config.hidden_size),
        positions=getattr(config, "max_position_embeddings", None),
        pad_token=getattr(config, "pad_token_id", None) or 0,
    )


@contextmanager
def _only_decisive_files(folder: Path) -> Iterator[Path]:
    """A folder with nothing in it but links to the files the digest is over.

    The library reads more when it finds more: an adapter's configuration, for instance, would change the features
    without changing the digest.
    """
    with tempfile.TemporaryDirectory(prefix="zegel-model-") as scratch:
        for name in decisive_files(folder):
            Path(scratch, name).symlink_to((folder / name).resolve())
        yield Path(scratch)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no notes of the library on a command's output."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
