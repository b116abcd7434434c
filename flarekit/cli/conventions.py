"""`flarekit conventions`: what organisers put in and expect out, as a tree."""

import typer


def conventions(
    name: str | None = None,
) -> None:
    """Show the conventions, or the input and output folders of one."""
    from flarekit import conventions as known
    from flarekit.images.run_line import line_of_convention

    if name is None:
        for each in known.names():
            typer.echo(f"{each:15} {known.facts_of(each).title}")
        typer.echo("\nflarekit conventions NAME shows its input and output folders.")
        return
    facts = known.facts_of(name)
    typer.echo(f"{facts.title}\n\nInput:\n")
    typer.echo(_indented(facts.input_tree))
    typer.echo("Output:\n")
    typer.echo(_indented(facts.output_tree))
    if facts.run_line is not None:
        line = facts.run_line
        typer.echo(f"In the container the folders are {line.inputs} and {line.outputs}.")
    if facts.between_calls:
        typer.echo(
            f"What an image leaves in {facts.between_calls} may be there in the next call of the "
            "same case (p); images run without it."
        )
    if facts.budget.time_s is not None:
        typer.echo(f"Its images keep to {facts.budget.time_s:g} s a case.")
    run_line = line_of_convention(name, "TEAM:latest", gpu=facts.device == "cuda")
    if run_line is not None:
        typer.echo(f"\nThe organiser runs an image so:\n\n  {run_line}")
    if facts.presets:
        typer.echo("\nPresets (for --preset of build, verify and profile):\n")
        for preset, (limits, source) in facts.presets.items():
            typer.echo(f"  {preset:15} {limits}\n{'':18}source: {source}")
        typer.echo(
            "\nUnmarked: the organiser states it. (p): participants say so. (?): a guess, since "
            "nothing was found."
        )


def _indented(tree: str) -> str:
    return "".join(f"  {line}\n" for line in tree.splitlines())
