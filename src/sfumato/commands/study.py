"""The commands about studies: make one, and say what it would take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from sfumato.commands.options import Count, Flat, Out
from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.pool import Executor
    from sfumato.study.run import Cost

Path_ = Annotated[Path, Parameter(help="YAML: training run, variants, measurements (docs/study.md).")]


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How much, and where.

    Args:
        size: dev, fast or standard, where the study has such; by default as it is.
        out: folder of the study; default runs/study-NAME.
        workers: trials made at once.
        threads: threads of each.
    """

    size: Literal["dev", "fast", "standard"] | None = None
    out: Out = None
    workers: Count = 1
    threads: Count = 1


@dataclass(frozen=True, kw_only=True)
class MakeOptions(StudyOptions):
    """The same, and how to carry it out.

    Args:
        trials: folder of trainings and measurements, which several studies may share.
        executor: "local", or a Python file that defines a Parsl `config` (docs/campaigns.md).
        retry_failed: make failed trials again.
        keep_going: go on where every trial fails for one reason.
        json: also write the findings as JSON to this file.
    """

    trials: Path = Path("runs/trials")
    executor: str = "local"
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    keep_going: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None

    def who(self) -> Executor:
        """Who does the work."""
        from sfumato.execution.parsl import ParslSettings
        from sfumato.execution.pool import PoolSettings

        pool = PoolSettings(self.workers, self.threads)
        return pool if self.executor == "local" else ParslSettings(Path(self.executor), pool)


MAKING, PLANNING = MakeOptions(), StudyOptions()


def register(app: App) -> None:
    """Add the commands."""
    app.command(study)
    app["plan"].command(plan_study, name="study")


def study(config: Path_, *, options: Annotated[MakeOptions, Flat] = MAKING) -> int:
    """Train variants of one run, measure each, and say with intervals what each change did.

    Exit 0 if every trial has a result; 1 if some have none.
    """
    from sfumato.files import write_json
    from sfumato.report.html import write_report
    from sfumato.study.page import in_words, study_page, study_tables
    from sfumato.study.run import How, default_folder, run_study

    how = How(
        options.who(),
        options.retry_failed,
        options.keep_going,
        options.trials,
        lambda: progress(f"study {config.stem}", "trials"),
    )
    folder = options.out or default_folder(config, options.size)
    found = run_study(config, options.size, out=folder, how=how)
    for table in study_tables(found):
        say(table)
    for line in in_words(found):
        say(line)
    page = write_report([study_page(found, config.stem)], folder / "report.html")
    say(f"report: {page}")
    if options.json:
        write_json(options.json, found.as_json())
    return PARTIAL if found.missing else DONE


def plan_study(config: Path_, *, options: Annotated[StudyOptions, Flat] = PLANNING) -> int:
    """Print what the trainings of a study would take, from a few timed steps of each variant."""
    from sfumato.execution.pool import effective_workers
    from sfumato.study.run import plan_study as cost_of

    costs = cost_of(config, options.size, out=options.out)
    say(_plan_table(costs, options.workers, effective_workers(options.workers, options.threads)))
    return DONE


def _plan_table(costs: list[Cost], workers: int, effective: float) -> RenderableType:
    from rich.text import Text

    from sfumato.commands.plan_table import with_workers
    from sfumato.report.tables import plain_table
    from sfumato.words import duration

    table = plain_table("Plan")
    table.add_column("variant", overflow="fold")
    for title in ("trials", "done", "steps", "time of one", "time left"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in costs:
        left = cost.seconds * (cost.trials - cost.done) / effective
        row = (str(cost.trials), str(cost.done), str(cost.steps), duration(cost.seconds), duration(left))
        table.add_row(Text(cost.variant), *row)
    table.add_section()
    left = sum(cost.seconds * (cost.trials - cost.done) for cost in costs) / effective
    trials, done = sum(cost.trials for cost in costs), sum(cost.done for cost in costs)
    table.add_row("together", str(trials), str(done), "", "", duration(left))
    table.caption = f"{with_workers(workers, effective)}, from a few timed steps of each; training only."
    return table
