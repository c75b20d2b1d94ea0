"""Runs from beginning to end: stages, errors on held-out frames, stopping early, and what must not go on."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.datasets.loader import gather, rows_of
from sfumato.models.checkpoint import load_model
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import predict
from sfumato.systems import System
from sfumato.training import loop
from sfumato.training.distributed import alone
from sfumato.training.errors import Errors
from sfumato.training.log import read_log
from sfumato.training.loop import DivergedError, precision, train
from sfumato.training.optim import AdamW, Flat, clip, follow
from sfumato.training.stages import Stage
from sfumato.training.state import content
from tests import made_training as made


def go(settings, folder, **options):
    return train(settings, folder, alone(settings), **options)


@pytest.fixture
def data(tmp_path):
    return made.written(tmp_path / "set.h5")


def events(folder, name):
    return [line for line in read_log(folder) if line["event"] == name]


def test_a_run_learns_and_leaves_a_model(data, tmp_path):
    stage = {"name": "only", "epochs": 15, "batch": 4, "lr": 1e-2}
    settings = made.settings(data, stage, evaluate_steps=30, ema=0.9)
    seen = []
    found = go(settings, tmp_path / "run", watch=seen.append)
    assert found.finished
    assert found.steps == 15 * 6
    first, *_, last = events(tmp_path / "run", "validation")
    assert last["forces"] < 0.8 * first["forces"]
    model, facts = load_model(found.model)
    assert facts.dataset == "made"
    assert facts.level == "Morse"
    assert model.config.elements == (6, 7, 8)
    best = min(line["loss"] for line in events(tmp_path / "run", "validation"))
    held = made.frame_set(made.molecules(30)).take(range(24, 30))
    off = predict(model, held.batch).forces.numpy() - held.labels.forces
    kept = next(line for line in events(tmp_path / "run", "validation") if line["loss"] == best)
    assert np.abs(off).mean() == pytest.approx(kept["forces"], rel=1e-4)
    assert len(seen) == len(events(tmp_path / "run", "train"))
    assert max(len(line.line()) for line in seen) <= 80
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["model"]["elements"] == [6, 7, 8]


def test_the_same_seed_gives_the_same_curve_and_another_seed_does_not(data, tmp_path):
    curves = []
    for k, seed in enumerate((0, 0, 1)):
        go(made.settings(data, seed=seed), tmp_path / str(k))
        curves.append([line["forces"] for line in events(tmp_path / str(k), "train")])
    assert curves[0] == curves[1] != curves[2]


def test_stages_hand_over_averaged_weights_and_drop_heads(data, tmp_path):
    stages = (
        {"name": "pre", "objective": "direct", "denoising": {}, "steps": 4, "batch": 8, "lr": 1e-2},
        {"name": "fine", "steps": 1, "batch": 8, "lr": 1e-12},
    )
    found = go(made.settings(data, *stages, weight_decay=0.0), tmp_path / "run")
    assert found.steps == 5
    assert [line["name"] for line in events(tmp_path / "run", "stage")] == ["fine"]
    model, _ = load_model(found.model)
    assert not model.config.direct_forces
    assert set(model.heads) == {"energy"}
    alone_ = go(made.settings(data, stages[0], weight_decay=0.0), tmp_path / "pre")
    before, _ = load_model(alone_.model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before.state_dict()[name], rtol=0, atol=1e-6)


def test_direct_and_conservative_training_log_their_terms(data, tmp_path):
    stages = (
        {"name": "d", "objective": "direct", "denoising": {"share": 0.5}, "steps": 4, "batch": 8, "lr": 1e-3},
        {"name": "f", "gradient": "finite_difference", "steps": 2, "batch": 8, "lr": 1e-3},
        {"name": "s", "smoothness": {"weight": 0.1, "floor": 0.0}, "steps": 2, "batch": 8, "lr": 1e-3},
    )
    go(made.settings(data, *stages), tmp_path / "run")
    terms = {line["stage"]: set(line) for line in events(tmp_path / "run", "train")}
    assert {"energy", "forces", "noise"} <= terms["d"]
    assert {"energy", "forces"} <= terms["f"]
    assert "noise" not in terms["f"]
    assert "bend" in terms["s"]


def test_crystals_with_stress_and_frames_without_forces(tmp_path):
    path = made.written(tmp_path / "set.h5", made.crystals(16), hidden=[1, 2])
    stage = {
        "name": "s",
        "steps": 3,
        "batch": 4,
        "lr": 1e-3,
        "loss": {"energy": 1, "forces": 4, "stress": 10},
    }
    go(made.settings(path, stage), tmp_path / "run")
    assert events(tmp_path / "run", "validation")[-1]["stress"] > 0
    assert {"energy", "forces", "stress"} <= set(events(tmp_path / "run", "train")[0])


def test_a_stage_ends_when_evaluations_no_longer_improve(data, tmp_path):
    stage = {"name": "s", "steps": 50, "batch": 4, "lr": 1e-9}
    found = go(made.settings(data, stage, evaluate_steps=2, patience=3, ema=0.0), tmp_path / "run")
    losses = [line["loss"] for line in events(tmp_path / "run", "validation")]
    since = len(losses) - 1 - losses.index(min(losses))
    assert found.steps < 50
    assert since == 3


def test_without_a_validation_split_the_last_model_is_kept(data, tmp_path):
    settings = made.settings(data, data={"path": str(data), "validation": None})
    found = go(settings, tmp_path / "run")
    assert found.errors is None
    assert load_model(found.model)[1].notes["step"] == 6


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(data, tmp_path):
    stage = {"name": "s", "steps": 50, "batch": 4, "lr": 1e18}
    with pytest.raises(DivergedError, match="not finite") as error:
        go(made.settings(data, stage), tmp_path / "run")
    assert "diverged-0.npz" in str(error.value)
    saved = np.load(tmp_path / "run" / "diverged-0.npz")
    assert len(saved["positions"]) == len(saved["forces"]) == len(saved["index"])
    state = content(tmp_path / "run" / "state.pt")
    step = state["progress"]["total"]
    assert step == len({line["step"] for line in read_log(tmp_path / "run")}) or step > 0
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())


def test_a_validation_that_is_not_finite_is_no_best_one(data, tmp_path, monkeypatch):
    """Nor is it left out: a term counts if it has labels, whatever became of it."""
    settings = made.settings(data)
    sound = loop.measure
    monkeypatch.setattr(loop, "measure", lambda *args: replace(sound(*args), energy=float("nan")))
    with pytest.raises(DivergedError, match=r"step 3: the loss on the validation split is nan"):
        go(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_what_has_no_label_does_not_count_in_a_validation():
    by = Stage(name="s", steps=1, batch=1, loss={"energy": 1, "forces": 2, "stress": 3})
    nan = float("nan")
    some = Errors(5, energy=0.1, forces=nan, forces_rms=nan, vectors=nan, stress=nan, atoms=0, stressed=0)
    assert some.loss(by) == pytest.approx(0.1)
    everything = replace(some, vectors=0.2, stress=0.3, atoms=7, stressed=9)
    assert everything.loss(by) == pytest.approx(0.1 + 2 * 0.2 + 3 * 0.3)


def test_a_stage_that_cannot_run_is_found_before_the_first(data, tmp_path):
    settings = made.settings(
        data,
        {"name": "one", "steps": 4, "batch": 4},
        {"name": "two", "steps": 4, "batch": {"edges": 3}},
    )
    with pytest.raises(ValueError, match=r"loader: frame .* edges, but a batch may have 3"):
        go(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_error_in_training_is_a_mean_over_steps_that_have_one(data, tmp_path, share):
    """With a rate of almost nothing the error of the forces stays, however many batches are displaced."""

    def told(probability):
        denoising = {"probability": probability, "share": share, "sigma": 1e-6, "weight": 1}
        stage = {"objective": "direct", "denoising": denoising, "lr": 1e-12}
        settings = made.settings(
            data, {"name": "s", "steps": 12, "batch": 8} | stage, log_steps=12, evaluate_steps=12
        )
        go(settings, tmp_path / str(probability))
        return events(tmp_path / str(probability), "train")[0]

    still, half, always = told(0.0), told(0.5), told(1.0)
    assert half["forces"] == pytest.approx(still["forces"], rel=0.2)
    assert ("forces" in always) == (share < 1)
    assert "noise" not in still
    assert half["noise"] == pytest.approx(always["noise"], rel=0.2)


def test_held_out_frames_are_neither_turned_nor_displaced(data, tmp_path):
    """What the log says of them is what the kept model says of the frames as they are stored."""
    model = made.MODEL | {"directional": "harmonics"}  # sees how a frame is turned
    stage = {"objective": "direct", "denoising": {"probability": 1.0, "sigma": 0.3}, "lr": 3e-3}
    stages = {"name": "s", "steps": 4, "batch": 4} | stage
    settings = made.settings(data, stages, model=model, rotate=True, evaluate_steps=4)
    kept, _ = load_model(go(settings, tmp_path / "run").model)
    batch, labels = gather(rows_of(data), rows_of(data).split.where("val"))
    found = predict(kept, batch)
    (line,) = events(tmp_path / "run", "validation")
    off = found.forces.numpy() - labels.forces
    assert line["forces"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    sizes = np.diff(batch.offsets)
    assert line["energy"] == pytest.approx(
        (np.abs(found.energy.numpy() - labels.energy) / sizes).mean(), rel=1e-5
    )


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(data, tmp_path, monkeypatch):
    from sfumato.training import loop

    def go_with(most):
        true = loop.backward

        def backward(model, sample, stage):
            if len(sample.frames) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return true(model, sample, stage)

        monkeypatch.setattr(loop, "backward", backward)
        folder = tmp_path / str(most)
        stage = {"name": "s", "steps": 3, "batch": 8, "lr": 1e-3}
        go(made.settings(data, stage, log_steps=1), folder)
        monkeypatch.setattr(loop, "backward", true)
        return [line["forces"] for line in events(folder, "train")], events(folder, "memory")

    whole, none = go_with(100)
    parts, noted = go_with(3)
    assert none == []
    assert [line["parts"] for line in noted] == [2, 4]
    assert parts == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="do not fit into the memory"):
        go_with(0)


def test_memory_that_runs_out_in_an_evaluation_halves_what_is_looked_at(data, tmp_path, monkeypatch):
    from sfumato.training import errors

    def found(folder):
        go(made.settings(data), tmp_path / folder)
        return [line["forces"] for line in events(tmp_path / folder, "validation")]

    whole = found("whole")
    true = errors._off

    def off(model, sample, most=2):
        if len(sample.frames) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return true(model, sample)

    monkeypatch.setattr(errors, "_off", off)
    assert found("halves") == pytest.approx(whole, rel=1e-6)
    monkeypatch.setattr(errors, "_off", lambda model, sample: off(model, sample, 0))
    with pytest.raises(ValueError, match=r"validation: \d atoms do not fit"):
        found("none")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": {"path": "nowhere.h5"}}, "nowhere"),
        ({"data": {"validation": "vall"}}, "did you mean 'val'"),
        ({"data": {"atom_energies": {"C": -1.0}}}, "none for N, O"),
        ({"data": {"atom_energies": {"Cx": -1.0}}}, "is not an element"),
        ({"model": made.MODEL | {"elements": [6, 8]}}, "without N"),
        ({"stages": [{"name": "s", "steps": 1, "batch": 4, "loss": {"stress": 1}}]}, "has a stress"),
        ({"accelerator": "cuda"}, "no CUDA device"),
    ],
)
def test_settings_that_the_data_does_not_allow(data, tmp_path, changes, match):
    if "data" in changes:
        changes = {"data": {"path": str(data)} | changes["data"]}
    if changes.get("accelerator") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=match):
        go(made.settings(data, **changes), tmp_path / "run")


def test_an_element_that_only_the_validation_has_is_refused(tmp_path):
    systems = made.molecules(20)
    systems[-1] = System([6, 9], [[0.0, 0, 0], [1.25, 0, 0]])
    path = made.written(tmp_path / "set.h5", systems)
    with pytest.raises(ValueError, match="the split 'val' has F, of which no frame of 'train'"):
        go(made.settings(path), tmp_path / "run")


def test_a_stress_that_only_the_validation_has_is_none_to_train_on(tmp_path):
    path = made.written(tmp_path / "set.h5", made.crystals(20), unstressed=range(14))
    stage = {"name": "s", "steps": 1, "batch": 4, "loss": {"stress": 1}}
    with pytest.raises(ValueError, match="no frame of the split 'train' of made has a stress"):
        go(made.settings(path, stage), tmp_path / "run")


def test_energies_of_atoms_may_be_given(data, tmp_path):
    energies = {"C": -1.0, "N": -2.0, "O": -3.0, "H": -4.0}
    settings = made.settings(data, data={"path": str(data), "atom_energies": energies})
    model, _ = load_model(go(settings, tmp_path / "run").model)
    assert model.reference[[6, 7, 8]].tolist() == [-1.0, -2.0, -3.0]


def test_only_weights_of_linear_maps_decay(data):
    settings = made.settings(data)
    model = MinDScAIP(settings.model)
    adam = AdamW(model, settings, 1e-3)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    adam.step(0.5)  # without a gradient
    decays = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    for name, weight in model.named_parameters():
        share = 1 - 0.5 * settings.weight_decay if name in decays else 1.0
        torch.testing.assert_close(weight.detach(), share * before[name])
    assert decays
    assert all(name.endswith(".weight") for name in decays)
    assert not any("sources" in name or "targets" in name or "angles" in name for name in decays)


def test_a_flat_optimizer_takes_the_steps_of_one_that_is_not(data):
    settings = made.settings(data, weight_decay=0.1)
    models = [MinDScAIP(settings.model) for _ in range(2)]
    flat = AdamW(models[0], settings, 1e-2)
    linear = {id(m.weight) for m in models[1].modules() if isinstance(m, torch.nn.Linear)}
    groups = [
        {
            "params": [w for w in models[1].parameters() if (id(w) in linear) is does],
            "weight_decay": 0.1 * does,
        }
        for does in (True, False)
    ]
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=settings.betas)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
            a.grad.copy_(torch.randn(a.shape, generator=generator))
            b.grad = a.grad.clone()
        flat.step(1e-2)
        plain.step()
        if step == 2:  # the state is that of the plain one, also in its order, and can be taken up
            found, expected = flat.state_dict()["state"], plain.state_dict()["state"]
            for place, moments in expected.items():
                for name in ("exp_avg", "exp_avg_sq", "step"):
                    torch.testing.assert_close(found[place][name], moments[name])
            saved = copy.deepcopy(flat.state_dict())
            flat = AdamW(models[0], settings, 1.0)
            flat.load_state_dict(saved)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-7)


def test_averages_by_hand():
    average = torch.nn.Linear(1, 1)
    flat = Flat(average)
    flat.weights.zero_()
    follow(flat.weights, torch.ones(2), 0.999, 0)
    assert average.weight.item() == pytest.approx(0.9)  # (1 + 0)/(10 + 0) remembered
    follow(flat.weights, torch.ones(2), 0.5, 1000)
    assert average.weight.item() == pytest.approx(0.95)


def test_gradients_are_clipped_to_a_norm():
    gradient = torch.tensor([3.0, 4.0])
    assert clip(gradient, 1.0) == pytest.approx(5.0)
    assert gradient.tolist() == pytest.approx([0.6, 0.8], rel=1e-4)
    assert clip(gradient, 10.0) == pytest.approx(1.0, rel=1e-4)
    assert gradient.tolist() == pytest.approx([0.6, 0.8], rel=1e-4)


def test_precision_is_that_of_the_stage_and_then_as_before(data):
    before = torch.backends.cuda.matmul.allow_tf32
    stage = made.settings(data).stages[0]
    with precision(stage.model_copy(update={"precision": "tf32"})):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
