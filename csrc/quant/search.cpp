// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/search.h>

#include <algorithm>

namespace torchslim::quant {
namespace {

constexpr const char* kSearch = "torchslim::search";

int64_t bytes_of(const LayerSensitivity& layer, int64_t bits) {
  constexpr int64_t kScaleBytes = 4;
  return (layer.weights * bits + 7) / 8 + kScaleBytes * layer.channels;
}

enum class Cost { kBytes, kMacBits };

std::vector<LayerChoices> choices_of(const Sensitivity& sensitivity, Cost cost, int64_t activation_bits) {
  std::vector<LayerChoices> result;
  for (size_t i = 0; i < sensitivity.layers.size(); ++i) {
    const LayerSensitivity& layer = sensitivity.layers[i];
    TORCH_CHECK_VALUE(layer.values.size() == sensitivity.bits.size(), kSearch, ": layer `", layer.layer, "` has ",
                      layer.values.size(), " values for ", sensitivity.bits.size(), " widths");
    TORCH_CHECK_VALUE(cost == Cost::kBytes || layer.macs > 0, kSearch, ": the multiplications of layer `", layer.layer,
                      "` were not counted; give `sensitivity` an example input (in C++ its option `counts`)");
    LayerChoices choices{layer.layer, {}};
    for (size_t b = 0; b < sensitivity.bits.size(); ++b) {
      const int64_t bits = sensitivity.bits[b];
      choices.choices.push_back({cost == Cost::kBytes ? bytes_of(layer, bits) : layer.macs * bits * activation_bits,
                                 sensitivity.damage(i, b)});
    }
    result.push_back(std::move(choices));
  }
  return result;
}

double predicted(const Sensitivity& sensitivity, double damage) {
  return sensitivity.higher_is_better ? sensitivity.baseline - damage : sensitivity.baseline + damage;
}

BitPlan plan_of(const Sensitivity& sensitivity, const BitAllocation& allocation, int64_t activation_bits) {
  BitPlan plan;
  for (size_t i = 0; i < sensitivity.layers.size(); ++i) {
    const LayerSensitivity& layer = sensitivity.layers[i];
    const int64_t bits = sensitivity.bits[allocation.choice[i]];
    plan.layers.push_back({layer.layer, bits});
    plan.bytes += bytes_of(layer, bits);
    plan.mac_bits += layer.macs * bits * activation_bits;
  }
  plan.predicted = predicted(sensitivity, allocation.damage);
  plan.bound = predicted(sensitivity, allocation.bound);
  return plan;
}

}  // namespace

BitPlan search(const Sensitivity& sensitivity, const SearchOptions& options) {
  const int given = options.bytes().has_value() + options.mac_bits().has_value() + options.floor().has_value();
  TORCH_CHECK_VALUE(given == 1, kSearch, ": expected one limit of bytes, mac_bits and floor, got ", given);
  const int64_t activation_bits = options.activation_bits();
  TORCH_CHECK_VALUE(activation_bits >= 1 && activation_bits <= 32, kSearch, ": activation_bits must be 1 to 32, got ",
                    activation_bits);
  if (options.floor()) {
    const auto choices = choices_of(sensitivity, Cost::kBytes, activation_bits);
    const double change = *options.floor() - sensitivity.baseline;
    const double most = sensitivity.higher_is_better ? -change : change;
    const auto allocation = allocate_bits_within(choices, most, options.search());
    BitPlan plan = plan_of(sensitivity, allocation, activation_bits);
    plan.bound = allocation.bound;
    return plan;
  }
  const Cost cost = options.bytes() ? Cost::kBytes : Cost::kMacBits;
  const int64_t budget = options.bytes() ? *options.bytes() : *options.mac_bits();
  const auto choices = choices_of(sensitivity, cost, activation_bits);
  return plan_of(sensitivity, allocate_bits(choices, budget, options.search()), activation_bits);
}

std::vector<BitPlan> search_front(const Sensitivity& sensitivity, int64_t activation_bits) {
  std::vector<BitPlan> plans;
  for (const auto& allocation : pareto_front(choices_of(sensitivity, Cost::kBytes, activation_bits))) {
    plans.push_back(plan_of(sensitivity, allocation, activation_bits));
  }
  return plans;
}

}  // namespace torchslim::quant
