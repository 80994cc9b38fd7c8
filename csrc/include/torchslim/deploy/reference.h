// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ATen/core/Tensor.h>
#include <torchslim/api.h>
#include <torchslim/deploy/integer_graph.h>

namespace torchslim::deploy {

/// How the runtime rounds the input image to codes; all else is the same in every runtime that was compared. The two
/// differ by one step, at exact ties when the zero point is odd and rarely by float rounding; never if the zero point
/// is -128 (0 in uint8).
enum class InputRule {
  kTorch213,      // rint(x / scale + zero_point), the sum in one fused step: x86-64 with AVX2, torch 2.13
  kRoundThenAdd,  // rint(x / scale) + zero_point: torch 1.13.1 on x86-64, torch 2.1.0 on AArch64
};

/// What the integer reference computes.
struct TORCHSLIM_API IntegerResult {
  at::Tensor codes;   // int8 (N, ...); undefined where the network ends in floats
  at::Tensor values;  // float32, same shape: scale * (codes - zero_point)
};

/// Runs `graph` on a batch with plain int32 loops, as QNNPACK does to the last bit (x86-64 and AArch64): sums in int32,
/// requantised by rint(float(sum) * multiplier), adds in fixed point. No quantised operator of LibTorch is used.
///   images  float32 (N, C, H, W) with the example's C, H and W; finite
/// Images are shared among threads; each is computed by one thread, so the result does not depend on how many there are.
/// Throws c10::ValueError if the shape differs or an image holds NaN or infinity, c10::TypeError if it is not float32.
TORCHSLIM_API IntegerResult run_integer(const IntegerGraph& graph, const at::Tensor& images,
                                        InputRule rule = InputRule::kTorch213);

/// Returns the codes of every node of `graph`, or its floats, in order; for finding where two runs part.
TORCHSLIM_API std::vector<at::Tensor> run_integer_nodes(const IntegerGraph& graph, const at::Tensor& images,
                                                        InputRule rule = InputRule::kTorch213);

}  // namespace torchslim::deploy
