// SPDX-License-Identifier: BSD-3-Clause
#include <torchslim/prune/schedule.h>

#include <cmath>

#include "cpp/catch.hpp"

using namespace torchslim::prune;

TEST_CASE("polynomial_schedule: both ends are exact and the middle is cubic", "[prune][schedule]") {
  CHECK(polynomial_schedule(99, 100, 110, 0.2, 0.8) == 0.2);
  CHECK(polynomial_schedule(100, 100, 110, 0.2, 0.8) == 0.2);
  CHECK(std::abs(polynomial_schedule(102, 100, 110, 0.2, 0.8) - 0.4928) < 1e-12);
  CHECK(std::abs(polynomial_schedule(105, 100, 110, 0.2, 0.8) - 0.725) < 1e-12);
  CHECK(polynomial_schedule(110, 100, 110, 0.2, 0.8) == 0.8);
  CHECK(polynomial_schedule(5, 5, 5, 0.2, 0.8) == 0.8);
}

TEST_CASE("PolynomialSchedule: ends on target whether or not frequency divides", "[prune][schedule]") {
  const auto frequency = GENERATE(1, 3, 7, 1000);
  const PolynomialSchedule schedule(10, 20, 0.7, 0.1, 3.0, frequency);
  CHECK(schedule(9) == 0.0);
  CHECK(schedule(10) == 0.1);
  CHECK(schedule(19) == polynomial_schedule(19 - 9 % frequency, 10, 20, 0.1, 0.7));
  CHECK(schedule(20) == 0.7);
}

TEST_CASE("constant and one-shot schedules", "[prune][schedule]") {
  CHECK(ConstantSchedule(0.3)(7) == constant_schedule(0, 0.3));
  CHECK(OneShotSchedule(2, 0.3)(1) == 0.0);
  CHECK(OneShotSchedule(2, 0.3)(2) == one_shot_schedule(9, 2, 0.3));
}

TEST_CASE("schedules refuse bad arguments and show them", "[prune][schedule]") {
  CHECK_THROWS_WITH(polynomial_schedule(-1, 0, 1, 0.0, 0.5),
                    ContainsSubstring("polynomial_schedule: step must be >= 0, got -1"));
  CHECK_THROWS_WITH(polynomial_schedule(0, 5, 4, 0.0, 0.5), ContainsSubstring("got end_step 4 and begin_step 5"));
  CHECK_THROWS_WITH(polynomial_schedule(0, 0, 1, 0.0, std::nan("")),
                    ContainsSubstring("final_sparsity must be in [0, 1], got nan"));
  CHECK_THROWS_WITH(PolynomialSchedule(0, 1, 0.5, 0.0, 3.0, 0), ContainsSubstring("frequency must be >= 1, got 0"));
  CHECK_THROWS_AS(ConstantSchedule(1.5), c10::ValueError);
  CHECK_THROWS_AS(OneShotSchedule(-1, 0.5), c10::ValueError);
}
