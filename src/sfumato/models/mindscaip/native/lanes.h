// Vectors of floats, as wide as the machine has them, and the few functions of them that the network needs.
//
// Everything else is written in rows whose length is a multiple of PANEL, so that no loop has a remainder.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace sfumato {

#if defined(__AVX512F__)
constexpr int LANES = 16, STRIP = 12;
#elif defined(__AVX__)
constexpr int LANES = 8, STRIP = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, STRIP = 6;
#else
constexpr int LANES = 4, STRIP = 2;
#endif
// STRIP rows times PANEL columns of a product are summed in registers.
constexpr int PANEL = 16, PARTS = PANEL / LANES;

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t int_vec __attribute__((vector_size(4 * LANES)));
typedef float four __attribute__((vector_size(16)));
typedef float loose_four __attribute__((vector_size(16), aligned(4), may_alias));

#define SFUMATO_INLINE static inline __attribute__((always_inline))

SFUMATO_INLINE vec load(const float* p) { return *(const loose_vec*)p; }
SFUMATO_INLINE void store(float* p, vec x) { *(loose_vec*)p = x; }
SFUMATO_INLINE vec all(float x) { return x - (vec){}; }
SFUMATO_INLINE vec larger(vec a, vec b) { return a > b ? a : b; }
SFUMATO_INLINE int padded(int n) { return (n + PANEL - 1) / PANEL * PANEL; }

SFUMATO_INLINE float sum(vec x) {
#if defined(__AVX__) && !defined(__AVX512F__)
  __m128 a = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
#else
  float part[LANES];
  store(part, x);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  return part[0];
#endif
}

SFUMATO_INLINE float largest(vec x) {
#if defined(__AVX__) && !defined(__AVX512F__)
  __m128 a = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
#else
  float part[LANES];
  store(part, x);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) part[i] = part[i] > part[i + half] ? part[i] : part[i + half];
  return part[0];
#endif
}

// e^x to 1e-7 for x ≤ 88; exactly 0 below −87, before numbers lose digits and processors slow down.
// x = n ln 2 + r; adding 1.5·2²³ rounds x/ln 2 and leaves n in the lowest bits, from where it is shifted into
// the exponent. The polynomial is that of Cephes (S. Moshier).
SFUMATO_INLINE vec exponential(vec x) {
  const vec shift = all(12582912.f);
  vec within = larger(x, all(-87.f));
  vec t = within * all(1.44269504088896341f) + shift, n = t - shift;
  vec r = within - n * all(0.693359375f);
  r = r - n * all(-2.12194440e-4f);
  vec p = all(1.9875691500e-4f);
  p = p * r + all(1.3981999507e-3f);
  p = p * r + all(8.3334519073e-3f);
  p = p * r + all(4.1665795894e-2f);
  p = p * r + all(1.6666665459e-1f);
  p = p * r + all(5.0000001201e-1f);
  p = p * r * r + r + all(1.f);
  vec y = (vec)((int_vec)p + ((int_vec)t << 23));
  return x < all(-87.f) ? all(0.f) : y;
}

SFUMATO_INLINE vec sigmoid(vec x) {
  vec y = -x < all(88.f) ? -x : all(88.f);
  return all(1.f) / (all(1.f) + exponential(y));
}

SFUMATO_INLINE four interleave_low(four a, four b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#else
  typedef int32_t index __attribute__((vector_size(16)));
  return __builtin_shuffle(a, b, (index){0, 4, 1, 5});
#endif
}

SFUMATO_INLINE four interleave_high(four a, four b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
  typedef int32_t index __attribute__((vector_size(16)));
  return __builtin_shuffle(a, b, (index){2, 6, 3, 7});
#endif
}

// Write the transpose of `rows` × `columns` numbers, columns a multiple of 4, zero from column `rows` up to
// `width`, a multiple of 4.
static inline void transpose(const float* from, long stride, int rows, int columns, float* to, int width) {
  for (int j = 0; j < width; j += 4)
    for (int c = 0; c < columns; c += 4) {
      four row[4];
      for (int i = 0; i < 4; i++)
        row[i] = j + i < rows ? *(const loose_four*)(from + (j + i) * stride + c) : (four){};
      four ac = interleave_low(row[0], row[2]), bd = interleave_low(row[1], row[3]);
      four ac2 = interleave_high(row[0], row[2]), bd2 = interleave_high(row[1], row[3]);
      float* out = to + (long)c * width + j;
      *(loose_four*)out = interleave_low(ac, bd);
      *(loose_four*)(out + width) = interleave_high(ac, bd);
      *(loose_four*)(out + 2 * width) = interleave_low(ac2, bd2);
      *(loose_four*)(out + 3 * width) = interleave_high(ac2, bd2);
    }
}

}  // namespace sfumato
