"""Options of a recipe that change nothing as it stands, which are errors of whoever wrote it."""

from collections.abc import Iterator

from flarekit.training.regimes import TERMS, Objective, Schedule
from flarekit.training.tables import OrganFacts, TrainingFacts


def idle_option(facts: TrainingFacts, objective: Objective, schedule: Schedule) -> str:
    """Return the first option that changes nothing, and what it needs; empty where there is none.

    The objective and the schedule are those that the `[training]` table comes to.
    """
    options = (
        *_of_objective(facts, objective),
        *_of_schedule(facts, schedule),
        *_of_cases(facts),
        *_of_organs(facts.augmentation.organs),
    )
    return next((f"training.{name} {need}" for name, need in options), "")


def _of_objective(facts: TrainingFacts, objective: Objective) -> Iterator[tuple[str, str]]:
    told = facts.objective.model_fields_set
    if not any(getattr(objective, term) for term in TERMS):
        yield "objective", f"leaves no term of the loss: give one a weight ({', '.join(TERMS)})"
    if "regions" in told and not (objective.region_tversky or objective.region_dice):
        yield "objective.regions", "is of region_tversky and region_dice, whose weights are 0"
    if "region_weights" in told and not objective.region_tversky:
        yield "objective.region_weights", "is of region_tversky, whose weight is 0"
    if objective.balanced and not objective.cross_entropy:
        yield "objective.balanced", "is of cross_entropy, whose weight is 0"


def _of_schedule(facts: TrainingFacts, schedule: Schedule) -> Iterator[tuple[str, str]]:
    told = facts.schedule.model_fields_set
    if "decay" in told and schedule.kind != "exponential":
        yield "schedule.decay", f'is of kind = "exponential", and the kind is {schedule.kind!r}'
    if schedule.kind == "exponential" and schedule.epochs == 1:
        yield "schedule.kind", '"exponential" loses a part per epoch: give epochs'
    if schedule.warm_up >= schedule.epochs:
        yield "schedule.warm_up", f"takes all of the {schedule.epochs} epochs: give more epochs"
    if "plateau_factor" in told and schedule.plateau_patience is None:
        yield "schedule.plateau_factor", "needs plateau_patience"


def _of_cases(facts: TrainingFacts) -> Iterator[tuple[str, str]]:
    told = facts.model_fields_set
    if facts.near is not None and not (facts.unlabelled or facts.labelled):
        yield "near", "is about labels that cases lack: name them in unlabelled or labelled"
    if "near_mm" in told and facts.near is None:
        yield "near_mm", "needs near, the organ that it is a distance from"
    if facts.phantom_share and not range(*facts.phantom_seeds):
        yield "phantom_share", "needs phantom_seeds, the first and one past the last"
    if facts.synthesis is not None and not range(*facts.synthesis.seeds):
        yield "synthesis.seeds", "are none: give the first and one past the last"
    copies = 1 if facts.other_ct is None else facts.other_ct.copies
    for table in facts.datasets:
        if table.layout != "wholebody_pet" and (table.known_Z or table.added):
            yield "datasets", f'{table.folder}: known_Z and added are of layout = "wholebody_pet"'
        if table.added and copies == 1:
            yield "datasets", f"{table.folder}: added is of every second copy: give other_ct.copies"
    other = facts.other_ct
    if other is not None and "shift_mm" in other.model_fields_set and not other.shifted:
        yield "other_ct.shift_mm", "needs shifted, how often it is so"


def _of_organs(organs: OrganFacts) -> Iterator[tuple[str, str]]:
    name = "augmentation.organs"
    if (organs.factor or organs.shift_mm) and not organs.changed:
        yield name, "has factor or shift_mm, and needs changed, how often it is so"
    if organs.changed and not (organs.factor or organs.shift_mm):
        yield f"{name}.changed", "needs factor or shift_mm"
    if bool(organs.lesions) != bool(organs.lesion_labels):
        yield name, "needs both lesions, how often there are some, and lesion_labels, where"
