# SPDX-License-Identifier: BSD-3-Clause
"""Quantisation: tensors and models that compute in floats what integers will compute."""

from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.adaround import adaround
from torchslim.quant.allocate_bits import BitAllocation, allocate_bits, allocate_bits_within, pareto_front
from torchslim.quant.apply_adaround import apply_adaround
from torchslim.quant.apply_gptq import apply_gptq
from torchslim.quant.binary_fake_quantize import binary_fake_quantize, ternary_fake_quantize
from torchslim.quant.calibrate import calibrate
from torchslim.quant.config import ActivationConfig, LayerConfig, QuantConfig, WeightConfig
from torchslim.quant.convert import ConvertedModel, convert
from torchslim.quant.convolution_layers import QuantConv1d, QuantConv2d, QuantConvTranspose1d, QuantConvTranspose2d
from torchslim.quant.correct_bias import correct_bias
from torchslim.quant.correct_bias_analytic import clipped_normal, correct_bias_analytic
from torchslim.quant.equalize import EqualizedPair, equalize
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
from torchslim.quant.hessian_trace import hessian_trace
from torchslim.quant.layer_samples import LayerSamples
from torchslim.quant.layers import QuantAveragePool, QuantLinear, SharedFakeQuantize
from torchslim.quant.learned_activation import LearnedActivation
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
    update_qparams,
)
from torchslim.quant.qparams import channel_qparams, choose_qparams, weight_qparams
from torchslim.quant.quantization_schedule import QuantizationSchedule
from torchslim.quant.reduce_observers import reduce_observers
from torchslim.quant.reestimate_batch_norm import reestimate_batch_norm
from torchslim.quant.search import BitPlan, SearchResult, search
from torchslim.quant.sensitivity import LayerSensitivity, Sensitivity, sensitivity
from torchslim.quant.smooth import SmoothedGroup, smooth, smooth_scale
from torchslim.quant.summary import Summary, SummaryRow, float_layers, summary
from torchslim.quant.weight_grid import GridWeight, round_weight, weight_scale
from torchslim.quant.weight_quantizer import WeightQuantizer

__all__ = [
    "ActivationConfig",
    "ActivationQuantizer",
    "BitAllocation",
    "BitPlan",
    "ConvertedModel",
    "EntropyObserver",
    "EqualizedPair",
    "FakeQuantize",
    "FloatFakeQuantize",
    "FloatFormat",
    "GridWeight",
    "HessianAccumulator",
    "HistogramObserver",
    "LayerConfig",
    "LayerSamples",
    "LayerSensitivity",
    "LearnedActivation",
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
    "QuantConfig",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantLinear",
    "QuantizationSchedule",
    "SearchResult",
    "Sensitivity",
    "SharedFakeQuantize",
    "SmoothedGroup",
    "Summary",
    "SummaryRow",
    "TrainableRange",
    "TrainedThreshold",
    "WeightConfig",
    "WeightQuantizer",
    "absmax_scale",
    "adaround",
    "allocate_bits",
    "allocate_bits_within",
    "apot_levels",
    "apply_adaround",
    "apply_gptq",
    "binary_fake_quantize",
    "block_float_fake_quantize",
    "calibrate",
    "channel_qparams",
    "choose_qparams",
    "clipped_normal",
    "convert",
    "correct_bias",
    "correct_bias_analytic",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "equalize",
    "fake_quantize",
    "fake_quantize_group",
    "fake_quantize_passthrough",
    "fake_quantize_stochastic",
    "float_fake_quantize",
    "float_layers",
    "freeze_batch_norm",
    "gptq",
    "hessian_trace",
    "kmeans_levels",
    "learned_fake_quantize",
    "level_fake_quantize",
    "pact_scale",
    "pareto_front",
    "positive_scale",
    "power_of_two_levels",
    "power_of_two_scale",
    "prepare",
    "reduce_observers",
    "reestimate_batch_norm",
    "round_weight",
    "search",
    "sensitivity",
    "smooth",
    "smooth_scale",
    "summary",
    "ternary_fake_quantize",
    "trainable_range_qparams",
    "trained_threshold_scale",
    "update_qparams",
    "weight_qparams",
    "weight_scale",
]
