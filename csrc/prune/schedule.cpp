// SPDX-License-Identifier: BSD-3-Clause
#include <c10/util/Exception.h>
#include <torchslim/prune/schedule.h>

#include <cmath>

namespace torchslim::prune {
namespace {

// Written so that NaN fails too.
void check_sparsity(const char* call, const char* name, double sparsity) {
  TORCH_CHECK_VALUE(sparsity >= 0.0 && sparsity <= 1.0, "torchslim::", call, ": ", name, " must be in [0, 1], got ",
                    sparsity);
}

void check_step(const char* call, const char* name, int64_t step) {
  TORCH_CHECK_VALUE(step >= 0, "torchslim::", call, ": ", name, " must be >= 0, got ", step);
}

void check_polynomial(const char* call, int64_t begin_step, int64_t end_step, double initial_sparsity,
                      double final_sparsity, double power) {
  check_step(call, "begin_step", begin_step);
  TORCH_CHECK_VALUE(end_step >= begin_step, "torchslim::", call, ": end_step must be >= begin_step, got end_step ",
                    end_step, " and begin_step ", begin_step);
  check_sparsity(call, "initial_sparsity", initial_sparsity);
  check_sparsity(call, "final_sparsity", final_sparsity);
  TORCH_CHECK_VALUE(initial_sparsity <= final_sparsity, "torchslim::", call,
                    ": final_sparsity must be >= initial_sparsity (what is pruned stays pruned), got ", final_sparsity,
                    " after ", initial_sparsity);
  TORCH_CHECK_VALUE(power > 0.0 && std::isfinite(power), "torchslim::", call, ": power must be > 0 and finite, got ",
                    power);
}

}  // namespace

double polynomial_schedule(int64_t step, int64_t begin_step, int64_t end_step, double initial_sparsity,
                           double final_sparsity, double power) {
  constexpr const char* kCall = "polynomial_schedule";
  check_step(kCall, "step", step);
  check_polynomial(kCall, begin_step, end_step, initial_sparsity, final_sparsity, power);
  // Both ends are returned as given: s_f + (s_i - s_f) need not round to s_i.
  if (step >= end_step) {
    return final_sparsity;
  }
  if (step <= begin_step) {
    return initial_sparsity;
  }
  const double progress = static_cast<double>(step - begin_step) / static_cast<double>(end_step - begin_step);
  return final_sparsity + (initial_sparsity - final_sparsity) * std::pow(1.0 - progress, power);
}

double constant_schedule(int64_t step, double sparsity) {
  check_step("constant_schedule", "step", step);
  check_sparsity("constant_schedule", "sparsity", sparsity);
  return sparsity;
}

double one_shot_schedule(int64_t step, int64_t at_step, double sparsity) {
  check_step("one_shot_schedule", "step", step);
  check_step("one_shot_schedule", "at_step", at_step);
  check_sparsity("one_shot_schedule", "sparsity", sparsity);
  return step >= at_step ? sparsity : 0.0;
}

PolynomialSchedule::PolynomialSchedule(int64_t begin_step, int64_t end_step, double final_sparsity,
                                       double initial_sparsity, double power, int64_t frequency)
    : begin_step_(begin_step),
      end_step_(end_step),
      final_sparsity_(final_sparsity),
      initial_sparsity_(initial_sparsity),
      power_(power),
      frequency_(frequency) {
  constexpr const char* kCall = "PolynomialSchedule";
  check_polynomial(kCall, begin_step, end_step, initial_sparsity, final_sparsity, power);
  TORCH_CHECK_VALUE(frequency >= 1, "torchslim::", kCall, ": frequency must be >= 1, got ", frequency);
}

double PolynomialSchedule::operator()(int64_t step) const {
  check_step("PolynomialSchedule", "step", step);
  if (step < begin_step_) {
    return 0.0;
  }
  const int64_t last_update = step >= end_step_ ? step : step - (step - begin_step_) % frequency_;
  return polynomial_schedule(last_update, begin_step_, end_step_, initial_sparsity_, final_sparsity_, power_);
}

ConstantSchedule::ConstantSchedule(double sparsity) : sparsity_(sparsity) {
  check_sparsity("ConstantSchedule", "sparsity", sparsity);
}

double ConstantSchedule::operator()(int64_t step) const { return constant_schedule(step, sparsity_); }

OneShotSchedule::OneShotSchedule(int64_t at_step, double sparsity) : at_step_(at_step), sparsity_(sparsity) {
  check_step("OneShotSchedule", "at_step", at_step);
  check_sparsity("OneShotSchedule", "sparsity", sparsity);
}

double OneShotSchedule::operator()(int64_t step) const { return one_shot_schedule(step, at_step_, sparsity_); }

}  // namespace torchslim::prune
