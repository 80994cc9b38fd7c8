// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <torchslim/core/atomic_file.h>
#include <torchslim/models/tensor_file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "core/crc32.h"
#include "models/tensor_header.h"

namespace torchslim::models {
namespace {

constexpr uint64_t kLargestHeader = 100'000'000;  // bytes; the public safetensors package has the same limit
constexpr size_t kMostDimensions = 64;
constexpr std::string_view kChecksum = "crc32.";
constexpr std::string_view kMetadataChecksum = "crc32.__metadata__";

struct FileType {
  const char* name;
  at::ScalarType type;
};

constexpr std::array<FileType, 10> kFileTypes{{{"F64", at::kDouble},
                                               {"F32", at::kFloat},
                                               {"F16", at::kHalf},
                                               {"BF16", at::kBFloat16},
                                               {"I64", at::kLong},
                                               {"I32", at::kInt},
                                               {"I16", at::kShort},
                                               {"I8", at::kChar},
                                               {"U8", at::kByte},
                                               {"BOOL", at::kBool}}};

const FileType* file_type(at::ScalarType type) {
  const auto* found =
      std::find_if(kFileTypes.begin(), kFileTypes.end(), [&](const FileType& t) { return t.type == type; });
  return found == kFileTypes.end() ? nullptr : found;
}

const FileType* file_type(const std::string& name) {
  const auto* found =
      std::find_if(kFileTypes.begin(), kFileTypes.end(), [&](const FileType& t) { return t.name == name; });
  return found == kFileTypes.end() ? nullptr : found;
}

std::string to_hex(uint32_t number) {
  std::string hex(8, '0');
  for (size_t i = 0; i < 8; ++i) {
    hex[i] = "0123456789abcdef"[(number >> (28 - 4 * i)) & 15];
  }
  return hex;
}

std::string checksum_key(const std::string& name) { return std::string(kChecksum) + name; }

bool is_checksum_key(const std::string& key) { return key.compare(0, kChecksum.size(), kChecksum) == 0; }

/// Of "F32[2,3]" and the bytes: another type or shape over the same bytes has another checksum.
std::string tensor_checksum(const TensorEntry& entry, const void* data) {
  std::string form = entry.dtype + "[";
  for (size_t i = 0; i < entry.shape.size(); ++i) {
    form += (i == 0 ? "" : ",") + std::to_string(entry.shape[i]);
  }
  form += "]";
  return to_hex(core::crc32(data, entry.end - entry.begin, core::crc32(form.data(), form.size())));
}

/// Of all keys and values but the checksums, in order, each ended by a zero byte.
std::string metadata_checksum(const std::map<std::string, std::string>& metadata) {
  uint32_t crc = 0;
  for (const auto& [key, value] : metadata) {
    if (!is_checksum_key(key)) {
      crc = core::crc32(key.c_str(), key.size() + 1, crc);
      crc = core::crc32(value.c_str(), value.size() + 1, crc);
    }
  }
  return to_hex(crc);
}

/// A tensor as it goes into the file: on the CPU, contiguous.
struct Outgoing {
  TensorEntry entry;
  at::Tensor tensor;
};

Outgoing prepare_outgoing(const std::string& name, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(is_utf8(name) && name != "__metadata__", "torchslim::save_tensors: `", name,
                    "` cannot be the name of a tensor");
  TORCH_CHECK_VALUE(tensor.defined(), "torchslim::save_tensors: tensor `", name, "` is undefined");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided && !tensor.is_quantized(), "torchslim::save_tensors: tensor `",
                    name, "` must be dense and not quantized; save its parts");
  const FileType* type = file_type(tensor.scalar_type());
  TORCH_CHECK_VALUE(type != nullptr, "torchslim::save_tensors: tensor `", name, "` has type ", tensor.scalar_type(),
                    ", which a safetensors file cannot hold here");
  Outgoing outgoing;
  outgoing.entry.name = name;
  outgoing.entry.dtype = type->name;
  outgoing.entry.shape = tensor.sizes().vec();
  outgoing.tensor = tensor.detach().cpu().contiguous();
  return outgoing;
}

/// Widest type first, so that each tensor is aligned to its type without holes, which the format
/// forbids.
std::vector<Outgoing> prepare_all(const TensorDict& tensors) {
  std::vector<Outgoing> all;
  all.reserve(tensors.size());
  for (const auto& item : tensors) {
    all.push_back(prepare_outgoing(item.key(), item.value()));
  }
  std::sort(all.begin(), all.end(), [](const Outgoing& a, const Outgoing& b) {
    const auto width_a = a.tensor.element_size();
    const auto width_b = b.tensor.element_size();
    return width_a != width_b ? width_a > width_b : a.entry.name < b.entry.name;
  });
  uint64_t offset = 0;
  for (Outgoing& outgoing : all) {
    outgoing.entry.begin = offset;
    offset += outgoing.tensor.nbytes();
    outgoing.entry.end = offset;
  }
  return all;
}

/// Bytes of the 8-byte little-endian length, then the JSON, filled up with spaces to a multiple
/// of 8.
std::string frame_header(const TensorHeader& header) {
  std::string json = format_header(header);
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  TORCH_CHECK_VALUE(length <= kLargestHeader, "torchslim::save_tensors: the names, shapes and metadata take ", length,
                    " bytes, but a safetensors file holds at most ", kLargestHeader);
  std::string framed(sizeof(length), '\0');
  std::memcpy(framed.data(), &length, sizeof(length));
  return framed + json;
}

/// A file that is being read; every message names it.
class Incoming {
 public:
  explicit Incoming(const std::string& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
      fail_to_read(errno);
    }
    if (!S_ISREG(status.st_mode)) {
      fail_to_read(S_ISDIR(status.st_mode) ? EISDIR : EINVAL);
    }
    size_ = static_cast<uint64_t>(status.st_size);
  }
  ~Incoming() { close(); }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

