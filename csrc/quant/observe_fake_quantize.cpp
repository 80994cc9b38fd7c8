// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include <torchslim/quant/observe_fake_quantize.h>

#include <cmath>
#include <tuple>

#include "core/composite.h"
#include "core/rounding.h"
#include "quant/fake_quantize.h"
#include "quant/observed_rows.h"
#include "quant/observer.h"

namespace torchslim::quant {
namespace {

using detail::Forward;
using detail::ObserverRule;
using detail::ObserverState;
using detail::Range;
using RangeOf = Range (*)(const at::Tensor&);

constexpr const char* kObserveOp = "torchslim::observe_fake_quantize";
constexpr const char* kChannelsOp = "torchslim::observe_channels";

Range range_composite(const at::Tensor& x) {
  const auto [low, high] = at::aminmax(x);
  return {low.item<float>(), high.item<float>()};
}

Range range_on_cpu(const at::Tensor& x) { return core::composite_on_cpu() ? range_composite(x) : detail::range_cpu(x); }

// Everything that observe_fake_quantize takes besides the tensors.
struct Observation {
  ObserverRule rule;
  std::optional<double> clamp_min;
  std::optional<double> clamp_max;
};

void check_observation(const at::Tensor& self, const ObserverState& state, const Observation& how) {
  detail::check_input(kObserveOp, self);
  detail::check_observer(kObserveOp, state, how.rule, {}, self.device());
  const double clamp_min = how.clamp_min.value_or(-INFINITY);
  const double clamp_max = how.clamp_max.value_or(INFINITY);
  TORCH_CHECK_VALUE(clamp_min < clamp_max, kObserveOp, ": clamp_min must be < clamp_max, got ", clamp_min, " and ",
                    clamp_max);
}

// Clamping keeps order, so the range of clamp(x) is the clamped range of x.
Range clamped(Range range, const Observation& how) {
  const float low = static_cast<float>(how.clamp_min.value_or(-INFINITY));
  const float high = static_cast<float>(how.clamp_max.value_or(INFINITY));
  return {core::clamp<double>(range.min, low, high), core::clamp<double>(range.max, low, high)};
}

// Moves the state; nothing is written before everything has been checked.
void observe(const ObserverState& state, Range seen, const Observation& how) {
  detail::check_finite(kObserveOp, seen);
  const Range before{state.min_val.item<float>(), state.max_val.item<float>()};
  const auto moved = detail::moved_range(before, clamped(seen, how), how.rule);
  const float low = static_cast<float>(moved.min);
  const float high = static_cast<float>(moved.max);
  const auto grid = choose_qparams(low, high, how.rule.quant_min, how.rule.quant_max, how.rule.symmetric);
  state.min_val.fill_(low);
  state.max_val.fill_(high);
  state.scale.fill_(grid.scale);
  state.zero_point.fill_(grid.zero_point);
}

template <Forward forward, RangeOf range_of>
detail::Quantized observe_and_quantize(const at::Tensor& self, const ObserverState& state, const Observation& how,
                                       bool with_cut) {
  check_observation(self, state, how);
  if (self.numel() > 0) {
    observe(state, range_of(self), how);
  }
  return forward(kObserveOp, self,
                 {.scale = state.scale.item<float>(),
                  .zero_point = state.zero_point.item<int32_t>(),
                  .quant_min = how.rule.quant_min,
                  .quant_max = how.rule.quant_max,
                  .clamp_min = how.clamp_min,
                  .clamp_max = how.clamp_max},
                 with_cut);
}

detail::Quantized observe_meta(const at::Tensor& self, const ObserverState& state, const Observation& how,
                               bool with_cut) {
  check_observation(self, state, how);
  return detail::forward_meta(
      kObserveOp, self,
      {.zero_point = how.rule.quant_min, .quant_min = how.rule.quant_min, .quant_max = how.rule.quant_max}, with_cut);
}

using Observe = detail::Quantized (*)(const at::Tensor&, const ObserverState&, const Observation&, bool);

template <Observe observe_op>
std::tuple<at::Tensor, at::Tensor> observe_cut(const at::Tensor& self, const at::Tensor& min_val,
                                               const at::Tensor& max_val, const at::Tensor& scale,
                                               const at::Tensor& zero_point, double averaging_constant,
                                               int64_t quant_min, int64_t quant_max, bool symmetric,
                                               std::optional<double> clamp_min, std::optional<double> clamp_max,
                                               bool keep_extremes) {
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  const auto result =
      observe_op(self, {min_val, max_val, scale, zero_point}, {rule, clamp_min, clamp_max}, /*with_cut=*/true);
  return {result.value, result.cut};
}

template <Observe observe_op>
at::Tensor observe_value(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                         const at::Tensor& scale, const at::Tensor& zero_point, double averaging_constant,
                         int64_t quant_min, int64_t quant_max, bool symmetric, std::optional<double> clamp_min,
                         std::optional<double> clamp_max, bool keep_extremes) {
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  return observe_op(self, {min_val, max_val, scale, zero_point}, {rule, clamp_min, clamp_max}, /*with_cut=*/false)
      .value;
}

template <Observe observe_op>
void register_observe(torch::Library& m) {
  m.impl("observe_fake_quantize", TORCH_FN(observe_value<observe_op>));
  m.impl("_observe_fake_quantize_cut", TORCH_FN(observe_cut<observe_op>));
}

int64_t check_channels(const at::Tensor& self, const ObserverState& state, int64_t axis, const ObserverRule& rule) {
  detail::check_input(kChannelsOp, self);
  const int64_t channel_axis = detail::check_axis(kChannelsOp, axis, self.dim());
  detail::check_observer(kChannelsOp, state, rule, self.sym_size(channel_axis), self.device());
  return channel_axis;
}

// A channel's new range and grid. Its scale has no lower limit; a range of 0 has scale 1.
struct ChannelState {
  Range range;
  GridNumbers grid;
};

ChannelState moved_channel(Range before, Range seen, const ObserverRule& rule, int64_t channel) {
  detail::check_finite(kChannelsOp, seen, " in channel " + std::to_string(channel));
  const auto moved = detail::moved_range(before, seen, rule);
  return {moved, detail::channel_grid(moved, rule.quant_min, rule.quant_max, rule.symmetric)};
}

// Moves the state of every channel; nothing is written before everything has been checked.
void observe_each_channel(const at::Tensor& self, const ObserverState& state, int64_t axis, const ObserverRule& rule) {
  const auto seen = detail::channel_ranges(self, axis);
  auto low = state.min_val.to(at::kCPU).clone();
  auto high = state.max_val.to(at::kCPU).clone();
  auto scale = at::empty_like(low);
  auto zero_point = at::empty_like(low, low.options().dtype(at::kInt));
  for (int64_t c = 0; c < low.numel(); ++c) {
    float& min = low.mutable_data_ptr<float>()[c];
    float& max = high.mutable_data_ptr<float>()[c];
    const auto moved = moved_channel({min, max}, seen[c], rule, c);
    min = static_cast<float>(moved.range.min);
    max = static_cast<float>(moved.range.max);
    scale.mutable_data_ptr<float>()[c] = moved.grid.scale;
    zero_point.mutable_data_ptr<int32_t>()[c] = moved.grid.zero_point;
  }
  state.min_val.copy_(low);
  state.max_val.copy_(high);
  state.scale.copy_(scale);
  state.zero_point.copy_(zero_point);
}

void observe_channels_op(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                         const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis, double averaging_constant,
                         int64_t quant_min, int64_t quant_max, bool symmetric, bool keep_extremes) {
  const ObserverState state{min_val, max_val, scale, zero_point};
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  const int64_t channel_axis = check_channels(self, state, axis, rule);
  if (self.numel() > 0) {
    observe_each_channel(self, state, channel_axis, rule);
  }
}

template <Forward forward>
detail::Quantized quantize_channels(const at::Tensor& self, const ObserverState& state, int64_t axis,
                                    const ObserverRule& rule, bool with_cut) {
  return forward(kChannelsOp, self,
                 {.scale_tensor = state.scale,
                  .zero_point_tensor = state.zero_point,
                  .quant_min = rule.quant_min,
                  .quant_max = rule.quant_max,
                  .axis = axis},
                 with_cut);
}

using ObserveChannels = detail::Quantized (*)(const at::Tensor&, const ObserverState&, int64_t, const ObserverRule&,
                                              bool);

template <Forward forward>
detail::Quantized observe_and_quantize_channels(const at::Tensor& self, const ObserverState& state, int64_t axis,
                                                const ObserverRule& rule, bool with_cut) {
  observe_channels_op(self, state.min_val, state.max_val, state.scale, state.zero_point, axis, rule.averaging_constant,
                      rule.quant_min, rule.quant_max, rule.symmetric, rule.keep_extremes);
  return quantize_channels<forward>(self, state, axis, rule, with_cut);
}

detail::Quantized observe_channels_value_meta(const at::Tensor& self, const ObserverState& state, int64_t axis,
                                              const ObserverRule& rule, bool with_cut) {
  check_channels(self, state, axis, rule);
  return quantize_channels<detail::forward_meta>(self, state, axis, rule, with_cut);
}

template <ObserveChannels observe_op>
at::Tensor channels_value(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                          const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis,
                          double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
                          bool keep_extremes) {
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  return observe_op(self, {min_val, max_val, scale, zero_point}, axis, rule, /*with_cut=*/false).value;
}

template <ObserveChannels observe_op>
std::tuple<at::Tensor, at::Tensor> channels_cut(const at::Tensor& self, const at::Tensor& min_val,
                                                const at::Tensor& max_val, const at::Tensor& scale,
                                                const at::Tensor& zero_point, int64_t axis, double averaging_constant,
                                                int64_t quant_min, int64_t quant_max, bool symmetric,
                                                bool keep_extremes) {
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  const auto result = observe_op(self, {min_val, max_val, scale, zero_point}, axis, rule, /*with_cut=*/true);
  return {result.value, result.cut};
}

template <ObserveChannels observe_op>
void register_observe_channels(torch::Library& m) {
  m.impl("observe_fake_quantize.channels", TORCH_FN(channels_value<observe_op>));
  m.impl("_observe_fake_quantize_cut.channels", TORCH_FN(channels_cut<observe_op>));
}

void observe_channels_meta(const at::Tensor& self, const at::Tensor& min_val, const at::Tensor& max_val,
                           const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis,
                           double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
                           bool keep_extremes) {
  const ObserverRule rule{averaging_constant, keep_extremes, quant_min, quant_max, symmetric};
  check_channels(self, {min_val, max_val, scale, zero_point}, axis, rule);
}

}  // namespace

at::Tensor observe_fake_quantize(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                                 const at::Tensor& scale, const at::Tensor& zero_point, double averaging_constant,
                                 int64_t quant_min, int64_t quant_max, bool symmetric, std::optional<double> clamp_min,
                                 std::optional<double> clamp_max, bool keep_extremes) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kObserveOp, "").typed<decltype(observe_value<observe_meta>)>();
  return op.call(x, min_val, max_val, scale, zero_point, averaging_constant, quant_min, quant_max, symmetric, clamp_min,
                 clamp_max, keep_extremes);
}

