// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/graph/graph.h>

#include <unordered_map>

namespace torchslim::graph {
namespace {

// Deterministic, without side effects, and the same for each image of a batch whatever the others hold.
const std::unordered_map<std::string, AtenRole>& roles() {
  using enum AtenRole;
  static const std::unordered_map<std::string, AtenRole> table{
      {"aten::view", kCopies},
      {"aten::reshape", kCopies},
      {"aten::flatten", kCopies},
      {"aten::unflatten", kCopies},
      {"aten::permute", kCopies},
      {"aten::transpose", kCopies},
      {"aten::t", kCopies},
      {"aten::unsqueeze", kCopies},
      {"aten::squeeze", kCopies},
      {"aten::slice", kCopies},
      {"aten::select", kCopies},
      {"aten::narrow", kCopies},
      {"aten::index_select", kCopies},
      {"aten::expand", kCopies},
      {"aten::expand_as", kCopies},
      {"aten::repeat", kCopies},
      {"aten::flip", kCopies},
      {"aten::roll", kCopies},
      {"aten::pixel_shuffle", kCopies},
      {"aten::pixel_unshuffle", kCopies},
      {"aten::channel_shuffle", kCopies},
      {"aten::upsample_nearest1d", kCopies},
      {"aten::upsample_nearest2d", kCopies},
      {"aten::constant_pad_nd", kCopies},
      {"aten::reflection_pad2d", kCopies},
      {"aten::replication_pad2d", kCopies},
      {"aten::reflection_pad1d", kCopies},
      {"aten::replication_pad1d", kCopies},
      {"aten::pad", kCopies},
      {"aten::adaptive_max_pool2d", kCopies},
      {"aten::max_pool1d", kCopies},
      {"aten::max_pool3d", kCopies},
      {"aten::amax", kCopies},
      {"aten::amin", kCopies},
      {"aten::max", kCopies},
      {"aten::min", kCopies},
      {"aten::dropout", kCopies},  // off, as graphs hold eval; where it is kept at all
      {"aten::feature_dropout", kCopies},
      {"aten::alpha_dropout", kCopies},

      {"aten::sigmoid", kElementwise},
      {"aten::hardsigmoid", kElementwise},
      {"aten::hardswish", kElementwise},
      {"aten::silu", kElementwise},
      {"aten::tanh", kElementwise},
      {"aten::leaky_relu", kElementwise},
      {"aten::elu", kElementwise},
      {"aten::selu", kElementwise},
      {"aten::celu", kElementwise},
      {"aten::gelu", kElementwise},
      {"aten::mish", kElementwise},
      {"aten::softplus", kElementwise},
      {"aten::log_sigmoid", kElementwise},
      {"aten::hardtanh", kElementwise},
      {"aten::clamp", kElementwise},
      {"aten::clamp_min", kElementwise},
      {"aten::clamp_max", kElementwise},
      {"aten::threshold", kElementwise},
      {"aten::abs", kElementwise},
      {"aten::neg", kElementwise},
      {"aten::exp", kElementwise},
      {"aten::sqrt", kElementwise},
      {"aten::square", kElementwise},
      {"aten::sin", kElementwise},
      {"aten::cos", kElementwise},
      {"aten::erf", kElementwise},
      {"aten::hardshrink", kElementwise},
      {"aten::softshrink", kElementwise},

      {"aten::log", kComputes},  // of 0 it is no code
      {"aten::rsqrt", kComputes},
      {"aten::reciprocal", kComputes},
      {"aten::gt", kComputes},
      {"aten::ge", kComputes},
      {"aten::lt", kComputes},
      {"aten::le", kComputes},
      {"aten::where", kComputes},
      {"aten::masked_fill", kComputes},
      {"aten::pow", kComputes},
      {"aten::add", kComputes},
      {"aten::sub", kComputes},
      {"aten::rsub", kComputes},
      {"aten::mul", kComputes},
      {"aten::div", kComputes},
      {"aten::maximum", kComputes},
      {"aten::minimum", kComputes},
      {"aten::sum", kComputes},
      {"aten::mean", kComputes},
      {"aten::var", kComputes},
      {"aten::std", kComputes},
      {"aten::linalg_vector_norm", kComputes},
      {"aten::prelu", kComputes},
      {"aten::batch_norm", kComputes},
      {"aten::instance_norm", kComputes},
      {"aten::layer_norm", kComputes},
      {"aten::group_norm", kComputes},
      {"aten::softmax", kComputes},
      {"aten::log_softmax", kComputes},
      {"aten::matmul", kComputes},
      {"aten::bmm", kComputes},
      {"aten::linear", kComputes},
      {"aten::scaled_dot_product_attention", kComputes},
      {"aten::_convolution", kComputes},
      {"aten::_convolution_mode", kComputes},
      {"aten::convolution", kComputes},
      {"aten::avg_pool1d", kComputes},
      {"aten::avg_pool2d", kComputes},
      {"aten::avg_pool3d", kComputes},
      {"aten::adaptive_avg_pool1d", kComputes},
      {"aten::adaptive_avg_pool2d", kComputes},
      {"aten::adaptive_avg_pool3d", kComputes},
      {"aten::upsample_bilinear2d", kComputes},
      {"aten::upsample_bicubic2d", kComputes},
      {"aten::zeros_like", kComputes},
      {"aten::ones_like", kComputes},
  };
  return table;
}

}  // namespace

std::optional<AtenRole> aten_role(const std::string& op) {
  const auto found = roles().find(op);
  return found == roles().end() ? std::nullopt : std::optional<AtenRole>(found->second);
}

}  // namespace torchslim::graph
