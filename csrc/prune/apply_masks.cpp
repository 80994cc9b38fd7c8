// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torchslim/prune/apply_masks.h>

#include <cstdint>

#include "prune/magnitude_kernel.h"

namespace torchslim::prune {
namespace {

void check_masks(at::TensorList tensors, at::TensorList masks) {
  TORCH_CHECK_VALUE(tensors.size() == masks.size(), "torchslim::apply_masks_: expected one mask a tensor, got ",
                    masks.size(), " masks for ", tensors.size(), " tensors");
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK_TYPE(masks[i].scalar_type() == at::kBool, "torchslim::apply_masks_: masks[", i, "] must be bool, got ",
                     c10::toString(masks[i].scalar_type()));
    TORCH_CHECK_VALUE(tensors[i].sizes() == masks[i].sizes(), "torchslim::apply_masks_: masks[", i,
                      "] must have the shape of its tensor ", tensors[i].sizes(), ", got ", masks[i].sizes());
  }
}

// The kernel walks both memories in step.
bool has_kernel(const at::Tensor& tensor, const at::Tensor& mask) {
  const auto size = tensor.element_size();
  return tensor.is_cpu() && mask.is_cpu() && tensor.layout() == at::kStrided && tensor.is_non_overlapping_and_dense() &&
         tensor.strides() == mask.strides() && (size == 2 || size == 4 || size == 8) && !tensor.is_neg();
}

void zero_range(void* data, size_t element_size, const bool* keep, int64_t begin, int64_t end) {
  switch (element_size) {
    case 2:
      TORCHSLIM_CALL_KERNEL(zero_pruned, static_cast<uint16_t*>(data) + begin, keep + begin, end - begin);
      break;
    case 4:
      TORCHSLIM_CALL_KERNEL(zero_pruned, static_cast<uint32_t*>(data) + begin, keep + begin, end - begin);
      break;
    default:
      TORCHSLIM_CALL_KERNEL(zero_pruned, static_cast<uint64_t*>(data) + begin, keep + begin, end - begin);
  }
}

void apply_mask(const at::Tensor& tensor, const at::Tensor& mask) {
  if (!has_kernel(tensor, mask)) {
    tensor.masked_fill_(mask.logical_not(), 0);
    return;
  }
  void* data = tensor.mutable_data_ptr();
  const bool* keep = mask.const_data_ptr<bool>();
  const auto element_size = tensor.element_size();
  constexpr int64_t kGrain = int64_t{1} << 17;
  at::parallel_for(0, tensor.numel(), kGrain,
                   [&](int64_t begin, int64_t end) { zero_range(data, element_size, keep, begin, end); });
  tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

void apply_masks_(at::TensorList tensors, at::TensorList masks) {
  check_masks(tensors, masks);
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < tensors.size(); ++i) {
    apply_mask(tensors[i], masks[i]);
  }
}

}  // namespace torchslim::prune
