"""The combined encoder: several encoders side by side, such as character n-grams and a transformer.

Each part has a share of the squared norm; its columns are multiplied by the share's square root. Shares sum to 1
and every part's rows have norm at most 1, so the combined rows have norm at most 1 as well, whatever the text. A
linear model on the combined columns adds up the evidence of both: n-grams know spellings and rare words, a
transformer knows which words mean nearly the same.

The rows are sparse when a part's are: a few hundred dense columns beside thousands of sparse ones cost less than
making all of them dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.model import FeatureRows

if TYPE_CHECKING:
    from jobs.icd_coding.encoder import OpenedEncoder, TextEncoder

MAX_PARTS = 8
_SHARE_TOLERANCE = 1e-9  # decimal fractions such as .1 + .2 + .7 need not sum to 1 exactly


@dataclass(frozen=True)
class Part:
    """One encoder of a combination.

    Attributes:
        share: of the squared norm of the combined row, in (0, 1).
        encoder: not a combined one.
    """

    share: float
    encoder: TextEncoder

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise EncoderError(f"combined: share must be a number between 0 and 1, got {self.share!r}")


@dataclass(frozen=True)
class CombinedEncoder:
    """Encoders side by side, in this order of columns.

    Attributes:
        parts: 2 to 8 of them; their shares sum to 1.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.parts) <= MAX_PARTS:
            raise EncoderError(f"combined: expected 2 to {MAX_PARTS} parts, got {len(self.parts)}")
        total = math.fsum(part.share for part in self.parts)
        if abs(total - 1) > _SHARE_TOLERANCE:
            raise EncoderError(f"combined: the shares must sum to 1, got {total:g}")

    @property
    def name(self) -> str:
        return "combined"

    @property
    def features(self) -> int:
        return sum(part.encoder.features for part in self.parts)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({self.name}).union(*(part.encoder.kinds for part in self.parts))

    @property
    def model_digests(self) -> frozenset[str]:
        return frozenset().union(*(part.encoder.model_digests for part in self.parts))

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.name,
            "parts": [{"share": part.share, "encoder": part.encoder.config()} for part in self.parts],
        }

    def opened(
        self,
        *,
        models: Path | None = None,
        cache: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> OpenedCombination:
        """Opens every part; see `encoder.TextEncoder`."""
        return OpenedCombination(
            tuple(
                (math.sqrt(part.share), part.encoder.opened(models=models, cache=cache, progress=progress))
                for part in self.parts
            )
        )


@dataclass(frozen=True)
class OpenedCombination:
    """The opened parts, each with the weight of its columns."""

    parts: tuple[tuple[float, OpenedEncoder], ...]

    @property
    def features(self) -> int:
        return sum(encoder.features for _, encoder in self.parts)

    def encode(self, texts: Sequence[str]) -> FeatureRows:
        """Encode n texts with every part; (n, features) float32, sparse if any part is."""
        blocks = [encoder.encode(texts) * np.float32(weight) for weight, encoder in self.parts]
        if any(sparse.issparse(block) for block in blocks):
            return sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(block) for block in blocks], format="csr"))
        return np.hstack([np.asarray(block) for block in blocks])
