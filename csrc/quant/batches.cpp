// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/quant/batches.h>

namespace torchslim::quant {

Batches::Batches(std::vector<at::Tensor> batches) : count_(static_cast<int64_t>(batches.size())) {
  for_each_ = [batches = std::move(batches)](const Use& use) {
    for (const at::Tensor& batch : batches) {
      use(batch);
    }
  };
}

void Batches::for_each(const char* who, const Use& use, const Progress& progress) const {
  int64_t done = 0;
  for_each_([&](const at::Tensor& batch) {
    TORCH_CHECK_VALUE(batch.defined() && batch.numel() > 0, who, ": batch ", done, " is empty");
    TORCH_CHECK_VALUE(batch.isfinite().all().item<bool>(), who, ": batch ", done,
                      " holds NaN or infinity; look at how it was read and normalised");
    use(batch);
    ++done;
    if (progress) {
      progress(done, count_);
    }
  });
  TORCH_CHECK_VALUE(done > 0, who, ": there is no batch; pass at least one");
}

}  // namespace torchslim::quant
