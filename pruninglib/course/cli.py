"""The command `pruninglib`: list, run and check."""

import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


class Mistake(click.ClickException):
    """Something asked for that is not there: one sentence, and exit status 2."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The course on pruning: list its lessons, run them, check the environment."""


@main.command("list")
def list_lessons() -> None:
    """List the lessons."""
    from pruninglib.course import runner

    with _mistakes():
        lessons = runner.find_lessons()
    width = max(len(lesson.title) for lesson in lessons)
    for lesson in lessons:
        minutes = f"{lesson.minutes:3d} min" if lesson.minutes else " " * 7
        number = "  " if lesson.number is None else f"{lesson.number:02d}"
        click.echo(f"{number}  {lesson.title:{width}}  {minutes}  {lesson.question}")


PARAMETERS = click.option(
    "-p",
    "--parameter",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of the lessons.",
)


@main.command()
@click.argument("lessons", nargs=-1, metavar="[LESSON]...")
@PARAMETERS
@click.option("--data", metavar="TIER", help="The data to use, short for -p data TIER.")
@click.option("--jobs", type=click.IntRange(min=1), help="Lessons at once (default: the cores).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to (default: build/course in the clone).",
)
@click.option("--resume", is_flag=True, help="Run only what an earlier run did not finish.")
def run(
    lessons: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    data: str | None,
    jobs: int | None,
    out: Path | None,
    resume: bool,
) -> None:
    """Run lessons, named by number, name or path; all of them without a name."""
    parameters = {name: _value(text) for name, text in pairs}
    if data is not None:
        if parameters.get("data", data) != data:
            raise Mistake(f"--data is {data} and -p data is {parameters['data']}: give one.")
        parameters["data"] = data
    from pruninglib.course import runner  # slow to import, and help needs not wait for it

    out = out or runner.ROOT / "build" / "course"
    try:
        with _mistakes():
            chosen = runner.choose(lessons, runner.find_lessons())
            report = runner.run(chosen, parameters, jobs, out, resume)
    except KeyboardInterrupt:
        click.echo("Interrupted: the finished lessons are kept, and --resume runs the rest.")
        sys.exit(130)
    failed = [lesson for lesson in report["lessons"] if lesson["status"] != "ok"]
    count = len(report["lessons"])
    click.echo(
        f"{count - len(failed)} of {count} lessons ok in {report['total_seconds']:.0f} s: "
        f"{out / 'index.html'}"
    )
    for line in _what_failed(failed):
        click.echo(line)
    sys.exit(1 if failed else 0)


