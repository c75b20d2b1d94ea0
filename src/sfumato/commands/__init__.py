"""What each command does: one library call, and what a person sees of it. Returns the exit code."""

from sfumato.commands.campaigns import (
    LabelOptions,
    RecipeOptions,
    SamplingOptions,
    data_sample,
    label,
    plan_scan,
    scan_build,
)
from sfumato.commands.contract import CheckOptions, check
from sfumato.commands.evaluation import EvalOptions, evaluate, report
from sfumato.commands.runs import RunOptions, Selection, compare, demo, plan_bsct, run_bsct
from sfumato.commands.sets import data_check, data_convert, data_get, data_import, data_list, list_names
from sfumato.commands.train import TrainOptions, train

__all__ = [
    "CheckOptions",
    "EvalOptions",
    "LabelOptions",
    "RecipeOptions",
    "RunOptions",
    "SamplingOptions",
    "Selection",
    "TrainOptions",
    "check",
    "compare",
    "data_check",
    "data_convert",
    "data_get",
    "data_import",
    "data_list",
    "data_sample",
    "demo",
    "evaluate",
    "label",
    "list_names",
    "plan_bsct",
    "plan_scan",
    "report",
    "run_bsct",
    "scan_build",
    "train",
]
