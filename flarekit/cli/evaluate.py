"""`flarekit evaluate`: masks against their truth, by an organiser's rules."""

import math
from collections.abc import Mapping, Sequence

import typer

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.requests import Scoring
from flarekit.cli.scores import tables
from flarekit.core.apart import keep_below, keep_files
from flarekit.core.cores import usable_cores
from flarekit.core.dataset_json import NAME as DATASET_JSON
from flarekit.core.dataset_json import read_dataset
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.core.registry import near_miss
from flarekit.evaluation.evaluate import CaseResult, Evaluation, evaluate
from flarekit.evaluation.masks import case_id_of, find_pairs
from flarekit.evaluation.picture import Pictures
from flarekit.evaluation.results import write_csv, write_json
from flarekit.evaluation.scheme import PAPERS, NamedScheme, Settings
from flarekit.evaluation.tolerances import TOLERANCES_MM

Values = dict[str, tuple[int, ...]]  # name -> value, or the values of a region


def run_evaluate(request: Scoring, console: Console) -> int:
    """Score a folder, print the tables, write the files, and return the exit code."""
    pairs, surplus = find_pairs(request.predicted, request.truth)
    scheme, settings = _settings(request, console)
    _keep_inputs(request, [pair.case_id for pair in pairs])
    pictures = None
    if request.pictures is not None:
        make_folder(request.pictures)
        pictures = Pictures(folder=request.pictures, scans=request.scans)
    total, done = len(pairs), 0

    def on_case(case: CaseResult) -> None:
        nonlocal done
        console.start_case(case.case_id, done, total)
        done += 1
        for warning in case.warnings:
            console.say(f"warning: {case.case_id}: {warning}")
        if case.error is not None:
            console.error(f"case {case.case_id}: {case.error}", case.fix)

    with console:
        evaluation = evaluate(
            pairs,
            scheme,
            settings,
            workers=request.workers or usable_cores(),
            pictures=pictures,
            on_case=on_case,
            surplus=surplus,
        )
    if request.json is not None:
        write_json(evaluation, request.json)
    if request.csv is not None:
        write_csv(evaluation, request.csv)
    for line in tables(evaluation):
        typer.echo(line)
    return _close(evaluation, console)


def _keep_inputs(request: Scoring, case_ids: Sequence[str]) -> None:
    """Refuse to write scores or pictures over anything that is read.

    The folder of the predictions is the user's own output: older scores in it may be replaced,
    its masks may not.

    Raises:
        UsageError: naming the file that would be replaced.
    """
    written = [path for path in (request.json, request.csv) if path is not None]
    if request.pictures is not None:
        written += [request.pictures / f"{case_id}.png" for case_id in case_ids]
    for folder in (request.truth, request.scans):
        if folder is not None:
            keep_below(folder, written)
    beside_truth = request.truth.resolve().parent / DATASET_JSON
    masks = [path for path in request.predicted.iterdir() if case_id_of(path) is not None]
    keep_files([*masks, beside_truth], written)
    if request.predictor is not None:
        from flarekit.segmentation.predictors import find_predictor

        keep_below(find_predictor(request.predictor).folder, written, what="the predictor's folder")


def _settings(request: Scoring, console: Console) -> tuple[NamedScheme, Settings]:
    """Return whose scores, and of what: labels are never assumed, they come from somewhere."""
    if request.labels is not None and request.predictor is not None:
        raise UsageError("--labels and --predictor both name labels", fix="give one of them")
    labels, source, own = _stated_labels(request)
    name = request.convention or own or _fitting(labels, request)
    named = conventions.scheme_of(name)
    scheme = named.load()
    edition = request.edition or scheme.EDITIONS[-1]
    if edition not in scheme.EDITIONS:
        raise UsageError(
            f"convention {name!r} has no edition {edition!r}",
            fix=f"known: {', '.join(scheme.EDITIONS)}",
        )
    usual = _usual(scheme.default_labels(edition))
    _check_plain(name, labels or {}, request)
    if labels is None or (_are_numbers(usual) and request.labels is None):
        labels, source = usual, f"the convention {name}"
    if request.convention is None or source.endswith(DATASET_JSON):
        console.say(f"scores of {name}; labels of {source}: {', '.join(labels)}")
    tolerances_mm = dict(_parse_tolerance(entry) for entry in request.tolerances or ())
    kept = _without(labels, request.ignore)
    strange = [label for label in tolerances_mm if label not in kept]
    if strange:
        raise UsageError(
            f"--tolerance names {', '.join(strange)}, which is not scored",
            fix=f"scored: {', '.join(kept)}",
        )
    unscored = {value for label, values in labels.items() if label not in kept for value in values}
    return named, Settings(
        edition=edition,
        labels={label: values[0] for label, values in kept.items() if len(values) == 1},
        tolerances_mm=tolerances_mm,
        unscored=frozenset(unscored),
        regions={label: values for label, values in kept.items() if len(values) > 1},
        probabilities=request.probabilities,
    )


def _usual(labels: Mapping[str, int | tuple[int, ...]]) -> Values:
    return {name: value if isinstance(value, tuple) else (value,) for name, value in labels.items()}


def _are_numbers(labels: Values) -> bool:
    """Tell whether an organiser's values are numbers of lesions, not a predictor's labels."""
    return any(len(values) > 1 for values in labels.values())


