"""Long commands, killed again and again at random moments, then left to finish.

Run it by hand with: python -m tests.hostile.kills [COMMAND …]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from tests import SHARED
from tests import made_training as made
from tests.hostile.inputs import ETHANE, SOURCE

KILLS = 20

ORPHANED = 15.0
"""Seconds; a busy machine needs some to end a process that was starting."""

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT)
MARK = "SFUMATO_TEST_KILLS"
TORCH = "tmp/torchinductor_"
"""What torch keeps in the place for temporary files, for all that come later."""

RELEASED = SHARED / "data" / "bsct-spice.tar.zst"

CALCULATOR = """
import time
from ase.calculators.calculator import Calculator, all_changes

class Slow(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        time.sleep(0.01)
        bond = self.atoms.positions - self.atoms.positions.mean(axis=0)
        self.results = {"energy": float((bond**2).sum()), "forces": -2 * bond}

def slow():
    return Slow()
"""


@dataclass(frozen=True)
class Long:
    """A command that takes its time.

    Args:
        words: of the command line.
        inputs: writes what it needs into a folder.
        result: what came of it, to be compared.
        code: with which it ends where nothing disturbs it.
        first: Python that is done before the command.
    """

    words: tuple[str, ...]
    inputs: Callable[[Path], None]
    result: Callable[[Path], str]
    code: int = 0
    first: str = ""


@dataclass
class Story:
    """What happened to a command.

    Args:
        seconds: that it takes undisturbed.
        ends: exit codes of the killed processes.
        finished: how often it was quicker than the kill.
        leftovers: temporary files in the folder after the kills, and after the next start.
        orphans: processes that outlived a kill by more than `ORPHANED` seconds.
        same: whether the result is that of the undisturbed one.
    """

    seconds: float
    ends: Counter[int] = field(default_factory=Counter)
    finished: int = 0
    leftovers: tuple[int, list[str]] = (0, [])
    orphans: int = 0
    same: bool = False

    def __str__(self) -> str:
        before, after = self.leftovers
        return (
            f"{self.seconds:.0f} s undisturbed; {sum(self.ends.values())} kills ended with "
            f"{dict(self.ends)}, "
            f"{self.finished} came too late; {before} temporary files left by kills, {after} after the next "
            f"start; {self.orphans} orphans; the result is {'the same' if self.same else 'ANOTHER'}"
        )


def _calculator(folder: Path) -> None:
    (folder / "m.py").write_text(CALCULATOR)
    (folder / "e.xyz").write_text(ETHANE)
    rng = np.random.default_rng(0)
    base = np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    frames = []
    for _ in range(400):
        rows = "".join(
            f"{symbol} {' '.join(map(repr, row.tolist()))}\n"
            for symbol, row in zip("OHH", base + rng.normal(0, 0.03, (3, 3)))
        )
        frames.append(f'3\nProperties=species:S:1:pos:R:3 pbc="F F F"\n{rows}')
    (folder / "w.xyz").write_text("".join(frames))


def _molecules(folder: Path) -> None:
    (folder / "w.smi").write_text(
        "O water\nN ammonia\nCO methanol\nC=O formaldehyde\nOO peroxide\nC#N acid\n"
    )


def _labeled(folder: Path) -> None:
    from sfumato.io import write_systems

    (folder / "s.yaml").write_text(yaml.safe_dump(SOURCE, allow_unicode=True))
    frames = made.frame_set(made.molecules(2_500))
    write_systems(folder / "lab.xyz", list(frames.batch), frames.labels)


def _training(folder: Path) -> None:
    made.written(folder / "f.h5", made.molecules(30))
    settings = made.settings(
        "f.h5", {"name": "only", "steps": 120, "batch": 4, "lr": 1e-3}, checkpoint_minutes=0
    )
    content = settings.model_dump(mode="json")
    content["data"]["allow"] = ["large forces", "shared molecules", "duplicates", "shared structures"]
    (folder / "t.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def _sets(folder: Path) -> None:
    _calculator(folder)
    made.written(folder / "f.h5", made.molecules(60))


def _run(folder: Path) -> None:
    """Write a finished run, of whose analysis nothing is kept."""
    finish(
        Long(("run", "bsct", "--model", "lj", "--model", "morse", "--out", "r"), _nothing, _bytes()), folder
    )


def _reported(folder: Path) -> str:
    """Return the page and the numbers, which a kept analysis must not have changed."""
    from sfumato.protocols.run import load_run

    numbers = json.dumps(load_run(folder / "r").as_json(), sort_keys=True).replace(str(folder), "")
    page = (folder / "r" / "report.html").read_text(encoding="utf-8").replace(str(folder), "")
    return hashlib.sha256((numbers + page).encode()).hexdigest()


def _nothing(folder: Path) -> None:
    """Write nothing: the command needs no files."""


def _bytes(*names: str) -> Callable[[Path], str]:
    return lambda folder: hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def _elsewhere(name: str) -> Callable[[Path], str]:
    """Return what reads a file that says where it lies."""
    return lambda folder: (folder / name).read_text(encoding="utf-8").replace(str(folder), "")


def _identity(name: str) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        import h5py

        with h5py.File(folder / name) as file:
            return str(file.attrs["identity"])

    return read


def _checked(folder: Path) -> str:
    return re.sub(r'"(seconds|evaluations)": [\d.e+-]+', "", (folder / "j.json").read_text())


def _shown(folder: Path) -> str:
    from sfumato.protocols.run import load_run

    found = load_run(folder / "demo").as_json()
    return json.dumps(
        {key: found[key] for key in found if key not in ("provenance", "folder")}, sort_keys=True
    )


SLOW = ("--engine", "ase", "--level", "m.py:slow", "--workers", "2")

LONG = {
    "run": Long(
        (
            "run",
            "bsct",
            "--model",
            "m.py:slow",
            "--limit-per-bond",
            "1",
            "--workers",
            "2",
            "--out",
            "r",
            "--json",
            "j",
        ),
        _calculator,
        _bytes("j"),
    ),
    "run errors": Long(
        (
            "run",
            "errors",
            "--model",
            "m.py:slow",
            "--data",
            "f.h5",
            "--split",
            "all",
            "--workers",
            "2",
            "--out",
            "r",
            "--json",
            "j",
        ),
        _sets,
        _elsewhere("j"),
    ),
    "report": Long(
        ("report", "r"), _run, _reported, first="from sfumato.protocols import kept; kept.WORTH = 0"
    ),
    "label": Long(("label", "w.xyz", *SLOW, "-o", "l.xyz"), _calculator, _bytes("l.xyz")),
    "scan build": Long(
        ("scan", "build", "e.xyz", *SLOW, "--frames", "400", "-o", "s.h5"), _calculator, _identity("s.h5")
    ),
    "data sample": Long(
        ("data", "sample", "w.smi", "-o", "s.h5", "--workers", "2"), _molecules, _identity("s.h5")
    ),
    "data convert": Long(
        ("data", "convert", "lab.xyz", "--source", "s.yaml", "-o", "f.h5"), _labeled, _identity("f.h5")
    ),
    "data import": Long(
        ("data", "import", "bsct-spice", str(RELEASED)), _nothing, _identity("cache/bsct-spice.h5")
    ),
    "train": Long(("train", "t.yaml", "--out", "tr"), _training, _bytes("tr/model.safetensors")),
    "check": Long(("check", "lj", "--quick", "--json", "j.json"), _nothing, _checked),
    "demo": Long(("demo", "--out", "demo"), _nothing, _shown),
}


def start(long: Long, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a folder that also takes its temporary files and cache."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {
        "TMPDIR": str(folder / "tmp"),
        "SFUMATO_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        MARK: str(folder),
    }
    program = f"import sys; {long.first or 'pass'}; from sfumato.cli import main; sys.exit(main())"
    words = [sys.executable, "-P", "-c", program, *long.words]
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            preexec_fn=_take_signals,  # noqa: PLW1509 (this process has one thread)
        )


def _take_signals() -> None:
    """Undo what a shell does to processes in the background."""
    for number in SIGNALS:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)


def finish(long: Long, folder: Path) -> float:
    """Let a command run to its end; return the seconds it takes.

    Raises:
        RuntimeError: it ends with another code than it should.
    """
    begin = time.monotonic()
    code = start(long, folder).wait(timeout=1200)
    if code != long.code:
        said = (folder / "said").read_text(errors="replace")
        raise RuntimeError(f"{' '.join(long.words)} ended with {code}: {said[-2000:]}")
    return time.monotonic() - begin


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files and folders of Sfumato, and whatever else lies in the temporary folder."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.part")}
    found |= {f"tmp/{path.name}" for path in (folder / "tmp").iterdir()}
    return sorted(name for name in found if not name.startswith(TORCH))


def living(folder: Path) -> list[int]:
    """Return the processes that were started in a folder and have not ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={folder}".encode() in (place / "environ").read_bytes().split(b"\0")
            if marked and (place / "stat").read_text().rsplit(")")[-1].split()[0] != "Z":
                found.append(int(place.name))
        except OSError:
            continue
    return found


def tell(name: str, folder: Path, kills: int = KILLS, seed: int = 0) -> Story:
    """Kill a command at random moments, each time starting it anew, then let it finish.

    Args:
        name: of the command in `LONG`.
        folder: empty.
        kills: how many.
        seed: of the moments.
    """
    long, rng = LONG[name], np.random.default_rng([seed, *name.encode()])
    whole = folder / "whole"
    whole.mkdir()
    long.inputs(whole)
    story = Story(finish(long, whole))
    expected = long.result(whole)
    here = None
    for k in range(kills):
        if here is None:
            here = folder / f"killed-{k}"
            here.mkdir()
            long.inputs(here)
        process = start(long, here)
        try:
            code = process.wait(timeout=float(rng.uniform(0.05, 0.95)) * story.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(SIGNALS[k % len(SIGNALS)])
            code = process.wait(timeout=60)
        story.orphans += _outlive(here)
        story.ends[code] += 1
        if code == long.code:  # it was quicker
            story.finished += 1
            story.same = long.result(here) == expected
            if not story.same or leftovers(here):
                story.leftovers = 0, leftovers(here)
                return story
            here = None
    if here is None:
        return story
    before = len(leftovers(here))
    finish(long, here)
    story.leftovers = before, leftovers(here)
    story.same = long.result(here) == expected
    return story


def _outlive(folder: Path, seconds: float = ORPHANED) -> int:
    """Return how many processes of a folder are there when others should long have ended."""
    end = time.monotonic() + seconds
    while (found := living(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return len(found)


def main() -> None:
    """Tell the stories of some commands, or of all."""
    names = sys.argv[1:] or list(LONG)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            story = tell(name, Path(folder))
            print(f"{name}: {story}", flush=True)


if __name__ == "__main__":
    main()
