// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/models/mobilenet_v1.h>
#include <torchslim/models/mobilenet_v2.h>
#include <torchslim/models/resnet.h>
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

/// A C++ network as Python sees it: what holds the two languages together in tests. Its tensors are shared, so that
/// weights and gradients can be compared and set.
class Network {
 public:
  template <typename Model>
  explicit Network(Model model)
      : module_(model.ptr()), forward_([model](const at::Tensor& images) mutable { return model->forward(images); }) {}

  at::Tensor forward(const at::Tensor& images) { return forward_(images); }
  void train(bool on) { module_->train(on); }
  void prepare() { quant::prepare(*module_); }
  Items state() const {
    Items items;
    for (const auto& item : models::state_dict(*module_)) {
      items.emplace_back(item.key(), item.value());
    }
    return items;
  }

 private:
  std::shared_ptr<torch::nn::Module> module_;
  std::function<at::Tensor(const at::Tensor&)> forward_;
};

Network make_mobilenet_v1(int64_t num_classes, double width, int64_t in_channels, std::vector<int64_t> channels,
                          std::vector<int64_t> strides) {
  const auto options = models::MobileNetV1Options().num_classes(num_classes).width(width).in_channels(in_channels);
  return Network(models::MobileNetV1(models::MobileNetV1Options(options).channels(channels).strides(strides)));
}

Network make_mobilenet_v2(int64_t num_classes, double width, int64_t in_channels, int64_t input_size,
                          int64_t last_channels) {
  const auto options = models::MobileNetV2Options().num_classes(num_classes).width(width).in_channels(in_channels);
  return Network(
      models::MobileNetV2(models::MobileNetV2Options(options).input_size(input_size).last_channels(last_channels)));
}

Network make_resnet(int64_t num_classes, int64_t depth, int64_t in_channels, std::vector<int64_t> channels,
                    std::optional<int64_t> stem_channels, int64_t stem_kernel, int64_t stem_stride, bool pool) {
  auto options = models::ResNetOptions().num_classes(num_classes).depth(depth).in_channels(in_channels);
  options.channels(channels).stem_channels(stem_channels).stem_kernel(stem_kernel).stem_stride(stem_stride);
  options.downsample(pool ? models::Downsample::kPool : models::Downsample::kStride);
  return Network(models::ResNet(options));
}

void init_networks(pybind11::module_& models) {
  pybind11::class_<Network>(models, "Network")
      .def("forward", &Network::forward, pybind11::call_guard<pybind11::gil_scoped_release>())
      .def("train", &Network::train)
      .def("prepare", &Network::prepare)
      .def("state", &Network::state);
  models.def("mobilenet_v1", &make_mobilenet_v1);
  models.def("mobilenet_v2", &make_mobilenet_v2);
  models.def("resnet", &make_resnet);
}

}  // namespace

void init_models(pybind11::module_& m) {
  pybind11::module_ models = m.def_submodule("models");
  init_networks(models);
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
