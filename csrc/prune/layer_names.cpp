// SPDX-License-Identifier: BSD-3-Clause
#include "prune/layer_names.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

namespace torchslim::prune::detail {
namespace {

bool lies_under(const std::string& layer, const std::string& name) {
  return layer == name || (layer.size() > name.size() && layer.compare(0, name.size(), name) == 0 &&
                           (name.empty() || layer[name.size()] == '.'));
}

bool matches_any(const std::string& layer, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const auto& name) { return lies_under(layer, name); });
}

// Levenshtein's distance, by rows of his table.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

// Layers and the modules they lie under, nearest first.
std::string nearest(const std::string& name, const std::vector<std::string>& layers) {
  std::set<std::string> candidates;
  for (const auto& layer : layers) {
    for (auto end = layer.size(); end != std::string::npos; end = end == 0 ? end - 1 : layer.rfind('.', end - 1)) {
      candidates.insert(layer.substr(0, end));
    }
  }
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const auto& candidate : candidates) {
    ranked.emplace_back(edit_distance(name, candidate), candidate);
  }
  std::sort(ranked.begin(), ranked.end());
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(ranked.size(), 3); ++i) {
    text += (i == 0 ? "`" : ", `") + ranked[i].second + "`";
  }
  return text;
}

void check_names(const std::string& call, const char* argument, const std::vector<std::string>& names,
                 const std::vector<std::string>& layers) {
  for (const auto& name : names) {
    TORCH_CHECK_VALUE(
        std::any_of(layers.begin(), layers.end(), [&](const auto& layer) { return lies_under(layer, name); }),
        "torchslim::", call, ": ", argument, ": no layer that can be pruned is called `", name,
        "` or lies under it; nearest: ", nearest(name, layers));
  }
}

}  // namespace

std::vector<std::string> select_layers(const std::string& call, const std::vector<std::string>& layers,
                                       const std::vector<std::string>& names, const std::vector<std::string>& exclude) {
  check_names(call, "names", names, layers);
  check_names(call, "exclude", exclude, layers);
  std::vector<std::string> selected;
  for (const auto& layer : layers) {
    if ((names.empty() || matches_any(layer, names)) && !matches_any(layer, exclude)) {
      selected.push_back(layer);
    }
  }
  TORCH_CHECK_VALUE(!selected.empty(), "torchslim::", call, ": no layer is left to prune among ", layers.size(),
                    " that can be; check names and exclude");
  return selected;
}

}  // namespace torchslim::prune::detail
