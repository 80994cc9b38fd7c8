// SPDX-License-Identifier: BSD-3-Clause
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torchslim/models/weights.h>

#include <sstream>

#include "quant/quantization_config.h"

namespace torchslim::models {
namespace {

constexpr size_t kNamesShown = 5;

std::string describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.scalar_type() << ' ' << tensor.sizes();
  return text.str();
}

/// What differs between a module and a file, for one message.
class Differences {
 public:
  void add(const std::string& difference) {
    if (count_++ < kNamesShown) {
      text_ += (text_.empty() ? "" : "; ") + difference;
    }
  }
  bool empty() const { return count_ == 0; }
  std::string text() const {
    return count_ <= kNamesShown ? text_ : text_ + "; and " + std::to_string(count_ - kNamesShown) + " more";
  }

 private:
  size_t count_ = 0;
  std::string text_;
};

Differences compare(const TensorDict& destination, const TensorDict& source) {
  Differences differences;
  for (const auto& item : destination) {
    const at::Tensor* found = source.find(item.key());
    const at::Tensor& expected = item.value();
    if (found != nullptr && item.key() == quant::detail::kQuantizationConfig) {
      const std::string difference = quant::detail::config_difference(expected, *found);
      if (!difference.empty()) {
        differences.add(difference);
      }
      continue;
    }
    if (found == nullptr) {
      differences.add("the file lacks `" + item.key() + "`");
    } else if (found->sizes() != expected.sizes() || found->scalar_type() != expected.scalar_type()) {
      differences.add("`" + item.key() + "` is " + describe(*found) + ", expected " + describe(expected));
    }
  }
  for (const auto& item : source) {
    if (destination.find(item.key()) == nullptr) {
      differences.add("the model lacks `" + item.key() + "`");
    }
  }
  return differences;
}

}  // namespace

TensorDict state_dict(const torch::nn::Module& module) {
  TensorDict state;
  for (const auto& item : module.named_parameters()) {
    state.insert(item.key(), item.value());
  }
  for (const auto& item : module.named_buffers()) {
    state.insert(item.key(), item.value());
  }
  return state;
}

void save_weights(const torch::nn::Module& module, const std::string& path) { save_tensors(path, state_dict(module)); }

void load_weights(torch::nn::Module& module, const std::string& path) { load_weights(state_dict(module), path); }

void load_weights(const TensorDict& destination, const std::string& path) {
  const TensorFile file = load_tensors(path);
  const Differences differences = compare(destination, file.tensors);
  TORCH_CHECK_VALUE(differences.empty(), "torchslim::load_weights: `", path,
                    "` does not fit the model: ", differences.text());
  const c10::AutoGradMode no_grad(false);
  for (const auto& item : destination) {
    at::Tensor target = item.value();
    target.copy_(file.tensors[item.key()]);
  }
}

}  // namespace torchslim::models
