"""Runs made by hand for the tests of tables, figures and pages."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from sfumato.protocols.bsct import BSCT
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.protocol import Run
from sfumato.systems import Scan, ScanSet

LENGTH = np.linspace(0.8, 3.2, 60)
DEFAULTS = Settings()
HOSTILE = "<img src=https://evil.example/x.png> [bold]& 'co' \"x\"</script>"


def curve(b, r0, ripple=0.0, stiff=2.0):
    """Morse energy and −dE/db, with a ripple in both."""
    x = np.exp(-stiff * (b - r0))
    energy = 4.0 * (1 - x) ** 2 + ripple * np.cos(20 * b)
    return energy, -8.0 * stiff * (1 - x) * x + 20 * ripple * np.sin(20 * b)


def pulled(pull):
    forces = np.zeros((len(pull), 2, 3))
    forces[:, 1, 2], forces[:, 0, 2] = pull, -pull
    return forces


def diatomic(name, r0=1.5):
    positions = np.zeros((len(LENGTH), 2, 3))
    positions[:, 1, 2] = LENGTH
    energy, pull = curve(LENGTH, r0)
    symbols = {"C": 6, "N": 7, "O": 8}
    numbers = [symbols[s] for s in name.split("/")[0].split("-")]
    return Scan(name, numbers, positions, LENGTH, energy, pulled(pull), [0, 1], [-1, 1], 0, 1)


def predicted(scan, settings, r0, **shape):
    path = np.interp(np.arange((len(LENGTH) - 1) * settings.refine + 1) / settings.refine, range(60), LENGTH)
    energy, pull = curve(path, r0, **shape)
    forces = pulled(pull)
    return bsct.ScanResult("ok", "", bsct.scan_metrics(scan, energy, forces, settings), energy, forces)


def make_run(models=None, settings=DEFAULTS, per_bond=3, folder="runs/bsct-morse", own=None):
    """A run of made-up models: name → (ripple, stiffness), or a status and reason of every scan.

    Settings are those of all models but the ones that have their `own`.
    """
    models = {"smooth": (0.0, 2.1), "rough": (0.15, 2.1)} if models is None else models
    names = [f"{bond}/{k}" for bond in ("C-C", "C-O", "N-N") for k in range(per_bond)]
    radii = {name: 1.35 + 0.023 * k for k, name in enumerate(names)}
    scans = [diatomic(name, r0) for name, r0 in radii.items()]
    data = ScanSet("morse-set", "Morse/exact", "CC0-1.0", "made by hand, https://data.example/set", scans)
    chosen = {name: (own or {}).get(name, settings) for name in models}
    results = {}
    for name, what in models.items():
        asked = bsct.select(data, chosen[name].limit_per_bond)
        if isinstance(what[0], str):
            rows = {scan.name: bsct.ScanResult(*what, {}) for scan in asked}
        else:
            rows = {
                scan.name: predicted(scan, chosen[name], radii[scan.name], ripple=what[0], stiff=what[1])
                for scan in asked
            }
        results[name] = bsct.ModelResult(name, f"sha-of-{name}", rows, 0)
    manifest = {
        "data": {"name": data.name, "identity": data.identity},
        "models": {name: {"spec": f"{name}.py:make", "identity": f"sha-of-{name}"} for name in models},
        "provenance": {"packages": {"sfumato": "0.1.0", "numpy": "9.9"}, "python": "3.x", "platform": "t"},
    }
    return Run(BSCT(), data, results, chosen, manifest, Path(folder))


def with_result(run, model, scan, result):
    """The run with one scan of one model replaced."""
    changed = replace(run.models[model], scans={**run.models[model].scans, scan: result})
    return replace(run, models={**run.models, model: changed})


def failed(reason):
    return bsct.ScanResult("failed", reason, {})


def shown(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(renderable, highlight=False)
    return console.file.getvalue()


def row_of(text, name):
    return next(line for line in text.splitlines() if line.startswith(name))
