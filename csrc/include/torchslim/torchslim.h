// SPDX-License-Identifier: BSD-3-Clause
#pragma once

// The whole library; a room's header alone also works.
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/version.h>
