// SPDX-License-Identifier: BSD-3-Clause
#include "quant/quantization_config.h"

#include <ATen/ops/empty.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/learned_activation.h>
#include <torchslim/quant/weight_quantizer.h>

#include <cstring>
#include <map>

namespace torchslim::quant::detail {
namespace {

using Config = std::map<std::string, std::string>;

const std::string kInt8 = "fake_quantize [-128, 127]";
const std::string kInt8Layer = "weight fake_quantize 8, activation " + kInt8;

std::string grid_text(const std::string& kind, int64_t quant_min, int64_t quant_max) {
  return kind + " [" + std::to_string(quant_min) + ", " + std::to_string(quant_max) + "]";
}

/// What `module` rounds activations to; empty if it is no quantiser of activations.
std::string activation_text(const torch::nn::Module& module) {
  if (const auto* quantizer = module.as<FakeQuantizeImpl>()) {
    return grid_text(quantizer->options.symmetric() ? "fake_quantize symmetric" : "fake_quantize",
                     quantizer->quant_min(), quantizer->quant_max());
  }
  if (const auto* learned = module.as<LearnedActivationImpl>()) {
    return grid_text(learned->options.quantizer(), learned->quant_min(), learned->quant_max());
  }
  return "";
}

std::string weight_text(const WeightQuantizerOptions& options) {
  return options.quantizer() + (options.scale_search() == "absmax" ? " " : " " + options.scale_search() + " ") +
         std::to_string(options.width());
}

Config config_of(const torch::nn::Module& module, const std::vector<std::string>& float_layers) {
  constexpr const char* kOutput = "output_fake_quantize";
  Config config;
  for (const std::string& name : float_layers) {
    config[name] = "float";
  }
  const auto modules = module.named_modules("", /*include_self=*/false);
  for (const auto& item : modules) {
    const std::string activation = activation_text(*item.value());
    if (activation.empty()) {
      continue;
    }
    const std::string& name = item.key();
    if (!name.ends_with(kOutput)) {
      config[name] = activation;
      continue;
    }
    const std::string prefix = name.substr(0, name.size() - std::strlen(kOutput));
    const auto* weight = modules.find(prefix + "weight_fake_quantize");
    const auto* rule = weight == nullptr ? nullptr : (*weight)->as<WeightQuantizerImpl>();
    const WeightQuantizerOptions options = rule == nullptr ? WeightQuantizerOptions() : rule->options;
    config[prefix.empty() ? prefix : prefix.substr(0, prefix.size() - 1)] =
        "weight " + weight_text(options) + ", activation " + activation;
  }
  return config;
}

/// Reads the text that `quantization_config` writes.
Config parse(const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.to(at::kCPU, at::kByte).contiguous();
  const std::string text(reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()), bytes.numel());
  Config config;
  std::vector<std::string> quoted;
  for (size_t begin = text.find('"'); begin != std::string::npos; begin = text.find('"', begin)) {
    const size_t end = text.find('"', begin + 1);
    if (end == std::string::npos) {
      break;
    }
    quoted.push_back(text.substr(begin + 1, end - begin - 1));
    begin = end + 1;
  }
  for (size_t i = 0; i + 1 < quoted.size(); i += 2) {
    config[quoted[i]] = quoted[i + 1];
  }
  return config;
}

}  // namespace

at::Tensor quantization_config(const torch::nn::Module& module, const std::vector<std::string>& float_layers) {
  std::string text;
  bool is_int8 = true;
  for (const auto& [name, value] : config_of(module, float_layers)) {
    is_int8 = is_int8 && (value == kInt8 || value == kInt8Layer);
    text += (text.empty() ? "{\"" : ", \"") + name + "\": \"" + value + "\"";
  }
  if (is_int8) {
    return {};
  }
  text += "}";
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr<uint8_t>(), text.data(), text.size());
  return bytes;
}

std::string config_difference(const at::Tensor& model, const at::Tensor& file) {
  const Config ours = parse(model);
  const Config theirs = parse(file);
  for (const auto& [name, value] : ours) {
    const auto found = theirs.find(name);
    if (found == theirs.end() || found->second != value) {
      return "`" + name + "` was trained with another config: the file has `" +
             (found == theirs.end() ? "nothing" : found->second) + "`, the model `" + value +
             "`; prepare the model with the config of the file";
    }
  }
  return ours.size() == theirs.size() ? "" : "the file was trained with another config: it quantises more layers";
}

}  // namespace torchslim::quant::detail
