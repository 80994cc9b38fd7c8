// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/api/include/torch/arg.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>

#include <functional>
#include <utility>

namespace torch::jit {
struct Module;
}
namespace torch::nn {
class Module;
}

namespace torchslim::graph {

/// Options of `capture`.
struct TORCHSLIM_API CaptureOptions {
  /// Whether dropouts stay in the graph, as `aten::dropout` and the like, for who trains it. Off: they disappear.
  TORCH_ARG(bool, keep_dropout) = false;
};

/// Returns what `traced` computes as a graph of known operations. Its tensors are the module's own, not copies.
///   traced   a TorchScript module from a trace in eval mode (in Python: `torch.jit.trace(model.eval(), x)._c`);
///            one tensor in, one tensor out
///   example  the batch it was traced with, float32 (N, ...); the graph holds for its shape apart from N
/// Throws c10::ValueError or c10::TypeError, naming operation, layer, source line and remedy, for an operation
/// outside OpKind, control flow, training mode, a batch size written into the trace, or a parameter that is
/// not float32 or not finite.
TORCHSLIM_API Graph capture(const torch::jit::Module& traced, const at::Tensor& example,
                            const CaptureOptions& options = {});

/// The same for a C++ module: runs `forward` on `example` under a trace, in eval mode and without gradients.
/// The training flags of `module` are put back; parameters, requires_grad and statistics are not touched.
///   forward  what to trace; uses `module`, whose parameters and buffers give the names
/// `x.view({x.size(0), -1})` is accepted here: a second trace with a larger batch shows that it follows the batch.
TORCHSLIM_API Graph capture(torch::nn::Module& module, const std::function<at::Tensor(at::Tensor)>& forward,
                            const at::Tensor& example, const CaptureOptions& options = {});

/// The same for a module holder or pointer (`models::MobileNetV2`, `torch::nn::Sequential`, std::shared_ptr<MyNet>).
template <typename Model>
auto capture(Model& model, const at::Tensor& example,
             const CaptureOptions& options = {}) -> decltype(at::Tensor(model->forward(example)), Graph()) {
  return capture(
      *model, [&model](at::Tensor x) -> at::Tensor { return model->forward(std::move(x)); }, example, options);
}

}  // namespace torchslim::graph
