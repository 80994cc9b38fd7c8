// SPDX-License-Identifier: BSD-3-Clause
#include "cpp/catch.hpp"
