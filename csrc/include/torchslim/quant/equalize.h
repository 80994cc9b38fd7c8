// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/graph/graph.h>
#include <torchslim/quant/batches.h>

#include <string>
#include <vector>

namespace torchslim::quant {

/// Two layers between which the ranges of channels were moved, or the reason why not.
struct TORCHSLIM_API EqualizedPair {
  std::string first;   // dotted name of the layer whose output channels were divided by `scale`
  std::string second;  // of the one whose input channels were multiplied; empty if none follows
  at::Tensor scale;    // float32 (C); undefined if the pair was refused
  std::string reason;  // why it was refused; empty if it was not
};

/// Makes the weights of each channel equally large in two layers that follow each other, without a change of what a float
/// network computes: between two convolutions or linear layers W1, W2, with nothing that other layers read and only batch norm,
/// ReLU, pools and flatten in between,
///   s_i = √(r1_i · r2_i) / r2_i,   W1 row i / s_i,   bias i / s_i,   W2 column i · s_i
/// where r1_i is the largest |w| of the i-th output channel of W1 and r2_i that of the i-th input channel of W2, with batch
/// norms in them. Where a batch norm stands behind the first layer, its gamma and beta are divided instead. Pairs are gone
/// through until nothing moves, so that convolution, depthwise convolution and convolution all get the same ranges.
///   graph  of a float network; its tensors, which are the module's own, are changed
/// Returns the pairs in the order of the network; a layer whose result goes elsewhere is listed with the reason.
/// Throws c10::ValueError, with nothing changed, for a graph with fake-quantised values: equalise before `prepare`.
/// Nagel et al. 2019, arXiv:1906.04721, eq. 9-12.
TORCHSLIM_API std::vector<EqualizedPair> equalize(const graph::Graph& graph);

/// The same for a module.
///   model          a float one
///   example        a batch of its inputs
///   replace_relu6  makes every ReLU6 of the layers of `quant/layers.h` a ReLU first: a ReLU6 does not commute with factors.
///                  That changes what the network computes where it reached 6.
TORCHSLIM_API std::vector<EqualizedPair> equalize(const RunnableModule& model, const at::Tensor& example,
                                                  bool replace_relu6 = false);

}  // namespace torchslim::quant
