// SPDX-License-Identifier: BSD-3-Clause
// What stands between a damaged .ptl file and LibTorch: the readers of the archive and of the program in it. A fuzz target for
// libFuzzer (`make fuzz`); with TORCHSLIM_FUZZ_MAIN a program that runs the corpus and changed copies of it (`make sanitize`).
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "deploy/pickle_file.h"
#include "deploy/ptl_program.h"
#include "deploy/zip_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace torchslim::deploy;  // NOLINT
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    read_program(read_zip(bytes, "input"), "input");
  } catch (const c10::ValueError&) {
  }
  try {  // past the checksums
    read_pickle(bytes, "input");
  } catch (const c10::ValueError&) {
  }
  return 0;
}

#ifdef TORCHSLIM_FUZZ_MAIN
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

std::string changed(std::string bytes, std::mt19937& random) {
  const auto below = [&](size_t limit) { return limit == 0 ? 0 : random() % limit; };
  for (uint64_t changes = 1 + below(4); changes > 0 && !bytes.empty(); --changes) {
    const size_t at = below(bytes.size()), size = std::min<size_t>(1 + below(16), bytes.size() - at);
    switch (below(5)) {
      case 0:
        bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ 1U << below(8));
        break;
      case 1:
        std::fill_n(bytes.begin() + static_cast<int64_t>(at), std::min<size_t>(4, size), '\xFF');
        break;
      case 2:
        bytes.erase(at, size);
        break;
      case 3:
        bytes.insert(below(bytes.size()), bytes.substr(at, size));
        break;
      default:
        bytes.resize(at);
    }
  }
  return bytes;
}

}  // namespace

int main(int count, char** arguments) {
  int64_t inputs = 0;
  for (int i = 2; i < count; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::mt19937 random(static_cast<unsigned>(i));
    for (int64_t run = 0; run < std::stoll(arguments[1]); ++run, ++inputs) {
      const std::string input = run == 0 ? bytes : changed(bytes, random);
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    }
  }
  std::cout << inputs << " damaged files read without a fault\n";
  return inputs > 0 ? 0 : 1;
}
#endif
