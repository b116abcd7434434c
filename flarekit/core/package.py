"""What the package is: its version, and the folder it lies in."""

from pathlib import Path

VERSION = "0.2.0"
PACKAGE = Path(__file__).parents[1]
