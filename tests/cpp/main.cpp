// SPDX-License-Identifier: BSD-3-Clause
#define CATCH_CONFIG_RUNNER
#include "cpp/catch.hpp"

int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
