"""What a person says about a checkpoint that it does not say itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        name: of the predictor.
        convention: its default convention.
        folds: which folds of an nnU-Net result make the ensemble; all that are there where None.
        checkpoint: file name inside a fold.
    """

    name: str
    convention: str = "flare"
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
