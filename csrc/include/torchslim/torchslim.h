// SPDX-License-Identifier: BSD-3-Clause
#pragma once

// The whole library; a room's header alone also works.
#include <torchslim/distill/kd_loss.h>
#include <torchslim/prune/apply_masks.h>
#include <torchslim/prune/channel_plan.h>
#include <torchslim/prune/channel_pruner.h>
#include <torchslim/prune/magnitude_masks.h>
#include <torchslim/prune/magnitude_pruner.h>
#include <torchslim/prune/schedule.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/observe_fake_quantize.h>
#include <torchslim/quant/qparams.h>
#include <torchslim/version.h>
