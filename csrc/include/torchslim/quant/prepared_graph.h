// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torchslim/api.h>
#include <torchslim/graph/capture.h>
#include <torchslim/quant/layers.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace torchslim::quant {

/// A captured network that trains on int8 grids: what `prepare(model, example_inputs)` returns. It runs the operations of the
/// graph one after the other, with quantisers where `graph::operation_rules` put them. Parameters and buffers are the very
/// tensors of the captured module, under their names there; quantisers have the names that Python's `prepare` gives them.
class TORCHSLIM_API PreparedGraphImpl : public torch::nn::Module {
 public:
  /// Takes what `graph` holds over; `module` is where its tensors are from.
  PreparedGraphImpl(const graph::Graph& graph, torch::nn::Module& module, const PrepareOptions& options);
  ~PreparedGraphImpl() override;

  /// Returns the network's result for `x` (N, ...) of the captured shape but for N.
  at::Tensor forward(const at::Tensor& x);

  /// Returns the names of layers with a weight, or without an integer form, that stay in float.
  const std::vector<std::string>& float_layers() const { return float_layers_; }

  /// Switches training and eval; frozen batch norms stay in eval.
  void train(bool on = true) override;

  /// See `quant::freeze_batch_norm`.
  void freeze_batch_norm(bool frozen);
  bool has_batch_norm() const;

  void pretty_print(std::ostream& stream) const override;

 private:
  struct Step;
  class Builder;

  std::vector<std::unique_ptr<Step>> steps_;  // one for each node of the graph
  std::vector<std::string> float_layers_;
  bool batch_norm_frozen_ = false;
};
TORCH_MODULE(PreparedGraph);

/// Returns `module` as a network that trains in int8: captures it, and puts quantisers in. `module` itself stays as it is, but
/// shares its parameters and statistics with the result: build the optimiser from either.
///   forward         what to capture; uses `module`, whose parameters and buffers give the names
///   example_inputs  an input batch, float32 (N, ...); its values do not matter
///   options         what to quantise with; layers are named by their dotted name, operations without a weight by that of
///                   their quantiser (`add_fake_quantize`)
/// Operations without an integer form stay in float and are listed by `float_layers`. A trace of a C++ module does not say which
/// module called a function, so quantisers of sums, products and activations are children of the result itself.
/// Throws c10::ValueError or c10::TypeError as `graph::capture` and `prepare` of drop-in layers do.
TORCHSLIM_API PreparedGraph prepare(torch::nn::Module& module, const std::function<at::Tensor(at::Tensor)>& forward,
                                    const at::Tensor& example_inputs, const PrepareOptions& options = {});

/// The same for a module holder or pointer (`models::MobileNetV2`, `torch::nn::Sequential`, std::shared_ptr<MyNet>).
template <typename Model>
auto prepare(Model& model, const at::Tensor& example_inputs,
             const PrepareOptions& options = {}) -> decltype(at::Tensor(model->forward(example_inputs)),
                                                             PreparedGraph(nullptr)) {
  return prepare(
      *model, [&model](at::Tensor x) -> at::Tensor { return model->forward(std::move(x)); }, example_inputs, options);
}

}  // namespace torchslim::quant
