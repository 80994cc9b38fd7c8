// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <torchslim/deploy/target.h>

#include <limits>
#include <sstream>

#include "deploy/target_profile.h"

namespace torchslim::deploy {
namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();

const std::vector<TargetProfile>& profiles() {
  using enum IntegerOp;
  static const std::vector<TargetProfile> table{
      {.name = "qnnpack",
       .float_ops = {kMul, kTable, kMove, kQuantize, kConvTranspose1d, kConvTranspose2d},
       .pools_one_element = false,
       .pads_dilated_maxima = false},
      {.name = "onnx"},
      // Beyond these, xnn_create_* answers xnn_status_unsupported_parameter, and the file does not load.
      {.name = "xnnpack", .groups_transposed = false, .smallest_factor = 1.0 / 4294967296, .factors_below = 256},
  };
  return table;
}

std::string shown(double number) {
  std::ostringstream text;
  text << number;
  return text.str();
}

std::string problem_of(const IntegerGraph& graph, const IntegerNode& node, const TargetProfile& profile) {
  if (is_transposed(node.op) && node.window.groups > 1 && !profile.groups_transposed) {
    return "has no transposed convolution with groups and a scale for each channel; save a .ptl or .onnx file";
  }
  if (node.codes.defined() && (profile.smallest_factor > 0 || profile.factors_below < kAny)) {
    const at::Tensor factors = requantization_factors(node, graph.nodes[node.inputs[0]]);
    const auto smallest = factors.min().item<double>(), largest = factors.max().item<double>();
    if (smallest < profile.smallest_factor || largest >= profile.factors_below) {
      return "takes input scale * weight scale / output scale in [" + shown(profile.smallest_factor) + ", " +
             shown(profile.factors_below) + "), got " + shown(smallest) + " to " + shown(largest) +
             "; train on with the observers on, so that the output's range fits what the layer gives, or save a .ptl "
             "or "
             ".onnx file";
    }
  }
  return "";
}

}  // namespace

const TargetProfile& target_profile(const std::string& target) {
  std::string known;
  for (const TargetProfile& profile : profiles()) {
    if (profile.name == target) {
      return profile;
    }
    known += (known.empty() ? "" : ", ") + profile.name;
  }
  TORCH_CHECK_VALUE(false, "torchslim::fit_target: the target must be one of ", known, ", got '", target, "'");
}

Arithmetic arithmetic_of(const IntegerNode& node, const TargetProfile& profile) {
  const graph::Window& w = node.window;
  const bool pools = node.op == IntegerOp::kMaxPool2d || node.op == IntegerOp::kAvgPool2d;
  if (node.gives_floats()) {
    return Arithmetic::kFloat;
  }
  if (pools && w.kernel == std::array<int64_t, 2>{1, 1} && !profile.pools_one_element) {
    return Arithmetic::kFloatOnCodes;
  }
  if (node.op == IntegerOp::kMaxPool2d && w.padding != std::array<int64_t, 2>{0, 0} &&
      w.dilation != std::array<int64_t, 2>{1, 1} && !profile.pads_dilated_maxima) {
    return Arithmetic::kFloatOnCodes;
  }
  return profile.float_ops.count(node.op) != 0 ? Arithmetic::kFloatOnCodes : Arithmetic::kInteger;
}

const char* to_string(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kInteger:
      return "int8";
    case Arithmetic::kFloatOnCodes:
      return "float on codes";
    case Arithmetic::kFloat:
      break;
  }
  return "float";
}

std::vector<std::string> known_targets() {
  std::vector<std::string> names;
  for (const TargetProfile& profile : profiles()) {
    names.push_back(profile.name);
  }
  return names;
}

std::vector<LayerFit> fit_target(const IntegerGraph& graph, const std::string& target) {
  const TargetProfile& profile = target_profile(target);
  std::vector<LayerFit> fits;
  for (const IntegerNode& node : graph.nodes) {
    fits.push_back({node.layer, to_string(node.op), arithmetic_of(node, profile), problem_of(graph, node, profile)});
  }
  return fits;
}

void require_fit(const IntegerGraph& graph, const std::string& target, const std::string& who) {
  for (const LayerFit& fit : fit_target(graph, target)) {
    TORCH_CHECK_VALUE(fit.problem.empty(), who, ": layer '", fit.layer, "' (", fit.op, "): ", target, " ", fit.problem);
  }
}

}  // namespace torchslim::deploy
