// SPDX-License-Identifier: BSD-3-Clause
#pragma once

/// Marks what the library exports; all else is hidden.
#define TORCHSLIM_API __attribute__((visibility("default")))
