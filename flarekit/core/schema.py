"""The version of what `predictor.toml` may say."""

from flarekit.core.errors import PredictorError

SCHEMA = 2  # raised when an older flarekit would misread the facts


def check_schema(schema: object, source: str) -> None:
    """Refuse what a newer flarekit has written; older schemas mean the same in all that they have.

    Version 1 has no `schema`. Version 2 has it, networks of one's own (`MODULE:CLASS`, `onnx`,
    `torchscript`) and `only_labels`.

    Args:
        schema: the version that a file states.
        source: the file.

    Raises:
        PredictorError: it is newer than this flarekit, or no version.
    """
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise PredictorError(
            f"{source}: schema is {schema!r}, and should be a whole number", fix=f"write {SCHEMA}"
        )
    if schema > SCHEMA:
        raise PredictorError(
            f"{source}: has schema {schema}, and this flarekit reads schemas up to {SCHEMA}",
            fix="install the flarekit that wrote it, or a newer one",
        )
