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
from sfumato.models.checkpoint import Facts
from sfumato.models.checkpoint import save as save_model
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.training import checkpoint
from sfumato.training.batches import Batches, Sample, Whole, ahead
from sfumato.training.checkpoint import Place
from sfumato.training.distributed import Group
from sfumato.training.errors import Errors, measure
from sfumato.training.gradients import backward, skin, weights
from sfumato.training.log import NAME as LOG
from sfumato.training.log import Log, read_log
from sfumato.training.optim import clip, follow, optimizer, rate
from sfumato.training.ready import ready
from sfumato.training.settings import Stage, TrainSettings
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
    inexact: bool = False,
) -> Trained:
    """Train a model, or go on with it where a folder holds the state of the same run.

    Args:
        settings: of the run.
        folder: of the run: settings, log, state and model.
        group: the processes that train together.
        watch: called with each line of the log, in the first process.
        stop: asked after every step; True in any process: checkpoint and return.
        inexact: go on also where that may differ from a run without a break.

    Returns:
        How it ended.

    Raises:
        ValueError: settings and data that do not fit, a folder of another run or that another process
            trains in, a run that cannot go on exactly; `DivergedError` for a loss that is not finite.
    """
    with checkpoint.in_use(Path(folder), group):
        run = _Run(settings, Path(folder), group, inexact)
        try:
            return run.go(watch or (lambda status: None), stop)
        finally:
            run.log.close()


