# SPDX-License-Identifier: BSD-3-Clause
"""Quantisation: tensors and models that compute in floats what integers will compute."""

from torchslim.quant.binary_fake_quantize import binary_fake_quantize, ternary_fake_quantize
from torchslim.quant.convert import ConvertedModel, convert
from torchslim.quant.fake_quantize import fake_quantize
from torchslim.quant.fake_quantize_group import fake_quantize_group
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.fake_quantize_passthrough import fake_quantize_passthrough
from torchslim.quant.fake_quantize_stochastic import fake_quantize_stochastic
from torchslim.quant.float_fake_quantize import block_float_fake_quantize, float_fake_quantize
from torchslim.quant.float_fake_quantize_module import FloatFakeQuantize
from torchslim.quant.float_format import FloatFormat
from torchslim.quant.gptq import gptq
from torchslim.quant.hessian import HessianAccumulator
from torchslim.quant.layers import QuantAveragePool, QuantConv2d, QuantLinear, SharedFakeQuantize
from torchslim.quant.learned_fake_quantize import (
    learned_fake_quantize,
    pact_scale,
    positive_scale,
    trainable_range_qparams,
    trained_threshold_scale,
)
from torchslim.quant.learned_modules import LearnedFakeQuantize, Pact, TrainableRange, TrainedThreshold
from torchslim.quant.level_fake_quantize import level_fake_quantize
from torchslim.quant.level_fake_quantize_module import LevelFakeQuantize
from torchslim.quant.levels import absmax_scale, apot_levels, kmeans_levels, power_of_two_levels, power_of_two_scale
from torchslim.quant.observers import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MseObserver,
    Observer,
    PercentileObserver,
)
from torchslim.quant.prepare import prepare
from torchslim.quant.prepared_model import (
    PreparedModel,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze_batch_norm,
)
from torchslim.quant.qparams import channel_qparams, choose_qparams, weight_qparams
from torchslim.quant.reduce_observers import reduce_observers
from torchslim.quant.weight_grid import GridWeight, round_weight, weight_scale

__all__ = [
    "ConvertedModel",
    "EntropyObserver",
    "FakeQuantize",
    "FloatFakeQuantize",
    "FloatFormat",
    "GridWeight",
    "HessianAccumulator",
    "HistogramObserver",
    "LearnedFakeQuantize",
    "LevelFakeQuantize",
    "MinMaxObserver",
    "MovingAverageObserver",
    "MseObserver",
    "Observer",
    "Pact",
    "PercentileObserver",
    "PreparedModel",
    "QuantAveragePool",
    "QuantConv2d",
    "QuantLinear",
    "SharedFakeQuantize",
    "TrainableRange",
    "TrainedThreshold",
    "absmax_scale",
    "apot_levels",
    "binary_fake_quantize",
    "block_float_fake_quantize",
    "channel_qparams",
    "choose_qparams",
    "convert",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "fake_quantize",
    "fake_quantize_group",
    "fake_quantize_passthrough",
    "fake_quantize_stochastic",
    "float_fake_quantize",
    "freeze_batch_norm",
    "gptq",
    "kmeans_levels",
    "learned_fake_quantize",
    "level_fake_quantize",
    "pact_scale",
    "positive_scale",
    "power_of_two_levels",
    "power_of_two_scale",
    "prepare",
    "reduce_observers",
    "round_weight",
    "ternary_fake_quantize",
    "trainable_range_qparams",
    "trained_threshold_scale",
    "weight_qparams",
    "weight_scale",
]
