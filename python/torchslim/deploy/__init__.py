# SPDX-License-Identifier: BSD-3-Clause
"""From a trained model to a file that runs in integers, and what it is worth: parity, size, speed."""

from torchslim.deploy.check import CheckedOperator, CheckProblem, CheckReport, check, known_runtimes
from torchslim.deploy.evaluate import (
    Agreement,
    accuracy,
    compare_outputs,
    count_reference_differences,
    run_batches,
)
from torchslim.deploy.lower import IntegerGraph, IntegerNode, WeightCount, lower
from torchslim.deploy.reference import IntegerResult, run_integer, run_integer_nodes
from torchslim.deploy.report import format_table, machine_name, report, report_json
from torchslim.deploy.run_ptl import Latency, PtlModel, load, measure_latency
from torchslim.deploy.save import SavedFile, save

__all__ = [
    "Agreement",
    "CheckProblem",
    "CheckReport",
    "CheckedOperator",
    "IntegerGraph",
    "IntegerNode",
    "IntegerResult",
    "Latency",
    "PtlModel",
    "SavedFile",
    "WeightCount",
    "accuracy",
    "check",
    "compare_outputs",
    "count_reference_differences",
    "format_table",
    "known_runtimes",
    "load",
    "lower",
    "machine_name",
    "measure_latency",
    "report",
    "report_json",
    "run_batches",
    "run_integer",
    "run_integer_nodes",
    "save",
]
