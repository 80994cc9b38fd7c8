// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <torchslim/api.h>

#include <cstdint>

namespace torchslim::prune {

/// Returns the sparsity at `step` of a schedule that rises fast early and is flat at the end:
/// s(t) = s_f + (s_i − s_f)·(1 − (t − t_0)/(t_n − t_0))^power, with t clamped to [t_0, t_n].
///   step                                a count, ≥ 0
///   begin_step, end_step                t_0 and t_n, 0 ≤ begin_step ≤ end_step; from end_step on
///   the result is s_f exactly initial_sparsity, final_sparsity    s_i and s_f, shares of zeros in
///   [0, 1], s_i ≤ s_f power                               > 0; 3 is the paper's cubic
/// Throws c10::ValueError if an argument is out of its range.  Zhu & Gupta 2017, arXiv:1710.01878,
/// eq. 1.
TORCHSLIM_API double polynomial_schedule(int64_t step, int64_t begin_step, int64_t end_step, double initial_sparsity,
                                         double final_sparsity, double power = 3.0);

/// Returns `sparsity`, a share of zeros in [0, 1], at every `step` ≥ 0: sparse from the first step
/// on. Throws c10::ValueError if an argument is out of its range.
TORCHSLIM_API double constant_schedule(int64_t step, double sparsity);

/// Returns 0 before `at_step` and `sparsity`, a share of zeros in [0, 1], from it on: all is pruned
/// at once. Throws c10::ValueError if `step` or `at_step` is negative or `sparsity` is out of its
/// range.
TORCHSLIM_API double one_shot_schedule(int64_t step, int64_t at_step, double sparsity);

/// A polynomial schedule that a pruner can hold: calling it with a step gives the sparsity to have
/// then. It is 0 before begin_step; between begin_step and end_step it moves only every `frequency`
/// steps; at end_step it is final_sparsity, whether or not `frequency` divides the way there.
/// The arguments are those of polynomial_schedule; the constructor throws c10::ValueError if one is
/// out of its range, or frequency < 1.
class TORCHSLIM_API PolynomialSchedule {
 public:
  PolynomialSchedule(int64_t begin_step, int64_t end_step, double final_sparsity, double initial_sparsity = 0.0,
                     double power = 3.0, int64_t frequency = 1);
  double operator()(int64_t step) const;

 private:
  int64_t begin_step_;
  int64_t end_step_;
  double final_sparsity_;
  double initial_sparsity_;
  double power_;
  int64_t frequency_;
};

/// `sparsity` at every step.  The constructor throws c10::ValueError unless 0 ≤ sparsity ≤ 1.
class TORCHSLIM_API ConstantSchedule {
 public:
  explicit ConstantSchedule(double sparsity);
  double operator()(int64_t step) const;

 private:
  double sparsity_;
};

/// 0 before `at_step`, `sparsity` from it on.  The constructor throws c10::ValueError if an
/// argument is out of range.
class TORCHSLIM_API OneShotSchedule {
 public:
  OneShotSchedule(int64_t at_step, double sparsity);
  double operator()(int64_t step) const;

 private:
  int64_t at_step_;
  double sparsity_;
};

}  // namespace torchslim::prune
