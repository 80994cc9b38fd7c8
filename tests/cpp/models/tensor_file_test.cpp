// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/core/atomic_file.h>
#include <torchslim/models/tensor_file.h>

#include <cstring>

#include "cpp/catch.hpp"
#include "temporary_file.h"

using torchslim::models::load_tensors;
using torchslim::models::save_tensors;
using torchslim::models::TensorDict;

namespace {

/// A file with this header and so many zero bytes of data, as an attacker or a broken program would
/// write it.
std::string file_with(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string content(8, '\0');
  std::memcpy(content.data(), &length, 8);
  return content + json + std::string(data_bytes, '\0');
}

TensorDict small_tensors() {
  TensorDict tensors;
  tensors.insert("w", at::arange(3, at::kFloat));
  tensors.insert("b", at::tensor({1, 0}).to(at::kBool));
  return tensors;
}

}  // namespace

TEST_CASE("tensor_file: every type comes back with the same bits, the widest first", "[models][tensor_file]") {
  const TemporaryFile file;
  TensorDict tensors;
  for (const auto type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kBFloat16, at::kHalf,
                          at::kFloat, at::kDouble}) {
    tensors.insert(c10::toString(type), at::randint(0, 2, {2, 3}).to(type));
  }
  tensors.insert("scalar", at::scalar_tensor(-0.0));
  tensors.insert("empty", at::empty({0, 5}));
  tensors.insert("strided", at::randn({4, 6}).t());
  tensors.insert("nan", at::full({1}, NAN));
  save_tensors(file.path, tensors, {{"note", "a \"quoted\"\n\\ é \x01"}});
  const auto loaded = load_tensors(file.path);
  REQUIRE(loaded.tensors.size() == tensors.size());
  int64_t width = 8;
  for (const auto& item : loaded.tensors) {
    INFO(item.key());
    const at::Tensor& expected = tensors[item.key()];
    REQUIRE(item.value().scalar_type() == expected.scalar_type());
    REQUIRE(item.value().sizes() == expected.sizes());
    CHECK(std::memcmp(item.value().data_ptr(), expected.contiguous().data_ptr(), expected.nbytes()) == 0);
    CHECK(item.value().element_size() <= width);
    width = item.value().element_size();
  }
  CHECK(loaded.metadata == std::map<std::string, std::string>{{"note", "a \"quoted\"\n\\ é \x01"}});
}

TEST_CASE("tensor_file: the same tensors in any order give the same bytes", "[models][tensor_file]") {
  const TemporaryFile file;
  save_tensors(file.path, small_tensors());
  const std::string bytes = file.read();
  TensorDict reversed;
  reversed.insert("b", small_tensors()["b"]);
  reversed.insert("w", small_tensors()["w"]);
  save_tensors(file.path, reversed);
  CHECK(file.read() == bytes);
}

TEST_CASE("tensor_file: a file without tensors is a file", "[models][tensor_file]") {
  const TemporaryFile file;
  save_tensors(file.path, TensorDict(), {{"key", "value"}});
  CHECK(load_tensors(file.path).tensors.is_empty());
  file.write(file_with("{}", 0));
  CHECK(load_tensors(file.path).metadata.empty());
}

TEST_CASE("tensor_file: any flipped bit and any missing or added byte is noticed", "[models][tensor_file]") {
  const TemporaryFile file;
  save_tensors(file.path, small_tensors(), {{"epoch", "5"}});
  const std::string whole = file.read();
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    file.write(flipped);
    INFO("bit " << bit);
    CHECK_THROWS_AS(load_tensors(file.path), c10::ValueError);
  }
  for (size_t size = 0; size < whole.size(); ++size) {
    file.write(whole.substr(0, size));
    INFO("first " << size << " bytes");
    CHECK_THROWS_AS(load_tensors(file.path), c10::ValueError);
  }
  file.write(whole + '\0');
  CHECK_THROWS_AS(load_tensors(file.path), c10::ValueError);
  file.write(whole);
  CHECK_NOTHROW(load_tensors(file.path));
}

