// SPDX-License-Identifier: BSD-3-Clause
#include "distill/kd_loss_kernel.h"

#include <math.h>

#ifdef CPU_CAPABILITY_AVX2
#include <immintrin.h>
#endif

// The same source serves every instruction set: GCC's vector types, and no a*b+c that could be contracted, so the bits
// are equal. Vectors pass between inlined functions only, so their calling convention does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace torchslim::CPU_CAPABILITY {
namespace {

using distill::GradientRow;
using distill::HardLabel;
using distill::KdRow;
using distill::KdRowLoss;
using distill::LogitRow;
using distill::LogitType;

constexpr int64_t kLanes = 8;
constexpr int64_t kBlock = distill::kKdBlock;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLn2 = 0x1.62e42fefa39efp-1;
using F8 = float __attribute__((vector_size(32)));
using D4 = double __attribute__((vector_size(32)));
using U8 = uint32_t __attribute__((vector_size(32)));
using U8x16 = uint16_t __attribute__((vector_size(16)));

int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

template <typename Vector>
inline Vector load(const void* from) {
  Vector value;
  __builtin_memcpy(&value, from, sizeof(Vector));
  return value;
}

template <typename Vector>
inline void store(void* to, const Vector& value) {
  __builtin_memcpy(to, &value, sizeof(Vector));
}

inline F8 splat(float x) { return F8{} + x; }

/// a > b ? a : b, so NaN in `b` stays and NaN in `a` is ignored.
inline F8 larger(F8 a, F8 b) {
#ifdef CPU_CAPABILITY_AVX2  // GCC 12 makes two instructions of the comparison
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline F8 as_float(U8 bits) { return reinterpret_cast<F8>(bits); }
inline U8 as_bits(F8 x) { return reinterpret_cast<U8>(x); }

// ---- bfloat16 and float16, by their bits ----

inline F8 widen_bfloat16(U8x16 x) { return as_float(__builtin_convertvector(x, U8) << 16); }

inline U8x16 narrow_bfloat16(F8 x) {  // half to even; NaN stays NaN
  const U8 bits = as_bits(x);
  const U8 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return __builtin_convertvector(x == x ? rounded : U8{} + 0x7FC0u, U8x16);
}

inline F8 widen_half(U8x16 x) {
  const U8 bits = __builtin_convertvector(x, U8) << 16;
  const U8 magnitude = bits + bits;
  const F8 normal = as_float((magnitude >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const F8 subnormal = as_float((magnitude >> 17) | (126u << 23)) - 0.5f;
  return as_float((bits & 0x80000000u) | as_bits(magnitude < (1u << 27) ? subnormal : normal));
}

inline U8x16 narrow_half(F8 x) {  // half to even: the addition of `bias` rounds where float16's last bit is
  const U8 bits = as_bits(x);
  const U8 twice = bits + bits;
  const F8 magnitude = as_float(bits & 0x7FFFFFFFu) * 0x1.0p+112f * 0x1.0p-110f;
  U8 bias = twice & 0xFF000000u;
  bias = bias < 0x71000000u ? U8{} + 0x71000000u : bias;
  const U8 sum = as_bits(as_float((bias >> 1) + 0x07800000u) + magnitude);
  const U8 finite = ((sum >> 13) & 0x7C00u) + (sum & 0x0FFFu);
  return __builtin_convertvector((bits >> 16 & 0x8000u) | (x == x ? finite : U8{} + 0x7E00u), U8x16);
}

// ---- a block of a row as floats, a whole number of vectors ----

/// Returns `count` logits from `offset` on as floats, filled up with −inf, which adds nothing to any sum.
inline const float* staged(const LogitRow& row, int64_t offset, int64_t count, float* buffer) {
  if (row.type == LogitType::kFloat) {
    const float* from = static_cast<const float*>(row.data) + offset;
    if (count % kLanes == 0) {
      return from;
    }
    __builtin_memcpy(buffer, from, count * sizeof(float));
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(row.data) + offset;
    for (int64_t i = 0; i < count; i += kLanes) {
      U8x16 raw{};
      if (count - i >= kLanes) {
        raw = load<U8x16>(from + i);
      } else {
        __builtin_memcpy(&raw, from + i, (count - i) * sizeof(uint16_t));
      }
      store(buffer + i, row.type == LogitType::kHalf ? widen_half(raw) : widen_bfloat16(raw));
    }
  }
  for (int64_t i = count; i < round_up(count); ++i) {
    buffer[i] = -INFINITY;
  }
  return buffer;
}

/// Writes `count` floats as the type of the gradient.
inline void unstage(const float* buffer, const GradientRow& row, int64_t offset, int64_t count) {
  if (row.type == LogitType::kFloat) {
    float* to = static_cast<float*>(row.data) + offset;
    if (buffer != to) {
      __builtin_memcpy(to, buffer, count * sizeof(float));
    }
    return;
  }
  uint16_t* to = static_cast<uint16_t*>(row.data) + offset;
  for (int64_t i = 0; i < count; i += kLanes) {
    const F8 value = load<F8>(buffer + i);
    const U8x16 narrow = row.type == LogitType::kHalf ? narrow_half(value) : narrow_bfloat16(value);
    __builtin_memcpy(to + i, &narrow, (count - i < kLanes ? count - i : kLanes) * sizeof(uint16_t));
  }
}

// ---- first sweep ----

/// The largest of the values, ignoring NaN; −inf if there is none.
inline float block_max(const float* x, int64_t count) {
  F8 best = splat(-INFINITY);
  for (int64_t i = 0; i < count; i += kLanes) {
    best = larger(load<F8>(x + i), best);
  }
  float max = best[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) {
    max = best[lane] > max ? best[lane] : max;
  }
  return max;
}

/// 2^y for y ≤ 0 with a relative error below 1.7e-7; 0 below 2^-127 (and for −inf), NaN for NaN, exactly 1 for 0.
inline F8 exp2_or_zero(F8 y) {
  // 2^(j/8) as bits, less j << 20: that is what the low three bits of `shifted` leave behind when they are shifted.
  constexpr U8 kEighths = {0x3f800000u - 0x000000u, 0x3f8b95c2u - 0x100000u, 0x3f9837f0u - 0x200000u,
                           0x3fa5fed7u - 0x300000u, 0x3fb504f3u - 0x400000u, 0x3fc5672au - 0x500000u,
                           0x3fd744fdu - 0x600000u, 0x3feac0c7u - 0x700000u};
  const F8 clamped = larger(splat(-127.0f), y);
  const F8 magic = splat(1572864.0f);  // 1.5 · 2^20: adding it rounds y to a multiple m of 1/8, the low bits hold 8m
  const F8 shifted = clamped + magic;
  const F8 x = clamped - (shifted - magic);  // in [-1/16, 1/16], exact
  const U8 bits = as_bits(shifted);
  const F8 power = as_float(__builtin_shuffle(kEighths, bits) + (bits << 20));  // 2^m; 0 for m = -127
  F8 p = x * 0x1.c6a004p-5f + 0x1.ec0c32p-3f;  // minimax polynomial of 2^x with value 1 at 0
  p = p * x + 0x1.62e432p-1f;
  p = p * x + 1.0f;
  return p * power;
}

/// Eight sums in float64, one a lane.
struct LaneSums {
  D4 low{}, high{};

  void add(F8 x) {
#ifdef CPU_CAPABILITY_AVX2  // GCC 12 converts a vector through memory
    low += _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    high += _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
#else
    low += D4{x[0], x[1], x[2], x[3]};
    high += D4{x[4], x[5], x[6], x[7]};
#endif
  }

  double total() const {
    const D4 both = low + high;
    return (both[0] + both[1]) + (both[2] + both[3]);
  }
};

/// Sums over classes: Σ2^ys, Σ2^yt and Σ2^yt·(yt − ys) at the temperature, Σ2^yh at temperature 1. `Value` is a vector of
/// eight classes, or float64 for a whole block or row.
template <typename Value>
struct Sums {
  Value student{}, teacher{}, cross{}, hard{};

  friend Sums operator+(const Sums& a, const Sums& b) {
    return {a.student + b.student, a.teacher + b.teacher, a.cross + b.cross, a.hard + b.hard};
  }
};

/// How logits become exponents of 2: y = (logit − ref) · scale, scale = log2(e) / temperature.
struct Exponents {
  float s_ref, t_ref, scale;
};

/// The exponentials of a row, kept for the second sweep, and each block's references.
struct Scratch {
  float *student, *teacher, *hard, *s_refs, *t_refs;

  Scratch(float* memory, int64_t classes)
      : student(memory),
        teacher(student + round_up(classes)),
        hard(teacher + round_up(classes)),
        s_refs(hard + round_up(classes)),
        t_refs(s_refs + (classes + kBlock - 1) / kBlock) {}
};

template <bool kHard>
inline Sums<F8> terms(const float* s, const float* t, const Exponents& by) {
  const F8 s_distance = load<F8>(s) - by.s_ref;
  const F8 ys = s_distance * by.scale;
  const F8 yt = (load<F8>(t) - by.t_ref) * by.scale;
  const F8 et = exp2_or_zero(yt);
  // A class the teacher gives nothing adds nothing, whatever the student's logit, −inf included.
  const F8 cross = et == 0.0f ? F8{} : et * (yt - ys);
  return {exp2_or_zero(ys), et, cross, kHard ? exp2_or_zero(s_distance * static_cast<float>(kLog2E)) : F8{}};
}

/// The sums over one block, four vectors at a time in float; with `kKeep` the exponentials are kept from `offset` on.
template <bool kKeep, bool kHard>
inline Sums<double> block_sums(const float* s, const float* t, int64_t count, const Exponents& by,
                               const Scratch& scratch, int64_t offset) {
  LaneSums student, teacher, cross, hard;
  const auto next = [&](int64_t i) {
    const Sums<F8> term = terms<kHard>(s + i, t + i, by);
    if (kKeep) {
      store(scratch.student + offset + i, term.student);
      store(scratch.teacher + offset + i, term.teacher);
    }
    if (kKeep && kHard) {
      store(scratch.hard + offset + i, term.hard);
    }
    return term;
  };
  const auto add = [&](const Sums<F8>& term) {
    student.add(term.student);
    teacher.add(term.teacher);
    cross.add(term.cross);
    if (kHard) {
      hard.add(term.hard);
    }
  };
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const Sums<F8> half = next(i) + next(i + kLanes);
    add(half + (next(i + 2 * kLanes) + next(i + 3 * kLanes)));
  }
  for (; i < count; i += kLanes) {
    add(next(i));
  }
  return {student.total(), teacher.total(), cross.total(), hard.total()};
}

/// A row's maximum so far. Exponentials are relative to `used()`, which is finite while only −inf was seen.
struct Reference {
  float max = -INFINITY;

  float used() const { return max == -INFINITY ? 0.0f : max; }

  /// Takes a block's maximum in; returns the way from there down to the one before, ≤ 0.
  double raise(float block_max) {
    const float before = max;
    if (!(block_max > before)) {
      return 0.0;
    }
    max = block_max;
    return before == -INFINITY ? 0.0 : double(before) - double(max);
  }
};

/// Makes the sums relative to references that lie `s_down` and `t_down` below (both ≤ 0).
inline void rescale(Sums<double>& sums, double s_down, double t_down, double scale) {
  if (s_down == 0.0 && t_down == 0.0) {
    return;
  }
  const double shrink = exp2(t_down * scale);
  const bool vanished = shrink < 0x1.0p-126;  // as a single element does
  sums.cross = vanished ? 0.0 : shrink * (sums.cross + (t_down - s_down) * scale * sums.teacher);
  sums.teacher = vanished ? 0.0 : shrink * sums.teacher;
  sums.student *= exp2(s_down * scale);
  sums.hard *= exp2(s_down * kLog2E);
}

inline double sum_of(const float* x, int64_t count) {
  LaneSums lanes;
  double tail = 0.0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    lanes.add(load<F8>(x + i));
  }
  for (; i < count; ++i) {
    tail += x[i];
  }
  return lanes.total() + tail;
}

/// What the label needs of the student's logits: its own, and for smoothing the sum of all.
struct LabelLogits {
  double own = 0.0, sum = 0.0;

  void add(const HardLabel& label, const float* s, int64_t offset, int64_t count) {
    if (label.index >= offset && label.index < offset + count) {
      own = s[label.index - offset];
    }
    if (label.smoothing > 0.0) {
      sum += sum_of(s, count);
    }
  }

  double cross_entropy(const HardLabel& label, double log_sum_exp, int64_t classes) const {
    const double own_part = (1.0 - label.smoothing) * (log_sum_exp - own);
    return label.smoothing > 0.0 ? own_part + label.smoothing * (log_sum_exp - sum / double(classes)) : own_part;
  }
};

// ---- second sweep ----

/// What turns kept exponentials, relative to a block's references, into coefficient · probability, and what is taken
/// off every class.
struct Factors {
  float student, teacher, hard, spread;
};

template <bool kHard>
inline void block_gradient(const Scratch& scratch, int64_t offset, int64_t count, const Factors& factors, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const F8 q = load<F8>(scratch.student + offset + i) * factors.student;
    const F8 soft = q - load<F8>(scratch.teacher + offset + i) * factors.teacher;
    const F8 hard = kHard ? load<F8>(scratch.hard + offset + i) * factors.hard - factors.spread : F8{};
    store(out + i, kHard ? soft + hard : soft);
  }
}

/// 2^(way from the row's last reference down to the block's).
inline double shrink_of(float block_ref, const Reference& row_ref, double scale) {
  const bool same = block_ref == row_ref.max || block_ref == -INFINITY;  // −inf: the block holds zeros only
  return same ? 1.0 : exp2((double(block_ref) - double(row_ref.max)) * scale);
}

template <bool kHard>
void write_gradient(const KdRow& row, const Scratch& scratch, const Reference& s_ref, const Reference& t_ref,
                    const Sums<double>& sums, float scale) {
  alignas(32) float buffer[kBlock];
  const GradientRow& to = row.gradient;
  for (int64_t offset = 0, block = 0; offset < row.classes; offset += kBlock, ++block) {
    const int64_t count = row.classes - offset < kBlock ? row.classes - offset : kBlock;
    const bool direct = to.type == LogitType::kFloat && count % kLanes == 0;
    float* out = direct ? static_cast<float*>(to.data) + offset : buffer;
    const float s_block = scratch.s_refs[block];
    const Factors factors{static_cast<float>(to.soft / sums.student * shrink_of(s_block, s_ref, scale)),
                          static_cast<float>(to.soft / sums.teacher * shrink_of(scratch.t_refs[block], t_ref, scale)),
                          kHard ? static_cast<float>(to.hard / sums.hard * shrink_of(s_block, s_ref, kLog2E)) : 0.0f,
                          kHard ? static_cast<float>(to.hard * row.label.smoothing / double(row.classes)) : 0.0f};
    block_gradient<kHard>(scratch, offset, round_up(count), factors, out);
    if (kHard && row.label.index >= offset && row.label.index < offset + count) {
      out[row.label.index - offset] -= static_cast<float>(to.hard * (1.0 - row.label.smoothing));
    }
    unstage(out, to, offset, count);
  }
}

template <bool kKeep, bool kHard>
KdRowLoss both_sweeps(const KdRow& row, float* memory) {
  alignas(32) float s_buffer[kBlock], t_buffer[kBlock];
  const float scale = static_cast<float>(kLog2E / row.temperature);
  Scratch scratch(memory, row.classes);
  if (kKeep && row.gradient.type == LogitType::kFloat && row.classes % kLanes == 0) {
    scratch.student = static_cast<float*>(row.gradient.data);  // has the room, and is written anyway
  }
  Reference s_ref, t_ref;
  Sums<double> sums;
  LabelLogits logits;
  for (int64_t offset = 0, block = 0; offset < row.classes; offset += kBlock, ++block) {
    const int64_t count = row.classes - offset < kBlock ? row.classes - offset : kBlock;
    const float* s = staged(row.student, offset, count, s_buffer);
    const float* t = staged(row.teacher, offset, count, t_buffer);
    const double s_down = s_ref.raise(block_max(s, round_up(count)));
    const double t_down = t_ref.raise(block_max(t, round_up(count)));
    rescale(sums, s_down, t_down, scale);
    const Exponents by{s_ref.used(), t_ref.used(), scale};
    sums = sums + block_sums<kKeep, kHard>(s, t, round_up(count), by, scratch, offset);
    if (kHard) {
      logits.add(row.label, s, offset, count);
    }
    if (kKeep) {
      scratch.s_refs[block] = s_ref.max;
      scratch.t_refs[block] = t_ref.max;
    }
  }
  if (kKeep) {
    write_gradient<kHard>(row, scratch, s_ref, t_ref, sums, scale);
  }
  const double divergence = kLn2 * (sums.cross / sums.teacher) + log(sums.student / sums.teacher);
  return {divergence < 0.0 ? 0.0 : divergence,  // rounding only: it is never negative, and NaN stays
          kHard ? logits.cross_entropy(row.label, log(sums.hard) + s_ref.max, row.classes) : 0.0};
}

}  // namespace

KdRowLoss kd_row(const KdRow& row, float* scratch) {
  if (row.label.index < 0) {
    return row.gradient.data == nullptr ? both_sweeps<false, false>(row, scratch)
                                        : both_sweeps<true, false>(row, scratch);
  }
  return row.gradient.data == nullptr ? both_sweeps<false, true>(row, scratch) : both_sweeps<true, true>(row, scratch);
}

}  // namespace torchslim::CPU_CAPABILITY