at::Tensor observe_fake_quantize(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                                 const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis,
                                 double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
                                 bool keep_extremes) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kObserveOp, "channels")
                             .typed<decltype(channels_value<observe_channels_value_meta>)>();
  return op.call(x, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min, quant_max, symmetric,
                 keep_extremes);
}

void observe_channels(const at::Tensor& x, const at::Tensor& min_val, const at::Tensor& max_val,
                      const at::Tensor& scale, const at::Tensor& zero_point, int64_t axis, double averaging_constant,
                      int64_t quant_min, int64_t quant_max, bool symmetric, bool keep_extremes) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kChannelsOp, "").typed<decltype(observe_channels_op)>();
  op.call(x, min_val, max_val, scale, zero_point, axis, averaging_constant, quant_min, quant_max, symmetric,
          keep_extremes);
}

TORCH_LIBRARY_FRAGMENT(torchslim, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::needs_exact_strides};
  m.def(
      "observe_fake_quantize(Tensor input, Tensor(a!) min_val, Tensor(b!) max_val, Tensor(c!) scale, "
      "Tensor(d!) zero_point, float averaging_constant, int quant_min, int quant_max, bool symmetric, "
      "float? clamp_min=None, float? clamp_max=None, bool keep_extremes=False) -> Tensor",
      tags);
  m.def(
      "_observe_fake_quantize_cut(Tensor input, Tensor(a!) min_val, Tensor(b!) max_val, Tensor(c!) scale, "
      "Tensor(d!) zero_point, float averaging_constant, int quant_min, int quant_max, bool symmetric, "
      "float? clamp_min=None, float? clamp_max=None, bool keep_extremes=False) -> (Tensor, Tensor)",
      tags);
  const std::string channels_of =
      ".channels(Tensor input, Tensor(a!) min_val, Tensor(b!) max_val, Tensor(c!) scale, Tensor(d!) zero_point, int "
      "axis, "
      "float averaging_constant, int quant_min, int quant_max, bool symmetric, bool keep_extremes=False) -> ";
  m.def(("observe_fake_quantize" + channels_of + "Tensor").c_str(), tags);
  m.def(("_observe_fake_quantize_cut" + channels_of + "(Tensor, Tensor)").c_str(), tags);
  m.def(
      "observe_channels(Tensor input, Tensor(a!) min_val, Tensor(b!) max_val, Tensor(c!) scale, "
      "Tensor(d!) zero_point, int axis, float averaging_constant, int quant_min, int quant_max, bool symmetric, "
      "bool keep_extremes=False) -> ()",
      tags);
}

TORCH_LIBRARY_IMPL(torchslim, CPU, m) {
  register_observe<observe_and_quantize<detail::forward_cpu, range_on_cpu>>(m);
  register_observe_channels<observe_and_quantize_channels<detail::forward_cpu>>(m);
}

TORCH_LIBRARY_IMPL(torchslim, Meta, m) {
  register_observe<observe_meta>(m);
  register_observe_channels<observe_channels_value_meta>(m);
  m.impl("observe_channels", TORCH_FN(observe_channels_meta));
}

TORCH_LIBRARY_IMPL(torchslim, CompositeExplicitAutograd, m) {
  register_observe<observe_and_quantize<detail::forward_composite, range_composite>>(m);
  register_observe_channels<observe_and_quantize_channels<detail::forward_composite>>(m);
  m.impl("observe_channels", TORCH_FN(observe_channels_op));
}

}  // namespace torchslim::quant
