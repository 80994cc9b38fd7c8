// SPDX-License-Identifier: BSD-3-Clause
#include "quant/layer_walk.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>

#include "quant/graph_layers.h"
#include "quant/without_rounding.h"

namespace torchslim::quant {
namespace {

struct Stop {};  // thrown when a forward has shown what was asked for

LayerGeometry geometry_of(const torch::nn::Conv2dOptions& conv) {
  const auto numbers = [](const torch::ExpandingArray<2>& pair) {
    return std::vector<int64_t>(pair->begin(), pair->end());
  };
  return LayerGeometry()
      .stride(numbers(conv.stride()))
      .padding(numbers(std::get<torch::ExpandingArray<2>>(conv.padding())))  // prepare allows no other
      .dilation(numbers(conv.dilation()))
      .groups(conv.groups());
}

WalkedLayer walked(torch::nn::Module& module) {
  WalkedLayer result{};
  if (auto* conv = module.as<ConvBnAct2dImpl>()) {
    result.layer = conv;
    result.weight = conv->conv->weight;
    result.bias = conv->conv->bias;
    result.geometry = geometry_of(conv->options.conv());
    if (!conv->bn.is_empty()) {
      const auto& norm = conv->bn;
      result.batch_norm = {norm->weight, norm->bias, norm->running_mean, norm->running_var, norm->options.eps()};
    }
  } else if (auto* linear = module.as<LinearImpl>()) {
    result.layer = linear;
    result.weight = linear->weight;
    result.bias = linear->bias;
  } else if (auto* layer = module.as<GraphLayerImpl>(); layer != nullptr && !layer->is_batch_norm()) {
    const graph::Window& window = layer->window();
    const bool is_image = layer->weight().dim() == 4;
    const auto numbers = [&](const std::array<int64_t, 2>& pair) {
      return std::vector<int64_t>(pair.begin() + (is_image ? 0 : 1), pair.end());
    };
    result.layer = layer;
    result.weight = layer->weight();
    result.bias = layer->bias();
    result.batch_norm = layer->batch_norm();
    result.transposed = layer->is_transposed();
    if (result.weight.dim() > 2) {
      result.geometry = LayerGeometry()
                            .stride(numbers(window.stride))
                            .padding(numbers(window.padding))
                            .dilation(numbers(window.dilation))
                            .groups(window.groups);
    }
  }
  return result;
}

// Parameters, and the statistics of batch norms, by name.
std::map<std::string, at::Tensor> float_tensors(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> found;
  for (const auto& item : module.named_parameters()) {
    found.emplace(item.key(), item.value());
  }
  for (const auto& item : module.named_buffers()) {
    if (item.key().ends_with("running_mean") || item.key().ends_with("running_var")) {
      found.emplace(item.key(), item.value());
    }
  }
  return found;
}

bool layer_has_grid(const QuantLayer& layer) {
  const LearnedActivation learned = layer.learned_activation();
  return learned.is_empty() ? layer.output_fake_quantize()->min_val.isfinite().all().item<bool>() : learned->has_grid();
}

std::string activation_of(const QuantLayer& layer) {
  const LearnedActivation learned = layer.learned_activation();
  return learned.is_empty() ? layer.output_fake_quantize()->options.activation() : learned->options.activation();
}

}  // namespace

at::Tensor WalkedLayer::factor() const {
  if (!batch_norm) {
    return at::ones({weight.size(0)});
  }
  const auto factor = at::rsqrt(batch_norm->var + batch_norm->eps);
  return batch_norm->gamma.defined() ? factor * batch_norm->gamma : factor;
}

at::Tensor WalkedLayer::folded_bias() const {
  auto result = bias.defined() ? bias.detach() : at::zeros({weight.size(0)});
  if (!batch_norm) {
    return result;
  }
  result = (result - batch_norm->mean) * factor();
  return batch_norm->beta.defined() ? result + batch_norm->beta : result;
}

// The module in float, as it was at first or as the reference is.
class LayerWalk::InFloat {
 public:
  explicit InFloat(const LayerWalk& walk) : walk_(walk), without_rounding_(walk.model_.module) {
    for (const auto& [tensor, value] : walk.floats_) {
      now_.push_back(tensor.variable_data());
      tensor.set_data(value);
    }
  }
  InFloat(const InFloat&) = delete;
  InFloat& operator=(const InFloat&) = delete;
  ~InFloat() {
    for (size_t i = 0; i < now_.size(); ++i) {
      walk_.floats_[i].first.set_data(now_[i]);
    }
  }

