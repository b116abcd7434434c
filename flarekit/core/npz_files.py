"""`.npz` files that somebody else wrote: their arrays, whole and never unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an `.npz` file; what would have to be unpickled is refused.

    Raises:
        ValueError: it is missing, damaged, not an `.npz` file, or holds Python objects.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except ValueError:
        raise
    except Exception as error:  # zip archives and NumPy's headers raise whatever they like
        raise ValueError(str(error) or "it ends early") from error
