"""What made a segmentation, as DICOM objects say it: the predictor, its version and its weights."""

from dataclasses import dataclass

from flarekit.core.package import VERSION


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A predictor.

    Attributes:
        predictor: its name; empty where it is not known.
        weights_sha256: of its weights, in hexadecimal; empty where it is not known.
    """

    predictor: str = ""
    weights_sha256: str = ""

    @property
    def name(self) -> str:
        """What viewers show."""
        return f"flarekit {self.predictor}".strip()

    @property
    def version(self) -> str:
        """Of the package, and the first figures of the weights' hash."""
        weights = f" weights {self.weights_sha256[:12]}" if self.weights_sha256 else ""
        return f"{VERSION}{weights}"

    @property
    def parameters(self) -> dict[str, str]:
        """What else tells it from others."""
        known = {"predictor": self.predictor, "weights_sha256": self.weights_sha256}
        return {name: value for name, value in known.items() if value}

    @property
    def identity(self) -> str:
        """What tells its objects from those of others."""
        return f"{self.predictor} {self.weights_sha256} {VERSION}"

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        parameters = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"flarekit {VERSION}" + (f"; {parameters}" if parameters else "")
