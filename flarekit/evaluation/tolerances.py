"""How far a surface may be off to count as right, by label: what `tolerances.toml` says."""

import tomllib
from pathlib import Path

TOLERANCES_MM: dict[str, float] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
