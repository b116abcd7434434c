"""`flarekit evaluate interactive`: an image or a predictor, marked as autoPET's organisers do."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.requests import Interactive
from flarekit.containers import Sandbox
from flarekit.core.apart import keep_below
from flarekit.core.errors import InputError, UsageError
from flarekit.core.files import write_atomically
from flarekit.core.spec import PredictorFolder
from flarekit.evaluation.curves import curves_svg
from flarekit.evaluation.interactive import FIGURES, Session, areas, mean_curve
from flarekit.images.interactive import (
    CONVENTION,
    STEPS,
    ImagePlayer,
    Play,
    Player,
    PredictorPlayer,
    find_examinations,
    play,
)

_TITLES = {
    "dice": "Dice",
    "dmm": "DMM (lesion F1)",
    "fpv_ml": "False positive volume, ml",
    "fnv_ml": "False negative volume, ml",
}


def run_interactive(request: Interactive, console: Console) -> int:
    """Play all cases, print and write what they came to, and return the exit code."""
    with ExitStack() as opened:
        played = _named(request, opened)
        return _run(request, played, console)


def _run(request: Interactive, played: PredictorFolder | Sandbox, console: Console) -> int:
    cases = find_examinations(request.truth, request.scans)
    written = [path for path in (request.json, request.picture) if path is not None]
    for folder in (request.truth, request.scans):
        if folder is not None:
            keep_below(folder, written)
    limits = conventions.facts_of(CONVENTION).limits[f"autopet{request.edition}"]
    limit_s = request.time_s if request.time_s is not None else limits.cap_s or math.inf
    how = Play(edition=request.edition, seed=request.seed, forget=request.forget)
    sessions: list[Session] = []
    with (
        console,
        tempfile.TemporaryDirectory(prefix="flarekit-interactive-") as scratch,
        _player(request, played, limit_s) as player,
    ):
        for session in play(cases, player, how, Path(scratch)):
            console.start_case(session.case_id, len(sessions), len(cases))
            sessions.append(session)
            if session.error is not None:
                console.error(f"case {session.case_id}: {session.error}", session.fix)
            else:
                console.say(f"{session.case_id} ({session.kind}): {_in_words(session)}")
    late = _late(sessions, limit_s)
    _write(request, sessions, limit_s)
    for line in _table(sessions, STEPS[request.edition]):
        typer.echo(line)
    for words in late:
        console.say(f"warning: {words}")
    failed = [session.case_id for session in sessions if session.error is not None]
    if failed:
        console.error(f"{len(failed)} of {len(cases)} cases failed: {', '.join(failed)}", None)
    return 1 if failed or late else 0


def _named(request: Interactive, opened: ExitStack) -> PredictorFolder | Sandbox:
    """Return what is played: the predictor of that name, or else what runs the image.

    Args:
        request: names it.
        opened: gets what has to be closed.
    """
    from flarekit.segmentation.predictors import find_predictor

    try:
        predictor = find_predictor(request.played)
    except UsageError as error:
        sandbox = _opened(request, opened, error)
        if request.device != "auto":
            raise UsageError(
                "--device applies to predictors, and this is an image",
                fix="give it GPUs with --gpus",
            ) from None
        return sandbox
    if request.gpus is not None:
        raise UsageError(
            "--gpus applies to images, and this is a predictor", fix="name its --device"
        )
    return predictor


@contextmanager
def _player(
    request: Interactive, played: PredictorFolder | Sandbox, limit_s: float
) -> Iterator[Player]:
    """Give what makes the masks."""
    if not isinstance(played, PredictorFolder):
        timeout_s = limit_s if math.isfinite(limit_s) else 3600.0
        yield ImagePlayer(played, timeout_s, request.gpus)
        return
    from flarekit.segmentation.folder import Options, run_folder
    from flarekit.segmentation.segmenter import Segmenter
    from flarekit.segmentation.source import Source

    source = Source.of_folder(played)
    with Segmenter(source, Options(convention=CONVENTION, device=request.device)) as segmenter:

        def run(inputs: Path, outputs: Path, cache: Path) -> None:
            options = Options(convention=CONVENTION, on_error="stop", between_calls=cache)
            record = run_folder(segmenter, inputs, outputs, options)
            for case in record.failed:
                raise UsageError(case.error or "it failed", fix=case.fix or "see the log")

        yield PredictorPlayer(run)


def _opened(request: Interactive, opened: ExitStack, unknown: UsageError) -> Sandbox:
    """Return what runs the image, for as long as `opened` is.

    Args:
        request: names it.
        opened: gets what has to be closed.
        unknown: why it is no predictor, said where there is no such image either.
    """
    from flarekit.images.verify import VerifyRequest, open_sandbox

    asked = VerifyRequest(image=request.played, backend=request.backend)
    try:
        return opened.enter_context(open_sandbox(asked))
    except InputError as error:
        raise InputError(
            f"{unknown.message}, and no image: {error.message}",
            fix=f"{unknown.fix}; or else {error.fix}",
        ) from error


def _in_words(session: Session) -> str:
    parts = []
    for step in session.steps:
        dice = step.figures["dice"]
        parts.append("-" if math.isnan(dice) else f"{dice:.3f}")
    slowest = max(step.seconds for step in session.steps)
    return f"Dice {' '.join(parts)}; slowest call {slowest:.1f} s"


def _late(sessions: Sequence[Session], limit_s: float) -> list[str]:
    return [
        f"{session.case_id}: call {number} took {step.seconds:.0f} s, the limit is {limit_s:g} s"
        for session in sessions
        for number, step in enumerate(session.steps, 1)
        if step.seconds > limit_s
    ]


def _table(sessions: Sequence[Session], steps: int) -> list[str]:
    lines = [f"{'figure':8} {'AUC':>9} {'mean':>9} {'first':>9} {'last':>9} {'cases':>6}"]
    for name, each in areas(sessions).items():
        figures = " ".join(f"{each[key]:9.4f}" for key in ("auc", "mean", "first", "last"))
        lines.append(f"{name:8} {figures} {each['cases']:6.0f}")
    return [*lines, f"AUC: the trapezoid over {steps} calls; mean: AUC / {steps - 1}."]


def _write(request: Interactive, sessions: Sequence[Session], limit_s: float) -> None:
    if request.json is not None:
        content = {
            "played": request.played,
            "edition": request.edition,
            "seed": request.seed,
            "forget": request.forget,
            "limit_s": limit_s if math.isfinite(limit_s) else None,
            "areas": areas(sessions),
            "cases": [_as_dict(session) for session in sessions],
        }
        text = json.dumps(_without_nan(content), indent=1) + "\n"
        write_atomically(request.json, text.encode())
    if request.picture is not None:
        whole = [each for each in sessions if each.error is None]
        panels = {_TITLES[name]: [each.curve(name) for each in whole] for name in FIGURES}
        means = {_TITLES[name]: mean_curve(whole, name) for name in FIGURES}
        write_atomically(request.picture, curves_svg(panels, means).encode())


def _as_dict(session: Session) -> dict[str, Any]:
    return {
        "case": session.case_id,
        "kind": session.kind,
        "error": session.error,
        "steps": [
            {"marked": step.marked, "seconds": round(step.seconds, 3), **step.figures}
            for step in session.steps
        ],
    }


def _without_nan(content: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
