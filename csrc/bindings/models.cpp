// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/models/tensor_file.h>
#include <torchslim/models/weights.h>

#include "bindings/bindings.h"

namespace torchslim::bindings {
namespace {

/// An ordered Python dict, as it comes and goes.
using Items = std::vector<std::pair<std::string, at::Tensor>>;

models::TensorDict to_dict(const Items& items) {
  models::TensorDict dict;
  for (const auto& [name, tensor] : items) {
    dict.insert(name, tensor);
  }
  return dict;
}

}  // namespace

void init_models(pybind11::module_& m) {
  pybind11::module_ models = m.def_submodule("models");
  models.def(
      "save_tensors",
      [](const std::string& path, const Items& items, const std::map<std::string, std::string>& metadata) {
        models::save_tensors(path, to_dict(items), metadata);
      },
      pybind11::call_guard<pybind11::gil_scoped_release>());
  models.def(
      "load_tensors",
      [](const std::string& path) {
        const models::TensorFile file = models::load_tensors(path);
        Items items;
        for (const auto& item : file.tensors) {
          items.emplace_back(item.key(), item.value());
        }
        return std::make_pair(items, file.metadata);
      },
      pybind11::call_guard<pybind11::gil_scoped_release>());
  models.def(
      "load_weights",
      [](const Items& destination, const std::string& path) { models::load_weights(to_dict(destination), path); },
      pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace torchslim::bindings
