// SPDX-License-Identifier: BSD-3-Clause
#include "fashion_mnist.h"

#include <torch/torch.h>

#include <array>
#include <fstream>
#include <vector>

namespace {

constexpr int64_t kSide = 28;

// Numbers in idx headers are big-endian.
int64_t read_number(std::istream& file) {
  std::array<unsigned char, 4> bytes{};
  file.read(reinterpret_cast<char*>(bytes.data()), bytes.size());
  return (int64_t{bytes[0]} << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3];
}

// An idx file of bytes whose header holds `magic` and, after the count, the sizes `item`.
at::Tensor read_idx(const std::string& path, int64_t magic, const std::vector<int64_t>& item, int64_t limit) {
  std::ifstream file(path, std::ios::binary);
  TORCH_CHECK(file, path, ": cannot be opened; `make demo` unpacks Fashion-MNIST to build/data/fashion-mnist");
  const int64_t found = read_number(file);
  TORCH_CHECK(file && found == magic, path, ": expected an idx file with magic number ", magic, ", got ", found);
  std::vector<int64_t> sizes{read_number(file)};
  for (const int64_t expected : item) {
    sizes.push_back(read_number(file));
    TORCH_CHECK(file && sizes.back() == expected, path, ": expected items of ", item, ", got ", sizes.back());
  }
  if (limit > 0) {
    sizes[0] = std::min(sizes[0], limit);
  }
  auto data = torch::empty(sizes, torch::kUInt8);
  file.read(reinterpret_cast<char*>(data.data_ptr<uint8_t>()), data.numel());
  TORCH_CHECK(file.gcount() == data.numel(), path, ": truncated: expected ", data.numel(), " bytes of data, got ",
              file.gcount());
  return data;
}

}  // namespace

ImageSet read_fashion_mnist(const std::string& folder, const std::string& prefix, int64_t limit) {
  const std::string path = folder + "/" + prefix;
  return {read_idx(path + "-images-idx3-ubyte", 0x803, {kSide, kSide}, limit),
          read_idx(path + "-labels-idx1-ubyte", 0x801, {}, limit).to(torch::kLong)};
}

at::Tensor to_float(const at::Tensor& images) {
  return images.unsqueeze(1).to(torch::kFloat).div_(255).contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor shifted(const at::Tensor& images, at::Generator& generator) {
  namespace idx = torch::indexing;
  const auto padded = torch::constant_pad_nd(images, {1, 1, 1, 1});
  const auto moves = torch::randint(0, 3, {2, images.size(0), 1}, generator, torch::kLong);
  const auto pixels = torch::arange(kSide);
  const auto rows = (moves[0] + pixels).unsqueeze(2);
  const auto columns = (moves[1] + pixels).unsqueeze(1);
  const auto image = torch::arange(images.size(0)).view({-1, 1, 1});
  return padded.index({image, rows, columns});
}
