"""The training loop: stages, steps, evaluations and checkpoints.

`train` changes nothing in the process and prints nothing: threads, signals and memory are `launch`'s.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato.datasets.loader import Loader
from sfumato.files import write_atomically, write_text
from sfumato.models.checkpoint import Facts
from sfumato.models.checkpoint import save as save_model
from sfumato.models.families import build
from sfumato.models.network import Network
from sfumato.training import state
from sfumato.training.batches import Batches, Sample, Whole, ahead
from sfumato.training.data import open_data
from sfumato.training.distributed import Group
from sfumato.training.errors import Errors, measure
from sfumato.training.gradients import backward, skin, weights
from sfumato.training.log import NAME as LOG
from sfumato.training.log import Log, read_log
from sfumato.training.optim import AdamW, Flat, clip, follow, rate
from sfumato.training.progress import Clock, Progress
from sfumato.training.settings import TrainSettings
from sfumato.training.stages import Stage
from sfumato.training.status import Status, Trained, Watch
from sfumato.words import plain

MODEL = "model.safetensors"
EVALUATED = 32
"""Structures evaluated together where a batch is limited by their number alone."""


class DivergedError(ValueError):
    """A loss or gradient that is not finite; the batch that made it is saved, the weights are as before."""


def train(
    settings: TrainSettings,
    folder: str | Path,
    group: Group,
    *,
    watch: Watch | None = None,
    stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
    inexact: bool = False,
) -> Trained:
    """Train a model, or go on with it where a folder holds the state of the same run.

    Args:
        settings: of the run.
        folder: of the run: settings, log, state and model.
        group: the processes that train together.
        watch: called with each line of the log, in the first process.
        stop: asked after every step; True in any process: checkpoint and return.
        until: return so after this many steps in all; a later call goes on.
        inexact: go on also where that may differ from a run without a break.

    Returns:
        How it ended.

    Raises:
        ValueError: settings and data that do not fit, a folder of another run or that another process
            trains in, a run that cannot go on exactly; `DivergedError` for a loss that is not finite.
    """
    with state.in_use(Path(folder), group):
        run = _Run(settings, Path(folder), group, inexact)
        try:
            if until is not None and run.progress.total >= until:
                return run.result(finished=run.progress.stage == len(run.settings.stages))
            return run.go(watch or (lambda status: None), lambda steps: stop() or steps == until)
        finally:
            run.log.close()


class _Run:
    """A run in this process."""

    model: Network
    average: Network
    averages: torch.Tensor
    optimizer: AdamW
    batches: Batches
    held_out: Batches | None
    errors: Errors | None = None

    def __init__(self, settings: TrainSettings, folder: Path, group: Group, inexact: bool) -> None:
        self.folder, self.group = folder, group
        self.data = open_data(settings)
        self.settings = self.data.settings
        self.around = state.circumstances(settings, self.data.rows.identity, group)
        found = state.load(folder, self.around, inexact)
        self.progress = self.fresh() if found is None else found[0]
        if group.agree(self.progress.total) != self.progress.total:
            raise ValueError(f"{folder}: processes see different states; is the folder shared by all nodes?")
        self.loaders = [
            (self.loader(stage, settings.data.train), self.loader(stage, settings.data.validation, False))
            for stage in self.settings.stages[self.progress.stage :]
        ]
        self.log = Log(folder, group.first, settings.tensorboard)
        self.parts = 1
        self.clock, self._saved = Clock(), time.monotonic()
        unwritten = ("validation", "train") if self.progress.due else ()
        self.log.cut(self.progress.total if found else -1, unwritten)
        if found is None:
            if group.first:
                write_text(folder / "settings.json", self.settings.model_dump_json(indent=1) + "\n")
            self.begin(None)
            self.log.add("start", 0, **self.data.facts(), **self.around, backend=self.model.backend)
            self.save()
        elif self.progress.stage < len(self.settings.stages):
            self.resume(found[1])

    def fresh(self) -> Progress:
        """Return where a run begins.

        Raises:
            ValueError: the folder has what another run left there.
        """
        log = read_log(self.folder) if (self.folder / LOG).exists() else []
        if (self.folder / MODEL).exists() or any(line["step"] > 0 for line in log):
            raise ValueError(
                f"{self.folder} holds the log or the model of a run, but not its state "
                f"({state.NAME}); choose another folder"
            )
        return Progress()

    @property
    def stage(self) -> Stage:
        """The stage that the run is in."""
        return self.settings.stages[self.progress.stage]

    def begin(self, before: Network | None) -> None:
        """Make model, averages, optimizer and batches of a stage.

        Args:
            before: whose weights to take where it has them; None: drawn at random.
        """
        settings, stage = self.settings, self.stage
        self.model = build(settings.network(stage), torch.Generator().manual_seed(settings.seed))
        self.model.scale.fill_(self.data.scale)
        self.model.reference.copy_(torch.from_numpy(self.data.reference.copy()))
        if before is not None:
            new = self.model.state_dict()
            self.model.load_state_dict(new | {k: v for k, v in before.state_dict().items() if k in new})
        self.model.to(self.group.device)
        if settings.compile and stage.compilable:
            self.model.compile_gradient()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.averages = Flat(self.average).weights
        self.optimizer = AdamW(self.model, settings, stage.lr)
        train, held_out = self.loaders.pop(0)
        assert train is not None
        self.batches = Batches(train, settings, stage, skin(stage))
        self.held_out = None
        if held_out is not None:
            undisturbed = stage.model_copy(update={"denoising": None, "smoothness": None})
            still = settings.model_copy(update={"rotate": False})
            self.held_out = Batches(held_out, still, undisturbed)

    def loader(self, stage: Stage, split: str | None, shuffle: bool = True) -> Loader | None:
        """Return the batches of a split as stored, those of all processes together; None without one."""
        if split is None:
            return None
        limits = self.settings.loader(stage)
        if not shuffle:
            n = limits.structures
            more = n if n is None or limits.atoms or limits.edges else max(n, EVALUATED)
            limits = limits.model_copy(update={"shuffle": False, "structures": more})
        return Loader(self.data.path, split, limits)

    def resume(self, tensors: dict[str, Any]) -> None:
        """Take up the state of a state."""
        self.begin(None)
        self.model.load_state_dict(tensors["model"])
        self.average.load_state_dict(tensors["average"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        if tensors["errors"] is not None:
            self.errors = Errors(**tensors["errors"])
        self.log.add("resume", self.progress.total)

    def save(self) -> None:
        """Write a state."""
        self._saved = time.monotonic()
        self.progress.time_passed(*self.clock.lap())
        if self.group.first:
            tensors = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "errors": None if self.errors is None else asdict(self.errors),
            }
            state.save(self.folder, self.progress, tensors, self.around)

    def go(self, watch: Watch, stop: Callable[[int], bool]) -> Trained:
        """Run to the end, or until asked to stop by the number of steps made."""
        p = self.progress
        while p.stage < len(self.settings.stages):
            with precision(self.stage):
                if not self.run_stage(watch, stop):
                    self.save()
                    if not (self.folder / MODEL).exists():  # something to look at, until an evaluation
                        self.keep()
                    self.log.add("stop", p.total, seconds=p.seconds, cpu=p.cpu)
                    return self.result(finished=False)
            self.end_stage()
        return self.result(finished=True)

    def result(self, finished: bool) -> Trained:
        """Say how it ended."""
        path = self.folder / MODEL
        model = path if path.exists() else None
        return Trained(finished, self.progress.total, model, self.errors, self.group.first)

    def run_stage(self, watch: Watch, stop: Callable[[int], bool]) -> bool:
        """Go to the end of the stage; return whether it was reached."""
        if self.progress.due:
            self.look(watch)
        while not self.over():
            steps = self.batches.loader.steps(self.progress.epoch)
            for share, samples in ahead(self.samples()):
                losses, asked = self.step(share, samples, stop(self.progress.total + 1))
                self.progress.step_done(losses, share.counts, steps)
                self.look(watch)
                if asked:
                    return False
                if self.over():
                    return True
                if time.monotonic() - self._saved > 60 * self.settings.checkpoint_minutes:
                    self.save()
        return True

    def look(self, watch: Watch) -> None:
        """Evaluate and report after a step, where it is time for that.

        An evaluation may outlast the patience of whoever asked to stop: the state is written before it.
        """
        p, settings = self.progress, self.settings
        if self.over() or p.done % settings.evaluate_steps == 0:
            if p.evaluation_begins():
                self.save()
            self.evaluate()
            p.evaluation_ends()
        if self.over() or p.total % settings.log_steps == 0:
            self.report(watch)

    def over(self) -> bool:
        """Return whether the stage is."""
        return self.progress.is_over(self.stage, self.settings.patience)

    def part(self) -> float:
        """Return how much of the stage is done, in its unit."""
        return self.progress.part(self.stage, self.batches.loader.steps(self.progress.epoch))

    def samples(self) -> Iterator[tuple[Whole, list[Sample]]]:
        """Yield what is left of the epoch: this process's share of each batch, and its parts."""
        for whole in self.batches.epoch(self.progress.epoch, self.progress.step):
            share = whole.share(self.group.rank, self.group.size)
            yield share, self.cut(share)

    def cut(self, share: Whole) -> list[Sample]:
        """Return a share in the parts that fit into memory, as tensors."""
        dtype = torch.float64 if self.stage.precision == "tf32" else torch.float32
        parts = np.array_split(np.arange(len(share)), min(self.parts, max(len(share), 1)))
        whole = len(parts) == 1
        return [
            self.batches.sample(share if whole else share.take(part), dtype) for part in parts if len(part)
        ]

    def step(self, share: Whole, samples: list[Sample], asked: bool) -> tuple[dict[str, float], bool]:
        """Improve the weights once; return the terms of the loss, and whether any process is to stop."""
        lr = rate(self.stage, self.part())
        found = self.gradient(share, samples)
        gradient = self.optimizer.gradient
        *values, wish = self.group.add_up(gradient, [*found.values(), float(asked)])
        norm = clip(gradient, self.settings.clip)
        if not np.isfinite([norm, *values]).all():
            self.diverged(share, dict(zip(found, values)), norm)
        self.optimizer.step(lr)
        follow(self.averages, self.optimizer.weights, self.settings.ema, self.progress.done)
        return dict(zip(found, values)), wish > 0

    def gradient(self, share: Whole, samples: list[Sample]) -> dict[str, float]:
        """Set the gradients to this process's part of that of the batch; return its terms of the loss.

        Where memory runs out the share is taken in smaller parts, whose gradients add up to the same.
        """
        device = self.group.device
        if len(samples) < min(self.parts, len(share)):  # cut before memory ran out
            samples = self.cut(share)
        while True:
            sums = {name: 0.0 for name, weight in weights(self.stage).items() if weight}
            self.optimizer.zero_grad()
            try:
                for sample in samples:
                    for name, term in backward(self.model, sample.to(device), self.stage).items():
                        if name in sums:
                            sums[name] += float(term)
            except torch.cuda.OutOfMemoryError:
                if self.parts >= len(share):
                    atoms = int(np.diff(share.batch.offsets).max())
                    raise ValueError(
                        f"stage {self.stage.name!r}: {atoms} atoms do not fit into the memory of the device"
                    ) from None
                self.parts *= 2
            else:
                return sums
            torch.cuda.empty_cache()
            self.log.add("memory", self.progress.total, parts=self.parts)
            samples = self.cut(share)

    def diverged(self, share: Whole, values: dict[str, float], norm: float) -> None:
        """Save the batch and the state before it, and stop."""
        path = self.folder / f"diverged-{self.group.rank}.npz"
        batch, labels = share.batch, share.labels
        arrays: dict[str, Any] = {"frames": share.frames, "energy": labels.energy, "forces": labels.forces}
        arrays |= {name: getattr(batch, name) for name in ("numbers", "positions", "index", "cell", "pbc")}
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        self.save()
        words = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        raise DivergedError(
            f"stage {self.stage.name!r}, step {self.progress.total}: loss ({words}) or gradient ({norm:.3g}) "
            f"is not finite. The batch is in {path}, the state before it in {self.folder / state.NAME}. "
            "Check these frames; if they are sound, lower lr or clip in a new run"
        )

    def evaluate(self) -> None:
        """Measure the averaged model on the validation split, and keep it if it is the best so far."""
        p, group = self.progress, self.group
        if self.held_out is None:
            if self.over():
                self.keep()
            return
        began = time.monotonic()
        self.errors = measure(self.average, self.held_out, group)
        p.evaluated(time.monotonic() - began)
        loss = group.agree(self.errors.loss(self.stage))
        p.time_passed(*self.clock.lap())
        facts = {k: v for k, v in asdict(self.errors).items() if np.isfinite(v)}
        self.log.add("validation", p.total, loss=loss, seconds=p.seconds, cpu=p.cpu, **facts)
        if not np.isfinite(loss):
            raise DivergedError(
                f"stage {self.stage.name!r}, step {p.total}: the loss on the validation split is {loss}; the "
                f"state is in {self.folder / state.NAME}. See whether atoms of that split are on top of "
                "each other (sfumato data check); if they are not, lower lr in a new run"
            )
        if p.is_best(loss):
            self.keep()

    def keep(self) -> None:
        """Write the averaged model to its file."""
        if self.group.first:
            rows = self.data.rows
            notes = {
                "stage": self.stage.name,
                "step": self.progress.total,
                "validation": None if self.errors is None else asdict(self.errors),
                "licence of the data": getattr(rows, "licence", ""),
                "atom energies": self.data.atom_energies.as_json(),
                "settings": self.settings.model_dump(mode="json"),
            }
            facts = Facts(
                dataset=rows.name, dataset_sha256=rows.identity, level=rows.level, notes=plain(notes)
            )
            save_model(self.folder / MODEL, self.average, facts)

    def report(self, watch: Watch) -> None:
        """Write a line of the log."""
        p, stage = self.progress, self.stage
        p.time_passed(*self.clock.lap())
        whole = float(stage.steps or stage.epochs or 1)
        done = whole if self.over() else self.part()
        pace, lr = p.line_written(done, whole), rate(stage, done)
        facts = {"epoch": p.epoch, "lr": lr, **pace.losses}
        facts["structures_per_second"] = pace.structures_per_second
        self.log.add("train", p.total, stage=stage.name, **facts, seconds=p.seconds, cpu=p.cpu)
        if self.group.first:
            watch(Status(stage.name, done / whole, p.total, lr, pace, self.errors))

    def end_stage(self) -> None:
        """Go on to the next stage with the averaged weights, or end."""
        p = self.progress
        p.stage_done()
        if p.stage < len(self.settings.stages):
            self.begin(self.average)
            self.log.add("stage", p.total, name=self.stage.name, backend=self.model.backend)
        else:
            self.log.add("end", p.total, seconds=p.seconds, cpu=p.cpu)
        self.save()


@contextmanager
def precision(stage: Stage) -> Iterator[None]:
    """Let a GPU round the factors of matrix products to ten bits while a stage that wants it runs."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = stage.precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
