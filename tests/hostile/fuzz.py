"""Let commands read damaged inputs, one process each, and judge how they end.

Run it by hand with: python -m tests.hostile.fuzz --count 3000 --seed 1
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sfumato
from tests.hostile.inputs import CASES, Case, make, work_in_this_process

SECONDS = 60
"""Of processor time, after which a command counts as hanging."""

PATIENCE = 600
"""Seconds on the clock after which it does, on however busy a machine."""

MEMORY = 1.5e9
"""Bytes a process may hold."""

TOO_MUCH = 2.5e9
"""Bytes at which a process is ended, so that the machine survives."""

LOOK_SECONDS = 0.02
"""How often what a process holds is looked at."""

CODES = {0, 1, 2, 3, 141}
"""With which a command may end."""

CRASHED = 98


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        case: which command and input.
        number: of the damage.
        way: what was done to the input.
        code: exit code, or minus the signal.
        said: what it printed.
        result: hash of what came of it.
        seconds: that it took.
        memory: bytes at most.
    """

    case: Case
    number: int
    way: str
    code: int
    said: str
    result: str
    seconds: float
    memory: float

    def fault(self, sound: Outcome) -> str:
        """Say what is wrong with this end; nothing if it is a proper one."""
        if self.code in (-signal.SIGALRM, -signal.SIGXCPU):
            return f"hangs for {SECONDS} s"
        if self.memory > MEMORY:
            return f"takes {self.memory / 1e9:.1f} GB"
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        if self.code == CRASHED or "Traceback (most recent call last)" in self.said:
            return "traceback"
        if self.code not in CODES:
            return f"exit code {self.code}"
        if len(self.said) > 20_000:
            return f"says {len(self.said)} letters"
        if self.case.sealed and self.way == "flip" and self.code != 2 and self.result != sound.result:
            return "a flipped bit was accepted"
        return ""


def attempt(case: Case, base: Path, seed: int, number: int) -> Outcome:
    """Damage an input, let the command read it in a process of its own, and return how that ended.

    Args:
        case: which.
        base: folder of the sound inputs.
        seed: of the damage.
        number: of the damage; below zero for none.
    """
    rng = np.random.default_rng([seed, max(number, 0), *case.name.encode()])
    way = case.ways[int(rng.integers(len(case.ways)))]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "work"
        here.mkdir()
        for name in {case.file.split("/")[0], *case.needs}:
            copy = shutil.copytree if (base / name).is_dir() else shutil.copy2
            copy(base / name, here / name)
        name = "none"
        if number >= 0:
            sound = (here / case.file).read_bytes()
            damaged = way(sound, rng)
            (here / case.file).write_bytes(damaged)
            name = way.__name__ if damaged != sound else "none"
        start = time.monotonic()
        code, memory = _in_a_process(case.use, here, Path(folder) / "said")
        seconds = time.monotonic() - start
        said = (Path(folder) / "said").read_text(errors="replace")
        return Outcome(case, number, name, code, said, _result(case, here, said), seconds, memory)


