// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/allocate_bits.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace torchslim::quant {
namespace {

constexpr const char* kAllocate = "torchslim::allocate_bits";
constexpr double kMostCost = 9007199254740992.0;  // 2^53: a double holds every integer up to here
constexpr size_t kMostSums = size_t{1} << 24;
constexpr double kUnreachable = std::numeric_limits<double>::infinity();
constexpr double kRounding = 1e-10;  // of a sum of magnitudes: what sums in another order may differ by

/// One choice as both problems see it: `weight` is limited, `value` made least.
struct Item {
  double weight;
  double value;
  int64_t index;  // into the layer's choices
};

using Layer = std::vector<Item>;

/// A step from one choice of a layer to the next on its convex hull: more weight for less value.
struct Edge {
  double weight;
  double value;  // < 0
  size_t layer;
  size_t to;  // index into the hull of the layer

  double slope() const { return value / weight; }
};

/// Keeps the items that no other beats in both: weights rise, values fall.
Layer undominated(Layer items) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.value < b.value;
  });
  Layer kept;
  for (const Item& item : items) {
    if (kept.empty() || item.value < kept.back().value) {
      kept.push_back(item);
    }
  }
  return kept;
}

/// Keeps the corners of the lower convex hull of undominated items.
Layer hull_of(const Layer& items) {
  Layer hull;
  for (const Item& item : items) {
    while (hull.size() >= 2) {
      const Item& a = hull[hull.size() - 2];
      const Item& b = hull.back();
      const bool below =
          (b.value - a.value) * (item.weight - a.weight) < (item.value - a.value) * (b.weight - a.weight);
      if (below) {
        break;
      }
      hull.pop_back();
    }
    hull.push_back(item);
  }
  return hull;
}

/// The linear relaxation of the layers from one on: the least value that some remaining weight can reach.
class Relaxation {
 public:
  /// `edges` in the order of rising slopes, those that help most first.
  Relaxation(double least_weight, double value, const std::vector<Edge>& edges, double slack)
      : least_weight_(least_weight), slack_(slack) {
    weights_.reserve(edges.size() + 1);
    values_.reserve(edges.size() + 1);
    weights_.push_back(0);
    values_.push_back(value);
    for (const Edge& edge : edges) {
      weights_.push_back(weights_.back() + edge.weight);
      values_.push_back(values_.back() + edge.value);
    }
  }

  double least_value(double remaining) const {
    // More room than there is, by what rounding may have taken: the steepest steps weigh less than that.
    const double room = remaining - least_weight_ + slack_;
    if (room < 0) {
      return kUnreachable;
    }
    const auto next = std::upper_bound(weights_.begin(), weights_.end(), room);
    const size_t i = next - weights_.begin();
    if (i == weights_.size()) {
      return values_.back();
    }
    const double share = (room - weights_[i - 1]) / (weights_[i] - weights_[i - 1]);
    return values_[i - 1] + share * (values_[i] - values_[i - 1]);
  }

 private:
  double least_weight_;
  double slack_;
  std::vector<double> weights_;
  std::vector<double> values_;
};

/// A sum over the first layers, and how it came about.
struct Sum {
  double weight;
  double value;
  uint32_t before;  // index into the sums of one layer less
  uint32_t item;    // index into the layer's items
};

class Knapsack {
 public:
  Knapsack(std::vector<Layer> layers, double limit) : limit_(limit) {
    double weights = 0, values = 0;
    for (Layer& items : layers) {
      layers_.push_back(undominated(std::move(items)));
      hulls_.push_back(hull_of(layers_.back()));
      weights += std::max(std::abs(layers_.back().front().weight), std::abs(layers_.back().back().weight));
      values += std::max(std::abs(layers_.back().front().value), std::abs(layers_.back().back().value));
    }
    weight_slack_ = kRounding * weights;
    value_slack_ = kRounding * values;
  }

  /// The choices of least weight, from which every search starts.
  std::vector<size_t> lightest() const { return std::vector<size_t>(layers_.size(), 0); }

