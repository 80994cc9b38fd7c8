// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torch/nn/module.h>
#include <torchslim/api.h>
#include <torchslim/models/tensor_file.h>

#include <string>

namespace torchslim::models {

/// Returns the parameters and buffers of `module` under Python's state_dict names; they share its
/// memory.
TORCHSLIM_API TensorDict state_dict(const torch::nn::Module& module);

/// Writes the parameters and buffers of `module` to a `.safetensors` file (tensor_file.h), as
/// Python's `torchslim.models.save_weights` does. Throws core::FileError if the file cannot be
/// written.
TORCHSLIM_API void save_weights(const torch::nn::Module& module, const std::string& path);

/// Reads what `save_weights` of either language wrote into `module`. The file must hold exactly the
/// module's names, with its shapes and types; nothing changes unless all agree. Throws
/// c10::ValueError that lists the names that differ, and what load_tensors throws.
TORCHSLIM_API void load_weights(torch::nn::Module& module, const std::string& path);

/// The same for tensors in a dictionary: overwrites each with the file's tensor of its name.
TORCHSLIM_API void load_weights(const TensorDict& destination, const std::string& path);

}  // namespace torchslim::models