  void read(uint64_t offset, void* data, uint64_t size) const {
    auto* rest = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t count = ::pread(descriptor_, rest, size, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count < 0) {
        fail_to_read(errno);
      }
      check(count > 0, "it became shorter while it was read");
      rest += count;
      offset += static_cast<uint64_t>(count);
      size -= static_cast<uint64_t>(count);
    }
  }

  template <typename... Parts>
  void check(bool condition, const Parts&... problem) const {
    TORCH_CHECK_VALUE(condition, "torchslim::load_tensors: `", path_,
                      "` is damaged or no safetensors file: ", problem...);
  }

 private:
  [[noreturn]] void fail_to_read(int error_number) {
    close();
    static_cast<const Incoming*>(this)->fail_to_read(error_number);
  }

  [[noreturn]] void fail_to_read(int error_number) const {
    throw core::FileError(error_number, "torchslim: cannot read `" + path_ + "`");
  }

  void close() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
      descriptor_ = -1;
    }
  }

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

TensorHeader read_header(const Incoming& file, uint64_t& data_begin) {
  uint64_t length = 0;
  file.check(file.size() >= sizeof(length), "it has ", file.size(), " bytes, too few for a header");
  file.read(0, &length, sizeof(length));
  file.check(length <= kLargestHeader && length <= file.size() - sizeof(length), "its header would take ", length,
             " bytes of a file of ", file.size());
  std::string json(length, '\0');
  file.read(sizeof(length), json.data(), length);
  data_begin = sizeof(length) + length;
  return parse_header(json, file.path());
}

/// Bytes that a tensor of this type and shape takes, or nothing where they exceed `limit`; counted
/// without overflow.
std::optional<uint64_t> byte_count(const FileType& type, const std::vector<int64_t>& shape, uint64_t limit) {
  const bool is_empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  if (is_empty) {
    limit = std::numeric_limits<int64_t>::max();  // LibTorch needs the product of the other sizes,
                                                  // for the strides
  }
  uint64_t bytes = c10::elementSize(type.type);
  for (const int64_t size : shape) {
    const auto factor = static_cast<uint64_t>(std::max<int64_t>(size, 1));
    if (factor > limit / bytes) {
      return std::nullopt;
    }
    bytes *= factor;
  }
  return is_empty ? 0 : bytes;
}