  /// Steps along the hulls, those that help most for their weight first.
  std::vector<Edge> edges_from(size_t first_layer) const {
    std::vector<Edge> edges;
    for (size_t layer = first_layer; layer < hulls_.size(); ++layer) {
      for (size_t i = 1; i < hulls_[layer].size(); ++i) {
        const Item& a = hulls_[layer][i - 1];
        const Item& b = hulls_[layer][i];
        edges.push_back({b.weight - a.weight, b.value - a.value, layer, i});
      }
    }
    std::stable_sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.slope() < b.slope(); });
    return edges;
  }

  Relaxation relaxation(size_t first_layer) const {
    double weight = 0, value = 0;
    for (size_t layer = first_layer; layer < layers_.size(); ++layer) {
      weight += layers_[layer].front().weight;
      value += layers_[layer].front().value;
    }
    return {weight, value, edges_from(first_layer), weight_slack_};
  }

  /// The choices of the hulls at these places, as indices into the caller's choices.
  std::vector<int64_t> on_hulls(const std::vector<size_t>& places) const {
    std::vector<int64_t> choice;
    for (size_t layer = 0; layer < places.size(); ++layer) {
      choice.push_back(hulls_[layer][places[layer]].index);
    }
    return choice;
  }

  /// Empty if not even the lightest choices fit.
  std::optional<std::vector<int64_t>> greedy() const {
    auto places = lightest();
    if (sum_of(places).weight > limit_) {
      return std::nullopt;
    }
    std::vector<bool> stopped(layers_.size(), false);
    for (const Edge& edge : edges_from(0)) {
      if (stopped[edge.layer]) {
        continue;
      }
      const size_t before = places[edge.layer];
      places[edge.layer] = edge.to;
      if (sum_of(places).weight > limit_) {
        places[edge.layer] = before;
        stopped[edge.layer] = true;
      }
    }
    return on_hulls(places);
  }

  /// Empty if nothing fits.
  std::optional<std::vector<int64_t>> exact() const {
    const auto start = greedy();
    const double known = start ? value_of(*start) : kUnreachable;
    std::vector<std::vector<Sum>> sums{{Sum{0, 0, 0, 0}}};
    size_t total = 1;
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      sums.push_back(extended(sums.back(), layers_[layer], relaxation(layer + 1), known));
      total += sums.back().size();
      TORCH_CHECK_VALUE(total <= kMostSums, kAllocate, ": more than ", kMostSums,
                        " partial sums are needed; choose the greedy search, whose `bound` says how far it may be off");
    }
    auto& last = sums.back();
    while (!last.empty() && last.back().weight > limit_) {
      last.pop_back();  // reachable but for rounding
    }
    if (last.empty()) {
      return std::nullopt;
    }
    return traced_back(sums, last.size() - 1);
  }

 private:
  Sum sum_of(const std::vector<size_t>& places) const {
    Sum sum{0, 0, 0, 0};
    for (size_t layer = 0; layer < places.size(); ++layer) {
      sum.weight += hulls_[layer][places[layer]].weight;
      sum.value += hulls_[layer][places[layer]].value;
    }
    return sum;
  }

  double value_of(const std::vector<int64_t>& choice) const {
    double value = 0;
    for (size_t layer = 0; layer < choice.size(); ++layer) {
      const auto& items = layers_[layer];
      value += std::find_if(items.begin(), items.end(), [&](const Item& i) { return i.index == choice[layer]; })->value;
    }
    return value;
  }

  /// All sums with one layer more that no other beats and that may still beat `known`; weights rise, values fall.
  std::vector<Sum> extended(const std::vector<Sum>& sums, const Layer& items, const Relaxation& rest,
                            double known) const {
    std::vector<Sum> all;
    for (uint32_t before = 0; before < sums.size(); ++before) {
      for (uint32_t item = 0; item < items.size(); ++item) {
        const double weight = sums[before].weight + items[item].weight;
        const double value = sums[before].value + items[item].value;
        const double reach = value + rest.least_value(limit_ - weight);
        if (reach < kUnreachable && reach - value_slack_ <= known) {
          all.push_back({weight, value, before, item});
        }
      }
      TORCH_CHECK_VALUE(all.size() <= kMostSums, kAllocate, ": more than ", kMostSums,
                        " partial sums are needed; choose the greedy search, whose `bound` says how far it may be off");
    }
    std::stable_sort(all.begin(), all.end(), [](const Sum& a, const Sum& b) {
      return a.weight != b.weight ? a.weight < b.weight : a.value < b.value;
    });
    std::vector<Sum> kept;
    for (const Sum& sum : all) {
      if (kept.empty() || sum.value < kept.back().value) {
        kept.push_back(sum);
      }
    }
    return kept;
  }

  std::vector<int64_t> traced_back(const std::vector<std::vector<Sum>>& sums, size_t index) const {
    std::vector<int64_t> choice(layers_.size());
    for (size_t layer = layers_.size(); layer-- > 0;) {
      const Sum& sum = sums[layer + 1][index];
      choice[layer] = layers_[layer][sum.item].index;
      index = sum.before;
    }
    return choice;
  }

  std::vector<Layer> layers_;
  std::vector<Layer> hulls_;
  double limit_;
  double weight_slack_ = 0;
  double value_slack_ = 0;
};