def _check_plain(name: str, labels: Values, request: Scoring) -> None:
    """Check that an organiser who scores one value a label is asked for no more.

    Raises:
        UsageError: there are regions or probabilities.
    """
    regions = [label for label, values in labels.items() if len(values) > 1]
    if name != PAPERS.name and (regions or request.probabilities is not None):
        what = f"the region {regions[0]}" if regions else "probabilities"
        raise UsageError(
            f"convention {name!r} does not score {what}", fix="score it with --convention papers"
        )


def _stated_labels(request: Scoring) -> tuple[Values | None, str, str | None]:
    """Return the labels that an option or a file beside the truth states, and where they are from.

    The third is whose scores go with them, where that is known.

    Raises:
        UsageError: nothing states any, and no convention has been named either.
    """
    if request.labels is not None:
        return _parse_labels(request.labels), "--labels", None
    if request.predictor is not None:
        from flarekit.segmentation.predictors import find_predictor

        spec = find_predictor(request.predictor).spec
        own = spec.convention if spec.convention in conventions.scored() else None
        return _usual(spec.labels), spec.name, own
    for folder in (request.truth, request.truth.resolve().parent):
        path = folder / DATASET_JSON
        if path.is_file():
            dataset = read_dataset(path, gaps=True)
            if dataset.region_values:
                raise UsageError(
                    f"{path}: its labels are regions, which are not one value each",
                    fix="name what is to be scored with --labels, such as WT=1+2+3,TC=1+3,ET=3",
                )
            return _usual(dataset.labels), str(path), None
    if request.convention is None:
        raise UsageError(
            "which labels are to be scored is not clear",
            fix="give --labels liver=1,spleen=3, a --predictor, a --convention with labels of its "
            f"own, or put nnU-Net's {DATASET_JSON} beside the truth",
        )
    return None, "", None


def _fitting(labels: Values | None, request: Scoring) -> str:
    """Return whose scores the labels get where none were asked for: FLARE's if it knows them."""
    tolerances = {entry.partition("=")[0].strip() for entry in request.tolerances or ()}
    known = set(labels or ()) <= {*TOLERANCES_MM, *tolerances}
    plain = request.probabilities is None and all(
        len(each) == 1 for each in (labels or {}).values()
    )
    return "flare" if known and plain else PAPERS.name


def _parse_labels(text: str) -> Values:
    labels: Values = {}
    for entry in text.split(","):
        name, _, value = (part.strip() for part in entry.partition("="))
        parts = [part.strip() for part in value.split("+")]
        right = all(part.isdecimal() and 1 <= int(part) <= 255 for part in parts)
        if not name or not right or len(set(parts)) != len(parts) or name in labels:
            raise UsageError(
                f"--labels: {entry.strip()!r} is not a label",
                fix="write liver=1,spleen=3, or WT=1+2+3 for a region (values from 1 to 255)",
            )
        labels[name] = tuple(int(part) for part in parts)
    if len({frozenset(values) for values in labels.values()}) != len(labels):
        raise UsageError(
            "--labels: two labels have the same values", fix="give each label values of its own"
        )
    return labels


def _parse_tolerance(text: str) -> tuple[str, float]:
    name, _, value = (part.strip() for part in text.partition("="))
    try:
        tolerance_mm = float(value)
    except ValueError:
        tolerance_mm = math.nan
    if not name or not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(
            f"--tolerance: {text!r} is not a tolerance", fix="write duodenum=7 (in mm)"
        )
    return name, tolerance_mm


def _without(labels: Values, ignore: str | None) -> Values:
    """Return the labels that are scored."""
    ignored = [entry.strip() for entry in (ignore or "").split(",") if entry.strip()]
    names_of_values = {"+".join(map(str, values)): name for name, values in labels.items()}
    for entry in ignored:
        if entry not in labels and entry not in names_of_values:
            hint = near_miss(entry, labels)
            raise UsageError(f"--ignore: no label {entry!r}", fix=hint)
    left_out = {names_of_values.get(entry, entry) for entry in ignored}
    kept = {name: value for name, value in labels.items() if name not in left_out}
    if not kept:
        raise UsageError("--ignore leaves no label to score", fix="ignore fewer")
    return kept


def _close(evaluation: Evaluation, console: Console) -> int:
    """Say what the run came to; the last line of a faulty run names every faulty case."""
    if evaluation.surplus:
        console.say(f"not scored, no truth: {', '.join(evaluation.surplus)}")
    for value, (truths, predictions) in evaluation.strange_values.items():
        console.say(
            f"warning: {value} is not a label's value, and is in {truths} true masks and "
            f"{predictions} predictions (labels: {_listed(evaluation.settings.members)})"
        )
    absent = evaluation.absent_labels
    if absent:
        console.say(f"warning: no mask, true or predicted, holds {', '.join(absent)}")
    total = len(evaluation.cases)
    faulty = evaluation.faulty
    if not faulty and len(absent) == len(evaluation.settings.members):
        console.error(
            "nothing was scored: no mask holds a label that is scored",
            "name the values that the masks hold with --labels",
        )
        return 1
    if not faulty:
        console.say(f"{total} of {total} cases scored")
        return 0
    parts = []
    for state in ("missing", "unreadable", "failed", "scored"):
        names = [case.case_id for case in faulty if case.state == state]
        if names:
            parts.append(f"{_MEANING[state]}: {', '.join(names)}")
    console.error(f"{len(faulty)} of {total} cases have faults; {'; '.join(parts)}", None)
    return 1


def _listed(labels: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{label}={'+'.join(map(str, each))}" for label, each in labels.items())


_MEANING = {
    "missing": "no prediction, scored as missing",
    "unreadable": "prediction unusable, scored as missing",
    "failed": "not scored",
    "scored": "scored, but without a picture",
}