TEST_CASE("tensor_file: a malformed file is refused with what is wrong", "[models][tensor_file]") {
  struct Malformed {
    std::string json;
    size_t data_bytes;
    const char* problem;
  };
  const auto entry = [](const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets +
           "]}";
  };
  const Malformed cases[] = {
      {"{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "F32", "1", "2,6") + "}", 6, "`b` begins at byte 2"},
      {"{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "F32", "1", "8,12") + "}", 12, "ends at 4"},
      {"{" + entry("a", "F32", "1", "0,4") + "," + entry("a", "F32", "1", "4,8") + "}", 8, "`a` is given twice"},
      {"{" + entry("a", "F8_E4M3", "4", "0,4") + "}", 4, "unknown type `F8_E4M3`"},
      {"{" + entry("a", "F32", "1", "0,8") + "}", 4, "`a` ends at byte 8"},
      {"{" + entry("a", "F32", "2", "0,4") + "}", 4, "has 4 bytes, which is not what F32 of shape [2] takes"},
      {"{" + entry("a", "F32", "1", "0,4") + "}", 5, "the data ends at 5"},
      {"{" + entry("a", "F32", "1", "4,0") + "}", 4, "begins at byte 4"},
      {"{" + entry("a", "F32", "4611686018427387904,4", "0,0") + "}", 0, "which is not what"},
      {"{" + entry("a", "F32", "0,9223372036854775807,9", "0,0") + "}", 0, "which is not what"},
      {"{" + entry("a", "F32", "9223372036854775808", "0,4") + "}", 4, "number is too large"},
      {"{" + entry("a", "F32", "-1", "0,4") + "}", 4, "expected a whole number"},
      {"{" + entry("a", "F32", "01", "0,4") + "}", 4, "expected a whole number"},
      {"{" + entry("a", "F32", "1", "0") + "}", 4, "two data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "needs dtype, shape and data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 4, "has `dtype` twice"},
      {"{\"a\":{\"order\":\"F\"}}", 4, "unknown field `order`"},
      {"{\"a\":1}", 0, "expected `{`"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "expected `\"`"},
      {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "key `a` is given twice"},
      {"{\"__metadata__\":{\"a\":\"\\ud800\"}}", 0, "half a surrogate pair"},
      {"{\"__metadata__\":{\"a\":\"\\q\"}}", 0, "unknown escape"},
      {"{\"__metadata__\":{\"a\":\"\xff\"}}", 0, "not UTF-8"},
      {"{} x", 0, "text follows"},
      {"[]", 0, "expected `{`"},
      {"", 0, "expected `{`"},
      {"{\"__metadata__\":{\"crc32.a\":\"00000000\"}," + entry("b", "U8", "1", "0,1") + "}", 1, "`b` has no checksum"},
  };
  const TemporaryFile file;
  for (const Malformed& malformed : cases) {
    INFO(malformed.json);
    file.write(file_with(malformed.json, malformed.data_bytes));
    CHECK_THROWS_WITH(load_tensors(file.path), ContainsSubstring(malformed.problem) && ContainsSubstring(file.path));
    CHECK_THROWS_AS(load_tensors(file.path), c10::ValueError);
  }
  std::string dimensions = "1";
  for (int i = 0; i < 64; ++i) {
    dimensions += ",1";
  }
  file.write(file_with("{" + entry("a", "U8", dimensions, "0,1") + "}", 1));
  CHECK_THROWS_WITH(load_tensors(file.path), ContainsSubstring("65 dimensions"));
  file.write(file_with("{" + entry("a", "BOOL", "1", "0,1") + "}", 0) + "\x02");
  CHECK_THROWS_WITH(load_tensors(file.path), ContainsSubstring("bytes other than 0 and 1"));
  file.write(std::string(8, '\xff') + "{}");
  CHECK_THROWS_WITH(load_tensors(file.path), ContainsSubstring("header would take 18446744073709551615 bytes"));
}

TEST_CASE("tensor_file: white space, escapes and text of other programs are read", "[models][tensor_file]") {
  const TemporaryFile file;
  file.write(
      file_with(" { \"\\u0061\\/\\ud83d\\ude00é\" : { \"shape\" : [ ] , \"data_offsets\" : [ 0 , 1 "
                "] , \"dtype\""
                " : \"U8\" } , \"__metadata__\" : { \"k\" : \"\\t\\u00e9\" } }\n",
                1));
  const auto loaded = load_tensors(file.path);
  CHECK(loaded.tensors["a/😀é"].dim() == 0);
  CHECK(loaded.metadata.at("k") == "\té");
}

TEST_CASE("tensor_file: what the format cannot hold is refused by name", "[models][tensor_file]") {
  const TemporaryFile file;
  const auto save = [&](const std::string& name, const at::Tensor& tensor) {
    TensorDict tensors;
    tensors.insert(name, tensor);
    save_tensors(file.path, tensors);
  };
  CHECK_THROWS_WITH(save("w", at::zeros(1, at::kComplexFloat)), ContainsSubstring("tensor `w` has type ComplexFloat"));
  CHECK_THROWS_WITH(save("w", at::zeros({2, 2}).to_sparse()), ContainsSubstring("tensor `w` must be dense"));
  CHECK_THROWS_WITH(save("w", at::Tensor()), ContainsSubstring("tensor `w` is undefined"));
  CHECK_THROWS_WITH(save("__metadata__", at::zeros(1)), ContainsSubstring("cannot be the name"));
  CHECK_THROWS_WITH(save("\xff", at::zeros(1)), ContainsSubstring("cannot be the name"));
  CHECK_THROWS_WITH(save_tensors(file.path, TensorDict(), {{"crc32.a", ""}}),
                    ContainsSubstring("metadata key `crc32.a`"));
  CHECK_FALSE(std::filesystem::exists(file.path));
}

TEST_CASE("tensor_file: a missing file and a directory are refused by path and reason", "[models][tensor_file]") {
  CHECK_THROWS_WITH(load_tensors("/no/such/file"), ContainsSubstring("cannot read `/no/such/file`: No such file"));
  CHECK_THROWS_WITH(load_tensors("/"), ContainsSubstring("cannot read `/`: Is a directory"));
  CHECK_THROWS_AS(save_tensors("/no/such/file", TensorDict()), torchslim::core::FileError);
}
