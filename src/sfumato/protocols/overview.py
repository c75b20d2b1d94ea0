"""The verdicts on all models of some runs: lines for a terminal, the first page of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.protocols.protocol import Protocol, Run
from sfumato.protocols.verdict import QUESTIONS, Said, Verdict, unanswered
from sfumato.report.html import Page, linked
from sfumato.report.tables import plain_table


def verdicts(runs: Sequence[Run]) -> dict[str, Verdict]:
    """Return the verdict on each model of some runs, from all of them, in the order of the runs.

    Results of one name belong together if they are of the same potential; where they are not, the name is
    followed by the beginning of the potential's hash.
    """
    sections = _sections(runs)
    found: dict[tuple[str, str], list[Said]] = {}
    controls: dict[tuple[str, str], bool] = {}
    for run, section in zip(runs, sections, strict=True):
        for name in run.models:
            key = (name, run.identity_of(name))
            controls[key] = run.is_control(name)
            found.setdefault(key, []).extend(run.said(name, section))
    names = [name for name, _ in found]
    return {
        (name if names.count(name) == 1 else f"{name} ({identity[:6]})"): Verdict(
            tuple(said), controls[name, identity]
        )
        for (name, identity), said in found.items()
        if said
    }


def _sections(runs: Sequence[Run]) -> list[str]:
    """The id of each run's section on the page of its protocol."""
    counts: dict[str, int] = {}
    sections = []
    for run in runs:
        k = counts.get(run.protocol.name, 0)
        counts[run.protocol.name] = k + 1
        sections.append(f"{run.protocol.name}{k}")
    return sections


def verdict_table(runs: Sequence[Run]) -> RenderableType | None:
    """Return one line about every model; None where no protocol has an answer to anything."""
    every = verdicts(runs)
    if not every:
        return None
    table = plain_table("Verdict")
    table.add_column("model", overflow="fold")
    table.add_column("in words", overflow="fold")
    for name, verdict in every.items():
        style = "bold red" if verdict.broken else "" if verdict.sound else "red"
        table.add_row(Text(name), Text(verdict.in_words(), style=style))
    sources = dict.fromkeys(said.source for verdict in every.values() for said in verdict.said)
    table.caption = Text(f"From {', '.join(sources)}. {_not_asked(every.values())}".strip())
    return Group(table, Text())


def question_table(verdict: Verdict) -> RenderableType:
    """Return each question with its answer and the number that weighs most."""
    table = plain_table("Questions")
    table.add_column("question", overflow="fold", ratio=4)
    table.add_column("answer", no_wrap=True)
    table.add_column("because", overflow="fold", ratio=5)
    for key, question in QUESTIONS.items():
        answer = verdict.answer(key)
        style = {"no": "bold red", "unknown": "yellow"}.get(answer, "green")
        table.add_row(Text(question.words), Text(answer, style=style), Text(_because(key, verdict)))
    table.caption = "The page opens each answer: every number, its place, its threshold and why."
    return Group(table, Text())


def _because(key: str, verdict: Verdict) -> str:
    """The worst evidence of the first who gave the answer that counts."""
    answers = verdict.of(key)
    if not answers:
        return f"nothing was asked: {QUESTIONS[key].ask}"
    first = answers[0].answer
    words = first.evidence[0].in_words() if first.evidence else first.lacking or "no number"
    return f"{words} ({answers[0].source.split(' on ')[0]})"


def _not_asked(every: Iterable[Verdict]) -> str:
    asks: dict[str, list[str]] = {}
    for key in unanswered(every):
        asks.setdefault(QUESTIONS[key].ask, []).append(key)
    rest = "; ".join(f"{', '.join(keys)} ({ask})" for ask, keys in asks.items())
    return f"Not asked: {rest}." if rest else ""


def verdict_page(runs: Sequence[Run]) -> Page | None:
    """Return the page of verdicts, with links to the pages of the runs; None where there is no answer."""
    every = verdicts(runs)
    if not every:
        return None
    body = [
        '<p class="soft">Each line opens: what was asked, the answer, the number behind it and where, and '
        "the threshold with its reason.</p>",
        f'<ul class="verdicts">{"".join(_item(name, verdict) for name, verdict in every.items())}</ul>',
        f'<p class="note">{escape(_not_asked(every.values()))}</p>',
    ]
    sources = dict.fromkeys(said.source for verdict in every.values() for said in verdict.said)
    return Page("Verdict", f"From {', '.join(sources)}; written by Sfumato", body)


def _item(name: str, verdict: Verdict) -> str:
    kind = "" if verdict.sound else ' class="bad"'
    line = f"<b>{escape(name)}</b>: <span{kind}>{escape(verdict.in_words())}</span>"
    rows = "".join(_question(key, verdict) for key in verdict.questions)
    return f"<li><details><summary>{line}</summary><dl>{rows}</dl></details></li>"


def _question(key: str, verdict: Verdict) -> str:
    items = "".join(f"<li>{_said(said)}</li>" for said in verdict.of(key))
    return f"<dt>{escape(QUESTIONS[key].words)} {verdict.answer(key)}</dt><dd><ul>{items}</ul></dd>"


def _said(said: Said) -> str:
    a = said.answer
    pieces = []
    for piece in a.evidence:
        words = escape(piece.in_words())
        link = f"#{said.section}{piece.anchor}"
        pieces.append(f'<a href="{escape(link)}">{words}</a>' if said.section else words)
    shown = "; ".join(pieces) or escape(a.lacking or "no number")
    why = f"Threshold: {a.threshold}, since {a.reason}."
    return f"<b>{escape(a.answer)}</b> ({escape(said.source)}): {shown}. {linked(why)}"


def report_pages(runs: Sequence[Run]) -> list[Page]:
    """Return the pages of a report: the verdicts on all models first, then a page for each protocol."""
    groups: dict[str, tuple[Protocol, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.protocol.name, (run.protocol, []))[1].append(run)
    first = verdict_page(runs)
    pages = [protocol.page(some) for protocol, some in groups.values()]
    return [*([first] if first else []), *pages]
