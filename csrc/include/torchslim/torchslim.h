// SPDX-License-Identifier: BSD-3-Clause
#pragma once

// The whole library; a room's header alone also works.
#include <torchslim/core/atomic_file.h>
#include <torchslim/deploy/evaluate.h>
#include <torchslim/deploy/integer_graph.h>
#include <torchslim/deploy/lower.h>
#include <torchslim/deploy/ptl.h>
#include <torchslim/deploy/reference.h>
#include <torchslim/deploy/report.h>
#include <torchslim/deploy/run_ptl.h>
#include <torchslim/deploy/save.h>
#include <torchslim/distill/kd_loss.h>
#include <torchslim/graph/capture.h>
#include <torchslim/graph/count.h>
#include <torchslim/graph/fold.h>
#include <torchslim/graph/graph.h>
#include <torchslim/graph/interpret.h>
#include <torchslim/models/tensor_file.h>
#include <torchslim/models/weights.h>
#include <torchslim/prune/apply_masks.h>
#include <torchslim/prune/channel_plan.h>
#include <torchslim/prune/channel_pruner.h>
#include <torchslim/prune/magnitude_masks.h>
#include <torchslim/prune/magnitude_pruner.h>
#include <torchslim/prune/schedule.h>
#include <torchslim/quant/fake_quantize.h>
#include <torchslim/quant/fake_quantize_module.h>
#include <torchslim/quant/fake_quantize_weight.h>
#include <torchslim/quant/fold.h>
#include <torchslim/quant/observe_fake_quantize.h>
#include <torchslim/quant/qparams.h>
#include <torchslim/quant/round_average.h>
#include <torchslim/version.h>