 private:
  const LayerWalk& walk_;
  detail::WithoutRounding without_rounding_;
  std::vector<at::Tensor> now_;
};

LayerWalk::LayerWalk(const char* who, const RunnableModule& model, const Batches& batches,
                     const torch::nn::Module* reference)
    : who_(who), model_(model), batches_(batches), no_grad_(), eval_(model.module) {
  bool holds_layers = false;
  std::vector<QuantLayer*> tapped;
  model.module.apply([&](torch::nn::Module& child) {
    const WalkedLayer found = walked(child);
    if (found.layer == nullptr) {
      return;
    }
    holds_layers = true;
    if (!found.layer->is_prepared()) {
      return;  // stays in float
    }
    TORCH_CHECK_VALUE(layer_has_grid(*found.layer), who, ": layer `", found.layer->layer_name_,
                      "` has seen no data; call quant::calibrate first");
    tapped.push_back(found.layer);
    found.layer->input_tap_ = [this, &child](const at::Tensor&) {
      WalkedLayer layer = walked(child);
      layer.name = layer.layer->layer_name_;
      layer.activation = activation_of(*layer.layer);
      const bool again = std::any_of(layers_.begin(), layers_.end(),
                                     [&](const WalkedLayer& other) { return other.layer == layer.layer; });
      TORCH_CHECK_VALUE(!again, who_, ": layer `", layer.name, "` is run twice; make two layers of it");
      layers_.push_back(std::move(layer));
    };
  });
  TORCH_CHECK_VALUE(holds_layers, who, ": the module holds none of the layers that prepare puts onto grids");
  TORCH_CHECK_VALUE(!tapped.empty(), who, ": the module is not prepared; call quant::prepare first");
  const auto untap = [&] {
    for (QuantLayer* layer : tapped) {
      layer->input_tap_ = nullptr;
    }
  };
  try {
    batches.for_each(who, [&](const at::Tensor& batch) {
      model.forward(batch);
      throw Stop();
    });
  } catch (const Stop&) {
    untap();
  } catch (...) {
    untap();
    throw;
  }
  for (const at::Tensor& parameter : model.module.parameters()) {
    first_.emplace_back(parameter, parameter.detach().clone());
  }
  if (reference == nullptr) {
    floats_ = first_;
  } else {
    take_floats_of(*reference);
  }
}

void LayerWalk::take_floats_of(const torch::nn::Module& reference) {
  const auto own = float_tensors(model_.module), given = float_tensors(reference);
  for (const auto& [name, tensor] : own) {
    if (name.find("fake_quantize.") != std::string::npos) {
      continue;  // of a quantiser that learns its grid: in float it does nothing
    }
    const auto found = given.find(name);
    TORCH_CHECK_VALUE(found != given.end() && found->second.sizes() == tensor.sizes(), who_, ": the reference has no `",
                      name, "` of shape ", tensor.sizes(), "; pass the network that was prepared, in float");
    const at::Tensor& value = found->second;
    TORCH_CHECK_VALUE(!value.is_alias_of(tensor), who_, ": the reference shares `", name,
                      "` with the module, so it is rounded too; pass a copy from before its weights were rounded");
    floats_.emplace_back(tensor, value.detach().to(tensor.options()));
  }
}

LayerWalk::~LayerWalk() {
  if (kept_) {
    return;
  }
  for (const auto& [parameter, value] : first_) {
    parameter.copy_(value);
  }
  for (const auto& [layer, grid] : grids_) {
    set_grid(*layer, grid);
  }
}

int64_t LayerWalk::bits_of(const WalkedLayer& layer, std::optional<int64_t> bits) {
  const WeightQuantizer& grid = layer.layer->weight_fake_quantize_;
  return bits.value_or(grid.is_empty() ? WeightQuantizerOptions().width() : grid->options.width());
}

void LayerWalk::check_bits(std::optional<int64_t> bits) const {
  for (const WalkedLayer& layer : layers_) {
    TORCH_CHECK_VALUE(
        !layer.transposed, who_, ": layer `", layer.name,
        "` is a transposed convolution, whose inputs are not gathered yet; leave it in float by the options "
        "of quant::prepare");
    TORCH_CHECK_VALUE(layer.layer->has_codes(), who_, ": the weight of layer `", layer.name,
                      "` has no grid of integers; give it another weight quantiser in quant::prepare");
    if (!bits) {
      TORCH_CHECK_VALUE(bits_of(layer) > 1, who_, ": layer `", layer.name,
                        "` was prepared for 1 bit, which leaves no choice; give it more in quant::prepare");
      continue;
    }
    const WeightQuantizer& grid = layer.layer->weight_fake_quantize_;
    const int64_t largest = grid.is_empty() ? WeightQuantizerOptions().largest_code() : grid->options.largest_code();
    TORCH_CHECK_VALUE(WeightGridOptions().bits(*bits).largest_code() <= largest, who_, ": layer `", layer.name,
                      "` was prepared for codes up to ", largest, ", which ", *bits,
                      " bits pass; ask for fewer bits, or prepare it with more");
  }
}

void LayerWalk::set_grid(QuantWeightLayer& layer, const WeightQuantizer& grid) {
  if (!layer.weight_fake_quantize_.is_empty()) {
    layer.weight_owner().unregister_module("weight_fake_quantize");
    layer.weight_fake_quantize_ = WeightQuantizer(nullptr);
  }
  if (!grid.is_empty()) {
    layer.set_weight_quantizer(grid);
  }
}

void LayerWalk::put_weight(const WalkedLayer& layer, const GridWeight& rounded) {
  const WeightQuantizer before = layer.layer->weight_fake_quantize_;
  // Another quantiser, so that this one can come back as it was.
  WeightQuantizer grid(before.is_empty() ? WeightQuantizerOptions() : before->options, layer.weight);
  grid->freeze(rounded.scale);
  grids_.emplace_back(layer.layer, before);
  set_grid(*layer.layer, grid);
  at::Tensor(layer.weight).copy_(rounded.weight);
}

LayerValues LayerWalk::values_of(const WalkedLayer& layer, const at::Tensor& batch) const {
  LayerValues values;
  QuantLayer& tapped = *layer.layer;
  tapped.input_tap_ = [&](const at::Tensor& x) { values.input = x; };
  tapped.output_tap_ = [&](const at::Tensor& y) {
    values.output = y;
    throw Stop();
  };
  const auto untap = [&] { tapped.input_tap_ = tapped.output_tap_ = nullptr; };
  try {
    model_.forward(batch);
  } catch (const Stop&) {
  } catch (...) {
    untap();
    throw;
  }
  untap();
  return values;
}

void LayerWalk::for_each_batch(const WalkedLayer& layer, const Use& use) const {
  batches_.for_each(who_, [&](const at::Tensor& batch) {
    const LayerValues rounded = values_of(layer, batch);
    LayerValues in_float;
    {
      const InFloat switched(*this);
      in_float = values_of(layer, batch);
    }
    use(rounded, in_float);
  });
}

}  // namespace torchslim::quant