/// Checks that the entries, in the order of their offsets, cover the data exactly and have the size
/// of their shape.
void check_entries(const Incoming& file, std::vector<TensorEntry>& entries, uint64_t data_size) {
  std::stable_sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t expected_begin = 0;
  for (const TensorEntry& entry : entries) {
    const FileType* type = file_type(entry.dtype);
    file.check(type != nullptr, "tensor `", entry.name, "` has the unknown type `", entry.dtype, "`");
    file.check(entry.begin == expected_begin, "tensor `", entry.name, "` begins at byte ", entry.begin,
               " of the data, but the one before it ends at ", expected_begin);
    file.check(entry.end >= entry.begin && entry.end <= data_size, "tensor `", entry.name, "` ends at byte ", entry.end,
               ", but the data ends at ", data_size);
    file.check(entry.shape.size() <= kMostDimensions, "tensor `", entry.name, "` has ", entry.shape.size(),
               " dimensions, LibTorch has at most ", kMostDimensions);
    const std::optional<uint64_t> bytes = byte_count(*type, entry.shape, data_size);
    file.check(bytes == entry.end - entry.begin, "tensor `", entry.name, "` has ", entry.end - entry.begin,
               " bytes, which is not what ", entry.dtype, " of shape ", c10::IntArrayRef(entry.shape), " takes");
    expected_begin = entry.end;
  }
  file.check(expected_begin == data_size, "its tensors end at byte ", expected_begin, ", but the data ends at ",
             data_size);
}

/// Checks that either no tensor has a checksum (another program wrote the file) or all have one.
bool check_checksum_keys(const Incoming& file, const TensorHeader& header) {
  const auto& metadata = header.metadata;
  if (std::none_of(metadata.begin(), metadata.end(), [](const auto& item) { return is_checksum_key(item.first); })) {
    return false;
  }
  for (const TensorEntry& entry : header.entries) {
    file.check(metadata.count(checksum_key(entry.name)) == 1, "tensor `", entry.name, "` has no checksum");
  }
  const auto of_metadata = metadata.find(std::string(kMetadataChecksum));
  file.check(of_metadata != metadata.end() && of_metadata->second == metadata_checksum(metadata),
             "the checksum of its metadata differs");
  return true;
}

at::Tensor read_tensor(const Incoming& file, const TensorEntry& entry, uint64_t data_begin) {
  const at::ScalarType type = file_type(entry.dtype)->type;
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(type));
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  file.read(data_begin + entry.begin, bytes, entry.end - entry.begin);
  const bool is_boolean = type == at::kBool;
  file.check(!is_boolean || std::all_of(bytes, bytes + tensor.numel(), [](unsigned char byte) { return byte <= 1; }),
             "tensor `", entry.name, "` is BOOL, but holds bytes other than 0 and 1");
  return tensor;
}

}  // namespace

void save_tensors(const std::string& path, const TensorDict& tensors,
                  const std::map<std::string, std::string>& metadata) {
  const std::vector<Outgoing> all = prepare_all(tensors);
  TensorHeader header;
  for (const auto& [key, value] : metadata) {
    TORCH_CHECK_VALUE(!is_checksum_key(key) && is_utf8(key) && is_utf8(value),
                      "torchslim::save_tensors: metadata key `", key,
                      "` must be UTF-8, as its value, and not begin with `", kChecksum, "`");
    header.metadata.emplace(key, value);
  }
  header.metadata.emplace(kMetadataChecksum, metadata_checksum(metadata));
  for (const Outgoing& outgoing : all) {
    header.metadata.emplace(checksum_key(outgoing.entry.name),
                            tensor_checksum(outgoing.entry, outgoing.tensor.const_data_ptr()));
    header.entries.push_back(outgoing.entry);
  }
  core::AtomicFile file(path);
  file.write(frame_header(header));
  for (const Outgoing& outgoing : all) {
    file.write(outgoing.tensor.const_data_ptr(), outgoing.tensor.nbytes());
  }
  file.commit();
}

TensorFile load_tensors(const std::string& path) {
  const Incoming file(path);
  uint64_t data_begin = 0;
  TensorHeader header = read_header(file, data_begin);
  check_entries(file, header.entries, file.size() - data_begin);
  const bool has_checksums = check_checksum_keys(file, header);
  TensorFile result;
  for (const TensorEntry& entry : header.entries) {
    at::Tensor tensor = read_tensor(file, entry, data_begin);
    file.check(!has_checksums ||
                   header.metadata.at(checksum_key(entry.name)) == tensor_checksum(entry, tensor.const_data_ptr()),
               "the checksum of tensor `", entry.name, "` differs from its bytes");
    result.tensors.insert(entry.name, std::move(tensor));
  }
  for (const auto& [key, value] : header.metadata) {
    if (!has_checksums || !is_checksum_key(key)) {
      result.metadata.emplace(key, value);
    }
  }
  return result;
}

}  // namespace torchslim::models