def _in_a_process(work: Callable[[], int], folder: Path, said: Path) -> tuple[int, float]:
    """Return the exit code of the work, or minus the signal that ended it, and the bytes it held."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_the_child(work, folder, said)
    ended, page = 0, os.sysconf("SC_PAGE_SIZE")
    while not ended:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        with suppress(OSError, IndexError):
            if int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page > TOO_MUCH:
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, 1024.0 * usage.ru_maxrss


def _be_the_child(work: Callable[[], int], folder: Path, said: Path) -> None:
    code = CRASHED
    try:
        handle = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder)
        os.environ["SFUMATO_CACHE"] = str(folder / "cache")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.RLIM_INFINITY))
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 (it is what is looked for)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _result(case: Case, folder: Path, said: str) -> str:
    """Return a hash of the files that a command wrote, or of what it printed where it writes none."""
    if not case.results:
        return hashlib.sha256(said.encode()).hexdigest()
    sha = hashlib.sha256()
    for name in case.results:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b"none"
        if name == "j.json":  # without where it was made
            content = re.sub(rb'"(spec|folder|path)": "[^"]*"', b"", content)
        sha.update(content)
    return sha.hexdigest()


def attempts(
    count: int, seed: int, base: Path, cases: tuple[Case, ...] = CASES
) -> Iterator[tuple[Outcome, str]]:
    """Yield outcomes of damaged inputs of every case in turn, each with what is wrong with it.

    Raises:
        RuntimeError: a command does not take the sound inputs.
    """
    sound = {case.name: attempt(case, base, seed, -1) for case in cases}
    for outcome in sound.values():
        if outcome.code not in (0, 1) or outcome.fault(outcome):
            raise RuntimeError(f"{outcome.case.name}, not damaged: {outcome.code}\n{outcome.said}")
    for k in range(count):
        case = cases[k % len(cases)]
        outcome = attempt(case, base, seed, k // len(cases))
        yield outcome, outcome.fault(sound[case.name])


def prepared(base: Path) -> None:
    """Write the sound inputs, in a process of its own, so that this one starts no threads.

    Raises:
        RuntimeError: they cannot be made.
    """
    work_in_this_process()
    base.mkdir(parents=True, exist_ok=True)

    def work() -> int:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        make(Path.cwd())
        return 0

    said = base.with_suffix(".said")
    code, _ = _in_a_process(work, base, said)
    if code:
        raise RuntimeError(f"the inputs cannot be made: {said.read_text()}")


def modules() -> list[str]:
    """Return the modules of the package; the compiled core is a library and no module."""
    found = (module.name for module in pkgutil.walk_packages(sfumato.__path__, "sfumato."))
    return [name for name in found if not name.rpartition(".")[2].startswith("lib")]


def load_everything() -> None:
    """Import what commands import, once, before the first fork."""
    import torch

    for name in (
        "ase.io",
        "ijson",
        "plotly.graph_objects",
        "plotly.io",
        "plotly.offline",
        "plotly.subplots",
        "rdkit.Chem.AllChem",
        "safetensors.torch",
        "sympy",
        "tblite.interface",
        "torch._decomp",
        "torch._dynamo",
        "zstandard",
    ):
        importlib.import_module(name)
    for name in modules():
        importlib.import_module(name)
    torch.set_num_threads(1)


def main() -> None:
    """Run it, and print what is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", default="")
    parser.add_argument("--number", type=int)
    parser.add_argument("--base", type=Path, default=None)
    given = parser.parse_args()
    load_everything()
    with tempfile.TemporaryDirectory() as folder:
        base = given.base or Path(folder) / "base"
        if not (base / "tr").is_dir():
            prepared(base)
        work_in_this_process()
        cases = tuple(case for case in CASES if given.case in case.name)
        if given.number is not None:
            outcome = attempt(cases[0], base, given.seed, given.number)
            print(outcome.way, outcome.code, f"{outcome.seconds:.1f} s", outcome.said, sep="\n")
            return
        faults: Counter[str] = Counter()
        codes: Counter[int] = Counter()
        start, slowest, largest = time.monotonic(), 0.0, 0.0
        for outcome, fault in attempts(given.count, given.seed, base, cases):
            codes[outcome.code] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
            if fault:
                faults[fault] += 1
                rows = [line[:200] for line in outcome.said.strip().splitlines()[-12:]]
                where = f"{outcome.case.name} --number {outcome.number} ({outcome.way})"
                print(f"{where}: {fault}", *rows, sep="\n    ", flush=True)
        print(
            f"{given.count} damaged inputs of seed {given.seed} in {time.monotonic() - start:.0f} s; "
            f"exit codes {dict(codes)}; slowest {slowest:.1f} s, largest {largest / 1e9:.2f} GB; "
            f"faults: {dict(faults) or 'none'}"
        )


if __name__ == "__main__":
    main()
