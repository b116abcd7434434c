"""`flarekit submit`."""

from flarekit.cli.console import Console
from flarekit.images.submit import Request, submit


def run_submit(request: Request, console: Console) -> int:
    """Run cases on the platform, say what happened, and return the exit code.

    Raises:
        FlarekitError: nothing could be started, or the only case went wrong.
    """
    outcomes = submit(request, console)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    if failed:
        names = ", ".join(outcome.name for outcome in failed)
        console.error(f"{len(failed)} of {len(outcomes)} cases failed: {names} (see above)", None)
        return 1
    console.say(f"{len(outcomes)} of {len(outcomes)} cases are in {request.output_dir}")
    return 0