class _Run:
    """A run in this process."""

    model: MinDScAIP
    average: MinDScAIP
    optimizer: torch.optim.AdamW
    batches: Batches
    held_out: Batches | None
    errors: Errors | None = None

    def __init__(self, settings: TrainSettings, folder: Path, group: Group, inexact: bool) -> None:
        self.folder, self.group = folder, group
        self.ready = ready(settings)
        self.settings = self.ready.settings
        self.around = checkpoint.circumstances(settings, self.ready.rows.identity, group)
        found = checkpoint.load(folder, self.around, inexact)
        self.place = self.fresh() if found is None else found[0]
        if group.agree(self.place.total) != self.place.total:
            raise ValueError(f"{folder}: processes see different states; is the folder shared by all nodes?")
        self.loaders = [
            (self.loader(stage, settings.data.train), self.loader(stage, settings.data.validation, False))
            for stage in self.settings.stages[self.place.stage :]
        ]
        self.log = Log(folder, group.first, settings.tensorboard)
        self.parts = 1
        self._saved = self._clock = time.monotonic()
        self._cpu = time.process_time()
        self.log.cut(self.place.total if found else -1, ("validation", "train") if self.place.due else ())
        if found is None:
            if group.first:
                (folder / "settings.json").write_text(self.settings.model_dump_json(indent=1) + "\n")
            self.log.add("start", 0, **self.ready.facts(), **self.around)
            self.begin(None)
            self.save()
        elif self.place.stage < len(self.settings.stages):
            self.resume(found[1])

    def fresh(self) -> Place:
        """Return where a run begins.

        Raises:
            ValueError: the folder has what another run left there.
        """
        log = read_log(self.folder) if (self.folder / LOG).exists() else []
        if (self.folder / MODEL).exists() or any(line["step"] > 0 for line in log):
            raise ValueError(
                f"{self.folder} holds the log or the model of a run, but not its state "
                f"({checkpoint.NAME}); choose another folder"
            )
        return Place()

    @property
    def stage(self) -> Stage:
        """The stage that the run is in."""
        return self.settings.stages[self.place.stage]

    def begin(self, before: MinDScAIP | None) -> None:
        """Make model, averages, optimizer and batches of a stage.

        Args:
            before: whose weights to take where it has them; None: drawn at random.
        """
        settings, stage = self.settings, self.stage
        self.model = MinDScAIP(settings.network(stage), torch.Generator().manual_seed(settings.seed))
        self.model.scale.fill_(self.ready.scale)
        self.model.reference.copy_(torch.from_numpy(self.ready.reference.copy()))
        if before is not None:
            new = self.model.state_dict()
            self.model.load_state_dict(new | {k: v for k, v in before.state_dict().items() if k in new})
        self.model.to(self.group.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = optimizer(self.model, settings, stage.lr)
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
        return Loader(self.ready.path, split, limits)

    def resume(self, tensors: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.begin(None)
        self.model.load_state_dict(tensors["model"])
        self.average.load_state_dict(tensors["average"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        if tensors["errors"] is not None:
            self.errors = Errors(**tensors["errors"])
        self.log.add("resume", self.place.total)

    def save(self) -> None:
        """Write a checkpoint."""
        self._saved = time.monotonic()
        self.count_time()
        if self.group.first:
            tensors = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "errors": None if self.errors is None else asdict(self.errors),
            }
            checkpoint.save(self.folder, self.place, tensors, self.around)

    def count_time(self) -> None:
        """Add what went by since the last call."""
        now, cpu = time.monotonic(), time.process_time()
        self.place.seconds += now - self._clock
        self.place.cpu += cpu - self._cpu
        self._clock, self._cpu = now, cpu

    def go(self, watch: Watch, stop: Callable[[], bool]) -> Trained:
        """Run to the end, or until asked to stop."""
        while self.place.stage < len(self.settings.stages):
            with precision(self.stage):
                if not self.run_stage(watch, stop):
                    self.save()
                    if not (self.folder / MODEL).exists():  # something to look at, until an evaluation
                        self.keep()
                    self.log.add("stop", self.place.total, seconds=self.place.seconds, cpu=self.place.cpu)
                    return self.result(finished=False)
            self.end_stage()
        return self.result(finished=True)

    def result(self, finished: bool) -> Trained:
        """Say how it ended."""
        path = self.folder / MODEL
        model = path if path.exists() else None
        return Trained(finished, self.place.total, model, self.errors, self.group.first)

    def run_stage(self, watch: Watch, stop: Callable[[], bool]) -> bool:
        """Go to the end of the stage; return whether it was reached."""
        p, settings = self.place, self.settings
        if p.due:
            self.look(watch)
        while not self.over():
            steps = self.batches.loader.steps(p.epoch)
            for share, samples in ahead(self.samples()):
                asked = self.step(share, samples, stop())
                p.step, p.done, p.total = p.step + 1, p.done + 1, p.total + 1
                if p.step == steps:
                    p.epoch, p.step = p.epoch + 1, 0
                self.look(watch)
                if asked:
                    return False
                if self.over():
                    return True
                if time.monotonic() - self._saved > 60 * settings.checkpoint_minutes:
                    self.save()
        return True

    def look(self, watch: Watch) -> None:
        """Evaluate and report after a step, where it is time for that.

        An evaluation may outlast the patience of whoever asked to stop: the state is written before it.
        """
        p, settings = self.place, self.settings
        if self.over() or p.done % settings.evaluate_steps == 0:
            if not p.due:
                p.due = True
                self.save()
            self.evaluate()
            p.due = False
        if self.over() or p.total % settings.log_steps == 0:
            self.report(watch)

    def over(self) -> bool:
        """Return whether the stage is."""
        p, stage, patience = self.place, self.stage, self.settings.patience
        if patience is not None and p.waited >= patience:
            return True
        return p.done >= stage.steps if stage.steps else p.epoch - p.first >= (stage.epochs or 0)

    def progress(self) -> float:
        """Return how much of the stage is done, in its unit."""
        p = self.place
        if self.stage.steps:
            return float(p.done)
        return p.epoch - p.first + p.step / self.batches.loader.steps(p.epoch)

    def samples(self) -> Iterator[tuple[Whole, list[Sample]]]:
        """Yield what is left of the epoch: this process's share of each batch, and its parts."""
        for whole in self.batches.epoch(self.place.epoch, self.place.step):
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

    def step(self, share: Whole, samples: list[Sample], asked: bool) -> bool:
        """Improve the weights once; return whether any process was asked to stop."""
        p = self.place
        lr = rate(self.stage, self.progress())
        for part in self.optimizer.param_groups:
            part["lr"] = lr
        found = self.gradient(share, samples)
        parameters = list(self.model.parameters())
        for weight in parameters:
            if weight.grad is None:  # a head that this batch, or this process, has no use for
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        *values, wish = self.group.add_up(gradients, [*found.values(), float(asked)])
        norm = clip(parameters, self.settings.clip)
        if not np.isfinite([norm, *values]).all():
            self.diverged(share, dict(zip(found, values)), norm)
        self.optimizer.step()
        follow(self.average, self.model, self.settings.ema, p.done)
        for name, value in zip(found, values):
            if share.counts.of(name):
                p.sums[name] = p.sums.get(name, 0.0) + value
                p.counts[name] = p.counts.get(name, 0) + 1
        p.structures += share.counts.structures
        return wish > 0

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
            self.log.add("memory", self.place.total, parts=self.parts)
            samples = self.cut(share)

    def diverged(self, share: Whole, values: dict[str, float], norm: float) -> None:
        """Save the batch and the state before it, and stop."""
        path = self.folder / f"diverged-{self.group.rank}.npz"
        batch, labels = share.batch, share.labels
        arrays: dict[str, Any] = {"frames": share.frames, "energy": labels.energy, "forces": labels.forces}
        arrays |= {name: getattr(batch, name) for name in ("numbers", "positions", "index", "cell", "pbc")}
        np.savez(path, **arrays)
        self.save()
        words = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        raise DivergedError(
            f"stage {self.stage.name!r}, step {self.place.total}: loss ({words}) or gradient ({norm:.3g}) is "
            f"not finite. The batch is in {path}, the state before it in {self.folder / checkpoint.NAME}. "
            "Check these frames; if they are sound, lower lr or clip in a new run"
        )

    def evaluate(self) -> None:
        """Measure the averaged model on the validation split, and keep it if it is the best so far."""
        p, group = self.place, self.group
        if self.held_out is None:
            if self.over():
                self.keep()
            return
        began = time.monotonic()
        self.errors = measure(self.average, self.held_out, group)
        p.reported += time.monotonic() - began
        loss = group.agree(self.errors.loss(self.stage))
        self.count_time()
        facts = {k: v for k, v in asdict(self.errors).items() if np.isfinite(v)}
        self.log.add("validation", p.total, loss=loss, seconds=p.seconds, cpu=p.cpu, **facts)
        if not np.isfinite(loss):
            raise DivergedError(
                f"stage {self.stage.name!r}, step {p.total}: the loss on the validation split is {loss}; the "
                f"state is in {self.folder / checkpoint.NAME}. See whether atoms of that split are on top of "
                "each other (sfumato data check); if they are not, lower lr in a new run"
            )
        if p.best is None or loss < p.best:
            p.best, p.waited = loss, 0
            self.keep()
        else:
            p.waited += 1

    def keep(self) -> None:
        """Write the averaged model to its file."""
        if self.group.first:
            rows, p = self.ready.rows, self.place
            notes = {
                "stage": self.stage.name,
                "step": p.total,
                "validation": None if self.errors is None else asdict(self.errors),
                "licence of the data": getattr(rows, "licence", ""),
                "atom energies": self.ready.atom_energies.as_json(),
                "settings": self.settings.model_dump(mode="json"),
            }
            facts = Facts(
                dataset=rows.name, dataset_sha256=rows.identity, level=rows.level, notes=plain(notes)
            )
            save_model(self.folder / MODEL, self.average, facts)

    def report(self, watch: Watch) -> None:
        """Write a line of the log."""
        p, stage = self.place, self.stage
        self.count_time()
        losses = {name: value / p.counts[name] for name, value in p.sums.items()}
        whole = float(stage.steps or stage.epochs or 1)
        done = whole if self.over() else self.progress()
        took = max(p.seconds - p.reported, 1e-9)
        speed, left = p.structures / took, took * (whole - done) / max(done - p.told, 1e-9)
        lr = rate(stage, done)
        facts = {"epoch": p.epoch, "lr": lr, **losses, "structures_per_second": speed}
        self.log.add("train", p.total, stage=stage.name, **facts, seconds=p.seconds, cpu=p.cpu)
        p.sums, p.counts, p.structures = {}, {}, 0
        p.reported, p.told = p.seconds, done
        if self.group.first:
            watch(Status(stage.name, done / whole, p.total, lr, losses, speed, self.errors, left))

    def end_stage(self) -> None:
        """Go on to the next stage with the averaged weights, or end."""
        p = self.place
        p.stage += 1
        p.epoch += p.step > 0
        p.first, p.step, p.done, p.best, p.waited, p.told = p.epoch, 0, 0, None, 0, 0.0
        if p.stage < len(self.settings.stages):
            self.begin(self.average)
            self.log.add("stage", p.total, name=self.stage.name)
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