void check_choices(const std::vector<LayerChoices>& layers) {
  TORCH_CHECK_VALUE(!layers.empty(), kAllocate, ": expected one layer or more, got none");
  double most = 0;
  for (const auto& [layer, choices] : layers) {
    TORCH_CHECK_VALUE(!choices.empty(), kAllocate, ": layer `", layer, "` has no choice");
    double layer_most = 0;
    for (const BitChoice& choice : choices) {
      TORCH_CHECK_VALUE(choice.cost >= 0, kAllocate, ": layer `", layer, "`: cost must be >= 0, got ", choice.cost);
      TORCH_CHECK_VALUE(std::isfinite(choice.damage), kAllocate, ": layer `", layer, "`: damage must be finite, got ",
                        choice.damage);
      layer_most = std::max(layer_most, static_cast<double>(choice.cost));
    }
    most += layer_most;
  }
  TORCH_CHECK_VALUE(most < kMostCost, kAllocate, ": the costs' sum must be below 2^53, got ", most,
                    "; count in larger units");
}

std::vector<Layer> items_of(const std::vector<LayerChoices>& layers, bool cost_is_limited) {
  std::vector<Layer> result;
  for (const auto& layer : layers) {
    Layer items;
    for (size_t i = 0; i < layer.choices.size(); ++i) {
      const double cost = static_cast<double>(layer.choices[i].cost);
      const double damage = layer.choices[i].damage;
      items.push_back({cost_is_limited ? cost : damage, cost_is_limited ? damage : cost, static_cast<int64_t>(i)});
    }
    result.push_back(std::move(items));
  }
  return result;
}

BitAllocation allocation_of(const std::vector<LayerChoices>& layers, std::vector<int64_t> choice, double bound) {
  BitAllocation result;
  for (size_t i = 0; i < layers.size(); ++i) {
    const BitChoice& taken = layers[i].choices[choice[i]];
    result.cost += taken.cost;
    result.damage += taken.damage;
  }
  result.choice = std::move(choice);
  result.bound = bound;
  return result;
}

std::optional<BitAllocation> solved(const std::vector<LayerChoices>& layers, bool cost_is_limited, double limit,
                                    BitSearch search) {
  const Knapsack knapsack(items_of(layers, cost_is_limited), limit);
  auto choice = search == BitSearch::kExact ? knapsack.exact() : knapsack.greedy();
  if (!choice) {
    return std::nullopt;
  }
  return allocation_of(layers, std::move(*choice), knapsack.relaxation(0).least_value(limit));
}

}  // namespace

BitAllocation allocate_bits(const std::vector<LayerChoices>& layers, int64_t budget, BitSearch search) {
  check_choices(layers);
  const auto result = solved(layers, /*cost_is_limited=*/true, static_cast<double>(budget), search);
  if (!result) {
    const Knapsack any(items_of(layers, true), kUnreachable);
    const auto least = allocation_of(layers, any.on_hulls(any.lightest()), 0);
    TORCH_CHECK_VALUE(false, kAllocate, ": a budget of ", budget, " is too small: the cheapest choices cost ",
                      least.cost);
  }
  return *result;
}

BitAllocation allocate_bits_within(const std::vector<LayerChoices>& layers, double most_damage, BitSearch search) {
  check_choices(layers);
  TORCH_CHECK_VALUE(!std::isnan(most_damage), kAllocate, ": most_damage must be a number, got NaN");
  const auto result = solved(layers, /*cost_is_limited=*/false, most_damage, search);
  if (!result) {
    const Knapsack any(items_of(layers, false), kUnreachable);
    const auto least = allocation_of(layers, any.on_hulls(any.lightest()), 0);
    TORCH_CHECK_VALUE(false, kAllocate, ": a damage of at most ", most_damage,
                      " cannot be had: the best choices come to ", least.damage);
  }
  return *result;
}

std::vector<BitAllocation> pareto_front(const std::vector<LayerChoices>& layers) {
  check_choices(layers);
  const Knapsack knapsack(items_of(layers, /*cost_is_limited=*/true), kUnreachable);
  auto places = knapsack.lightest();
  std::vector<BitAllocation> front;
  const auto add = [&] {
    front.push_back(allocation_of(layers, knapsack.on_hulls(places), 0));
    front.back().bound = front.back().damage;
  };
  add();
  for (const Edge& edge : knapsack.edges_from(0)) {
    places[edge.layer] = edge.to;
    add();
  }
  return front;
}

}  // namespace torchslim::quant
