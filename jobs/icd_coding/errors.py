"""Errors of the coding model.

CodingError
├── EncoderError      an encoder's configuration is unknown or out of range, or its model cannot be used
│   └── EncoderNotInstalled  the model an encoder needs is not on this machine
├── ModelFormatError  the bytes of a model or of an optimiser's state are not what the plan says
├── BatchError        features, labels or sampled patients do not fit the model
├── ClippingError     a model's gradients cannot be clipped patient by patient
└── EvaluationError   scores, labels or a threshold's settings make no sense
"""


class CodingError(Exception):
    """Root of every error that `jobs.icd_coding` raises."""


class EncoderError(CodingError):
    """An encoder's configuration is unknown, incomplete or out of range, or its model is damaged or cannot be run."""


class EncoderNotInstalled(EncoderError):
    """The model an encoder needs is not on this machine; the message says which command installs it."""


class ModelFormatError(CodingError):
    """A model's or an optimiser state's bytes differ from what the plan describes."""


class BatchError(CodingError):
    """Features, labels or sampled patients do not fit the model or each other."""


class ClippingError(CodingError):
    """A model's gradients cannot be clipped patient by patient, so it must not be trained."""


class EvaluationError(CodingError):
    """Scores, labels or the settings of a threshold are malformed."""