def _what_failed(failed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which claims broke, by how much, and what that means; lessons that stopped, and why."""
    broken = [
        (lesson, claim) for lesson in failed for claim in lesson["claims"] if not claim["held"]
    ]
    for lesson, claim in broken:
        yield f"{Path(lesson['path']).stem}: “{claim['text']}” broke: {_by_how_much(claim)}."
    for lesson in failed:
        if not lesson["error"].startswith("The claim"):
            yield f"{Path(lesson['path']).stem} failed: {lesson['error']}"
    if broken:
        yield (
            "If you are learning: on another processor or with other parameters the networks come "
            "out a little different, so look at the interval around the value in the lesson. A "
            "value far beyond its bound, or an exact claim that broke, is worth reporting."
        )
    if failed:
        yield "If this is a build server: the run has failed, with exit status 1."


def _by_how_much(claim: Mapping[str, Any]) -> str:
    side = next((side for side in ("above", "below") if claim[side] is not None), None)
    if side is None:
        return "it is exact, so no machine should break it"
    if claim["value"] is None:
        return f"its value is not a number, and should be {side} {claim[side]:g}"
    ends = "" if claim["low"] is None else f" ({claim['low']:.3g} to {claim['high']:.3g})"
    missed = f"{abs(claim['value'] - claim[side]):.2g}"
    return f"{claim['value']:.3g}{ends} is not {side} {claim[side]:g}, it misses by {missed}"


@main.command()
@click.argument("lessons", nargs=-1, metavar="[LESSON]...")
def fold(lessons: tuple[str, ...]) -> None:
    """Fold the cells of lessons that only say, claim or record; for those who write lessons."""
    from pruninglib.course import fold, runner

    with _mistakes():
        chosen = runner.choose(lessons, runner.find_lessons())
    found = {lesson.path.stem: fold.fold(lesson.path) for lesson in chosen}
    for name, cells in found.items():
        for number in cells:
            click.echo(f"{name}, cell {number} speaks and computes: put each in a cell of its own.")
    sys.exit(1 if any(found.values()) else 0)


@main.command()
@click.argument("lessons", nargs=-1, metavar="[LESSON]...")
@click.option("--groups", type=click.IntRange(min=2), default=10, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at once (default: the cores).")
def sturdy(lessons: tuple[str, ...], groups: int, jobs: int | None) -> None:
    """Measure how far each claim is from breaking, and write notebooks/sturdy.csv.

    Each lesson runs with groups of fresh seeds, on another code path of the processor, and beside
    busy processes. What an earlier call has measured of the same code is kept.
    """
    from pruninglib.course import runner, sturdy

    runs = runner.ROOT / "build" / "sturdy.jsonl"
    with _mistakes():
        chosen = [x for x in runner.choose(lessons, runner.find_lessons()) if x.number is not None]
        if not chosen:
            raise Mistake("A self-test claims nothing: name a lesson.")
    failed = 0
    try:
        for run, done, total, left in sturdy.measure_all(chosen, groups, runs, jobs):
            broken = [claim["text"] for claim in run["claims"] if not claim["held"]]
            verdict = run["error"] or "; ".join(f"“{text}” broke" for text in broken) or "all held"
            failed += run["error"] is not None
            click.echo(
                f"{run['lesson']}  {run['condition']:12} {run['seconds']:6.1f} s  {verdict}  "
                f"[{done}/{total}, about {left / 60:.0f} min left]"
            )
    except KeyboardInterrupt:
        click.echo("Interrupted: what has run is kept, and the same call runs the rest.")
        sys.exit(130)
    if failed:
        click.echo(f"{failed} runs stopped: the table is as it was.")
        sys.exit(1)
    kept = sturdy.read_runs(runs)
    table = sturdy.write([sturdy.table_of(lesson, kept, groups) for lesson in chosen])
    table = table[table["lesson"].isin([lesson.path.stem for lesson in chosen])]
    for row in table[~table["green"]].itertuples():
        click.echo(f"not sturdy: {row.lesson} {row.kind} “{row.text}”: {row.held} of {row.groups}, "
                   f"z {row.z}")  # fmt: skip
    click.echo(f"{table['green'].sum()} of {len(table)} claims and records are sturdy.")
    sys.exit(0 if table["green"].all() else 1)


@main.command()
@click.argument("lessons", nargs=-1, metavar="[LESSON]...")
@PARAMETERS
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True)
def results(lessons: tuple[str, ...], pairs: tuple[tuple[str, str], ...], seeds: int) -> None:
    """Run lessons on the published data and write notebooks/RESULTS.md.

    Without a name, all those that show something there. Those whose claims all held are kept from
    an earlier call.
    """
    from pruninglib.course import results, runner

    parameters = {"data": "full", "seeds": seeds} | {name: _value(text) for name, text in pairs}
    out = runner.ROOT / "build" / "results"
    with _mistakes():
        chosen = [x for x in runner.choose(lessons, runner.find_lessons()) if results.takes_part(x)]
        if not chosen:
            raise Mistake(f"None of these lessons has a cell tagged {results.TAG!r}.")
        report = runner.run(chosen, parameters, out=out, resume=True)
    errors = [result["error"] for result in report["lessons"] if result["error"]]
    stopped = [error for error in errors if not error.startswith("The claim")]
    if stopped:
        raise click.ClickException(
            f"RESULTS.md was not written, for a lesson stopped: {stopped[0]}"
        )
    page = runner.ROOT / "notebooks" / "RESULTS.md"
    results.write(chosen, report, parameters, out, page)
    click.echo(f"Written: {page}")


@main.command()
def pretrain() -> None:
    """Train the networks that the course ships and that are missing, and write their table.

    They are in data/models; delete a file to have it made again.
    """
    from pruninglib.tasks import pretrained

    for task, seed, width in pretrained.shipped():
        path = pretrained.SHIPPED / pretrained.file_of(task, seed, width)
        if not path.exists():
            record = pretrained.write_pretrained(task, seed, width, path)
            click.echo(f"{path.name}: {task.primary} on test {record[f'{task.primary}, test']:.3f}")
    pretrained.records().to_csv(pretrained.SHIPPED / "records.csv", index=False)
    click.echo(f"Written: {pretrained.SHIPPED / 'records.csv'}")


@main.command()
def check() -> None:
    """Check the environment and say what to do about what is wrong."""
    from pruninglib.course.check import rows

    failed = False
    for name, status, detail, advice in rows():
        failed |= status == "fail"
        color = {"ok": "green", "warn": "yellow", "fail": "red"}[status]
        click.secho(f"{status:4}", fg=color, nl=False)
        click.echo(f"  {name:12} {detail}")
        if advice:
            click.echo(f"{'':18} → {advice}")
    sys.exit(1 if failed else 0)


@contextmanager
def _mistakes() -> Iterator[None]:
    from pruninglib.course.runner import LessonError

    try:
        yield
    except LessonError as error:
        raise Mistake(str(error)) from None


def _value(text: str) -> Any:
    """A value as JSON or Python writes it (3, 1e-3, true, None, [0, 1]); other text as it is."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError):
            continue
        if isinstance(value, tuple):
            return list(value)
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            return value
    return text


if __name__ == "__main__":
    main(prog_name="pruninglib")
