// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/models/resnet.h>

namespace torchslim::models {
namespace {

/// Solves `depth` for the number of blocks a stage, or says which depths there are.
int64_t blocks_per_stage(const ResNetOptions& options) {
  const auto stages = static_cast<int64_t>(options.channels().size());
  TORCH_CHECK_VALUE(stages > 0, "torchslim::models::ResNet: channels must hold at least one stage");
  const int64_t other_layers = 2 + (options.downsample() == Downsample::kPool ? stages : 0);
  const int64_t layers = options.depth() - other_layers;
  TORCH_CHECK_VALUE(layers > 0 && layers % (2 * stages) == 0, "torchslim::models::ResNet: ", stages,
                    " stages come in depths ", other_layers + 2 * stages, ", ", other_layers + 4 * stages, ", ",
                    other_layers + 6 * stages, ", ..., got ", options.depth());
  return layers / (2 * stages);
}

}  // namespace

ResNetImpl::ResNetImpl(ResNetOptions options) : options(std::move(options)) {
  reset();
  initialize(*this);
}

void ResNetImpl::reset() {
  const int64_t blocks_a_stage = blocks_per_stage(options);
  const auto& channels = options.channels();
  int64_t in_stage = scale_channels(options.stem_channels().value_or(channels[0]), options.width());
  input = register_module("input", quant::Input());
  stem = register_module("stem",
                         conv_bn_act(options.in_channels(), in_stage, options.stem_kernel(), options.stem_stride()));
  blocks = register_module("blocks", torch::nn::Sequential());
  for (size_t stage = 0; stage < channels.size(); ++stage) {
    const int64_t out_stage = scale_channels(channels[stage], options.width());
    int64_t stride = 1;
    if (options.downsample() == Downsample::kPool) {
      blocks->push_back(conv_bn_act(in_stage, out_stage, 3));
      blocks->push_back(quant::MaxPool2d(torch::nn::MaxPool2dOptions(2)));
      in_stage = out_stage;
    } else if (stage > 0) {
      stride = 2;
    }
    for (int64_t block = 0; block < blocks_a_stage; ++block) {
      blocks->push_back(BasicBlock(in_stage, out_stage, block == 0 ? stride : 1));
      in_stage = out_stage;
    }
  }
  pool = register_module("pool", quant::GlobalAvgPool2d());
  flatten = register_module("flatten", quant::Flatten());
  classifier = register_module("classifier", quant::Linear(in_stage, options.num_classes()));
}

at::Tensor ResNetImpl::forward(const at::Tensor& images) {
  return classifier(flatten(pool(blocks->forward<quant::QuantTensor>(stem(input(images)))))).value;
}

}  // namespace torchslim::models
