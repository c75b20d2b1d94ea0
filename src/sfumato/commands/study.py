"""The commands about studies and searches: make one, and say what it would take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from sfumato.commands.options import Count, Flat, Out
from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.pool import Executor
    from sfumato.study.run import Cost, How

Search = Annotated[Path, Parameter(help="YAML: training run, space, objectives (docs/study.md).")]
Path_ = Annotated[Path, Parameter(help="YAML: training run, variants, measurements (docs/study.md).")]


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How much, and where.

    Args:
        size: dev, fast or standard, where the study has such; by default as it is.
        out: its folder; default runs/study-NAME or runs/search-NAME.
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

    def how(self, title: str) -> How:
        """How it is carried out, under a title on the screen."""
        from sfumato.study.run import How

        watch = partial(progress, title, "trials")
        return How(self.who(), self.retry_failed, self.keep_going, self.trials, watch)


MAKING, PLANNING = MakeOptions(), StudyOptions()


def register(app: App) -> None:
    """Add the commands."""
    app.command(study)
    app.command(search)
    app["plan"].command(plan_study, name="study")


def study(config: Path_, *, options: Annotated[MakeOptions, Flat] = MAKING) -> int:
    """Train variants of one run, measure each, and say with intervals what each change did.

    Exit 0 if every trial has a result; 1 if some have none.
    """
    from sfumato.files import write_json
    from sfumato.report.html import write_report
    from sfumato.study.page import in_words, study_page, study_tables
    from sfumato.study.run import default_folder, run_study

    how = options.how(f"study {config.stem}")
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


def search(config: Search, *, options: Annotated[MakeOptions, Flat] = MAKING) -> int:
    """Try settings of a training run, keep those that improve several numbers, confirm the best.

    Exit 0 if there is a winner or the start is best; 1 if the start has no result.
    """
    from sfumato.files import write_json
    from sfumato.report.html import write_report
    from sfumato.study.page import study_page, study_tables
    from sfumato.study.search import default_folder, run_search
    from sfumato.study.search_page import in_words, search_page, search_tables

    folder = options.out or default_folder(config, options.size)
    found = run_search(config, options.size, out=folder, how=options.how(f"search {config.stem}"))
    pages = [search_page(found, config.stem)]
    for table in search_tables(found):
        say(table)
    if found.confirmation is not None:
        pages.append(study_page(found.confirmation, f"{config.stem}, confirmation"))
        for table in study_tables(found.confirmation):
            say(table)
    for line in in_words(found):
        say(line)
    say(f"report: {write_report(pages, folder / 'report.html')}")
    if options.json:
        write_json(options.json, found.as_json())
    return DONE if found.trials[0].numbers else PARTIAL


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
