"""Where a run is: every step of its progress by hand."""

import json

import pytest

from sfumato.training.losses import Counts
from sfumato.training.progress import Pace, Progress
from sfumato.training.stages import Stage

STEPS = Stage(name="s", steps=5, batch=1)
EPOCHS = Stage(name="e", epochs=2, batch=1)
SEEN = Counts(structures=4, atoms=10)


def after(count, losses=None, steps=3):
    p = Progress()
    for _ in range(count):
        p.step_done(losses or {}, SEEN, steps)
    return p


def test_steps_make_epochs_and_epochs_or_steps_a_stage():
    p = after(4)
    assert (p.epoch, p.step, p.done, p.total) == (1, 1, 4, 4)
    assert (p.part(STEPS, 3), p.part(EPOCHS, 3)) == (4.0, pytest.approx(1 + 1 / 3))
    assert not p.is_over(STEPS, None)
    assert after(5).is_over(STEPS, None)
    assert not after(5).is_over(EPOCHS, None)
    assert after(6).is_over(EPOCHS, None)


def test_the_next_stage_begins_with_a_new_epoch_and_no_best():
    p = after(4)
    p.is_best(0.5)
    p.stage_done()
    assert (p.stage, p.epoch, p.first, p.step, p.done, p.total) == (1, 2, 2, 0, 0, 4)
    assert p.part(EPOCHS, 3) == 0
    assert p.is_best(0.9)
    whole = after(3)
    whole.stage_done()
    assert whole.epoch == 1  # the epoch was over anyway


def test_patience_counts_evaluations_since_the_best():
    p = Progress()
    assert [p.is_best(loss) for loss in (0.5, 0.6, 0.4, 0.4, 0.7)] == [True, False, True, False, False]
    assert p.is_over(STEPS, 2)
    assert not p.is_over(STEPS, 3)
    assert not p.is_over(STEPS, None)


def test_an_evaluation_is_due_until_it_ends():
    p = Progress()
    assert [p.evaluation_begins(), p.due, p.evaluation_begins()] == [True, True, False]
    p.evaluation_ends()
    assert not p.due


def test_the_pace_leaves_evaluations_out_and_begins_anew_with_every_line():
    p = after(2, {"energy": 1.0, "stress": 7.0})  # no structure has a stress
    p.time_passed(10.0, 9.0)
    p.evaluated(6.0)
    assert p.line_written(2.0, 5.0) == Pace({"energy": 1.0}, 8 / 4.0, pytest.approx(6.0))
    p.step_done({"energy": 3.0}, SEEN, 3)
    p.time_passed(2.0, 2.0)
    assert p.line_written(3.0, 5.0) == Pace({"energy": 3.0}, 4 / 2.0, pytest.approx(4.0))


def test_it_is_written_in_plain_types_and_read_again():
    p = after(2, {"energy": 1.0})
    p.is_best(0.25)
    assert Progress.of(json.loads(json.dumps(p.values()))) == p
