// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/core/dispatch/Dispatcher.h>

int main() {
  const auto op = c10::Dispatcher::singleton().findSchema({"torchslim::fake_quantize", ""});
  return op.has_value() ? 0 : 1;
}
