# SPDX-License-Identifier: BSD-3-Clause
"""From a trained model to a file that runs in integers, and what it is worth: parity, size, speed."""

from torchslim.deploy.check import CheckedOperator, CheckedRecord, CheckProblem, CheckReport, check, known_runtimes
from torchslim.deploy.evaluate import (
    Agreement,
    accuracy,
    compare_outputs,
    count_reference_differences,
    run_batches,
)
from torchslim.deploy.latency import Latency, measure_latency
from torchslim.deploy.load import load
from torchslim.deploy.loaded_model import LoadedModel
from torchslim.deploy.lower import IntegerGraph, IntegerNode, WeightCount, lower
from torchslim.deploy.reference import IntegerResult, run_integer, run_integer_nodes
from torchslim.deploy.report import RUNTIMES, format_table, machine_name, report, report_json
from torchslim.deploy.report_layers import STEP_BINS, LayerReport, report_layers
from torchslim.deploy.report_page import report_page
from torchslim.deploy.run_onnx import OnnxModel
from torchslim.deploy.run_openvino import OpenVinoModel
from torchslim.deploy.run_pte import PteModel
from torchslim.deploy.run_ptl import PtlModel
from torchslim.deploy.save import SavedFile, save
from torchslim.deploy.target import LayerFit, fit_target, known_targets
from torchslim.deploy.torch_build import BuildAnswer, TorchBuild

__all__ = [
    "RUNTIMES",
    "STEP_BINS",
    "Agreement",
    "BuildAnswer",
    "CheckProblem",
    "CheckReport",
    "CheckedOperator",
    "CheckedRecord",
    "IntegerGraph",
    "IntegerNode",
    "IntegerResult",
    "Latency",
    "LayerFit",
    "LayerReport",
    "LoadedModel",
    "OnnxModel",
    "OpenVinoModel",
    "PteModel",
    "PtlModel",
    "SavedFile",
    "TorchBuild",
    "WeightCount",
    "accuracy",
    "check",
    "compare_outputs",
    "count_reference_differences",
    "fit_target",
    "format_table",
    "known_runtimes",
    "known_targets",
    "load",
    "lower",
    "machine_name",
    "measure_latency",
    "report",
    "report_json",
    "report_layers",
    "report_page",
    "run_batches",
    "run_integer",
    "run_integer_nodes",
    "save",
]
