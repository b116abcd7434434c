"""`flarekit arrange` and `flarekit collect`: to a platform's layout and back."""

from pathlib import Path

import typer

from flarekit.core.errors import UsageError


def arrange(
    inputs: list[Path] | None = None,
    convention: str = "flare",
    output: Path = Path("input"),
    channels: int = 1,
    sockets: list[str] | None = None,
) -> None:
    """Lay scans out as an organiser's platform does; `collect` brings the masks back."""
    from flarekit.cli.console import Console, typed
    from flarekit.segmentation.arranging import arrange as lay_out
    from flarekit.segmentation.arranging import predictor_for

    if not inputs:
        raise UsageError("no scan is named", fix="name scans, or folders of them")
    with Console().spinner("laying scans out"):
        done = lay_out(inputs, convention, output, channels, sockets or ())
    jobs = {each.job for each in done.placed}
    many = f" in {len(jobs)} jobs, a folder each" if len(jobs) > 1 else ""
    count = len(done.placed)
    laid_out = "1 scan is" if count == 1 else f"{count} scans are"
    fitting = predictor_for(convention, channels)
    runs = [fitting] if fitting else ["PREDICTOR", "--convention", convention]
    typer.echo(
        f"{laid_out} laid out for {convention} in {output}{many}. Then:\n"
        f"  {typed('predict', '-p', *runs, '-i', output, '-o', 'masks')}\n"
        f"  {typed('collect', 'masks', '--arranged', output, '-o', 'collected')}"
    )
    raise typer.Exit(1 if done.left_out else 0)


def collect(masks: Path, arranged: Path, output: Path) -> None:
    """Bring masks of arranged scans back to the scans' names, places and formats."""
    from flarekit.cli.console import Console
    from flarekit.conventions import collect as bring_back
    from flarekit.core.apart import keep_apart

    keep_apart(masks, output, [], what="the folder of the masks")
    keep_apart(arranged, output, [])
    with Console().spinner("bringing masks back"):
        done = bring_back(masks, arranged, output)
    for sentence in done.missing:
        typer.echo(f"error: {sentence}", err=True)
    typer.echo(
        f"masks in {output}: {len(done.masks)} of {len(done.masks) + len(done.missing)} scans"
    )
    raise typer.Exit(1 if done.missing else 0)
