// Matrix products: rows times packed weights, the gradients of weights, and the small products of attention.
#pragma once

#include <vector>

#include "lanes.h"

namespace sfumato {

// Some rows of an array: `count` of them from `first` on, or those listed.
struct Rows {
  const int* list;
  int first, count;
  int operator[](int i) const { return list ? list[i] : first + i; }
};

// STRIP rows at most of C (+)= scale · A B (+ bias): A by the addresses of its rows and a stride, K × PANEL of B.
template <int M>
SFUMATO_INLINE void tile(const float* const* a, long a_stride, const float* b, long b_stride, float* const* c,
                         int K, const float* bias, bool add, float scale) {
  vec total[M][PARTS];
  for (int r = 0; r < M; r++)
    for (int p = 0; p < PARTS; p++) total[r][p] = all(0.f);
  for (int k = 0; k < K; k++, b += b_stride) {
    vec right[PARTS];
    for (int p = 0; p < PARTS; p++) right[p] = load(b + p * LANES);
    for (int r = 0; r < M; r++) {
      vec left = all(a[r][k * a_stride]);
      for (int p = 0; p < PARTS; p++) total[r][p] += left * right[p];
    }
  }
  for (int r = 0; r < M; r++)
    for (int p = 0; p < PARTS; p++) {
      vec x = total[r][p] * all(scale);
      if (bias) x += load(bias + p * LANES);
      if (add) x += load(c[r] + p * LANES);
      store(c[r] + p * LANES, x);
    }
}

template <int M>
SFUMATO_INLINE void tile_of(int rows, const float* const* a, long a_stride, const float* b, long b_stride,
                            float* const* c, int K, const float* bias, bool add, float scale) {
  if constexpr (M > 1)
    if (rows < M) return tile_of<M - 1>(rows, a, a_stride, b, b_stride, c, K, bias, add, scale);
  tile<M>(a, a_stride, b, b_stride, c, K, bias, add, scale);
}

// How many of the rows that are left to take next: never one row alone after full strips.
SFUMATO_INLINE int next_strip(int left) {
  return left <= STRIP ? left : left < 2 * STRIP ? (left + 1) / 2 : STRIP;
}

// A matrix K × N packed in panels of PANEL columns, zero beyond N.
struct Packed {
  int K = 0, N = 0;  // N padded
  std::vector<float> data;

  // From rows of another layout: entry (k, n) at from[k · row + n · column].
  void pack(const float* from, int rows, int columns, long row, long column) {
    K = rows, N = padded(columns);
    data.resize((size_t)K * N);
    for (int n = 0; n < N; n += PANEL)
      for (int k = 0; k < K; k++)
        for (int j = 0; j < PANEL; j++)
          data[(size_t)n * K + k * PANEL + j] = n + j < columns ? from[k * row + (n + j) * column] : 0.f;
  }
};

// C = A B (+ bias) in some rows, or added to what is there. Panels of B that fit into the first cache together
// are used for all rows before the next.
static void multiply(Rows rows, const float* A, long lda, const Packed& B, float* C, long ldc, const float* bias,
                     bool add) {
  const float* a[STRIP];
  float* c[STRIP];
  int together = 6144 / B.K / PANEL * PANEL;
  if (together < PANEL) together = PANEL;
  for (int start = 0; start < B.N; start += together) {
    int stop = start + together < B.N ? start + together : B.N;
    for (int i = 0; i < rows.count;) {
      int m = next_strip(rows.count - i);
      for (int n = start; n < stop; n += PANEL) {
        for (int r = 0; r < m; r++) a[r] = A + rows[i + r] * lda, c[r] = C + rows[i + r] * ldc + n;
        tile_of<STRIP>(m, a, 1, B.data.data() + (size_t)n * B.K, PANEL, c, B.K, bias ? bias + n : nullptr, add,
                       1.f);
      }
      i += m;
    }
  }
}

// C (M × N) (+)= scale · A B, N a multiple of PANEL, for matrices of the size of a window.
static void multiply_small(int M, int N, int K, const float* A, long a_row, long a_column, const float* B, long ldb,
                           float* C, long ldc, bool add, float scale) {
  const float* a[STRIP];
  float* c[STRIP];
  for (int i = 0; i < M;) {
    int m = next_strip(M - i);
    for (int n = 0; n < N; n += PANEL) {
      for (int r = 0; r < m; r++) a[r] = A + (i + r) * a_row, c[r] = C + (i + r) * ldc + n;
      tile_of<STRIP>(m, a, a_column, B + n, ldb, c, K, nullptr, add, scale);
    }
    i += m;
  }
}

// Arrays whose rows are multiplied: Σ over rows of g ⊗ x.
struct Outer {
  const float* g;
  long ldg;
  const float* x;
  long ldx;
};

template <int M>
SFUMATO_INLINE void outer_tile(Rows rows, const Outer* terms, int n_terms, int m, int n, float* const* w, int width) {
  vec total[M][PARTS];
  for (int r = 0; r < M; r++)
    for (int p = 0; p < PARTS; p++) total[r][p] = all(0.f);
  for (int t = 0; t < n_terms; t++) {
    const Outer& o = terms[t];
    for (int k = 0; k < rows.count; k++) {
      const float *g = o.g + rows[k] * o.ldg + m, *x = o.x + rows[k] * o.ldx + n;
      vec right[PARTS];
      for (int p = 0; p < PARTS; p++) right[p] = load(x + p * LANES);
      for (int r = 0; r < M; r++) {
        vec left = all(g[r]);
        for (int p = 0; p < PARTS; p++) total[r][p] += left * right[p];
      }
    }
  }
  for (int r = 0; r < M; r++) {
    float last[PANEL];
    float* to = width < PANEL ? last : w[r];
    if (width < PANEL) memcpy(last, w[r], width * sizeof(float));
    for (int p = 0; p < PARTS; p++) store(to + p * LANES, load(to + p * LANES) + total[r][p]);
    if (width < PANEL) memcpy(w[r], last, width * sizeof(float));
  }
}

template <int M>
SFUMATO_INLINE void outer_of(int count, Rows rows, const Outer* terms, int n_terms, int m, int n, float* const* w,
                             int width) {
  if constexpr (M > 1)
    if (count < M) return outer_of<M - 1>(count, rows, terms, n_terms, m, n, w, width);
  outer_tile<M>(rows, terms, n_terms, m, n, w, width);
}

// W (out × in) += Σ over rows and terms of g ⊗ x; rows of x are padded. The bias, if any, += Σ g of the first.
static void add_outer(Rows rows, int out, int in, const Outer* terms, int n_terms, float* W, float* bias) {
  for (int n = 0; n < in; n += PANEL)
    for (int m = 0; m < out;) {
      int count = next_strip(out - m);
      float* w[STRIP];
      for (int r = 0; r < count; r++) w[r] = W + (long)(m + r) * in + n;
      outer_of<STRIP>(count, rows, terms, n_terms, m, n, w, in - n);
      m += count;
    }
  if (!bias) return;
  for (int k = 0; k < rows.count; k++) {
    const float* g = terms[0].g + rows[k] * terms[0].ldg;
    int m = 0;
    for (; m + LANES <= out; m += LANES) store(bias + m, load(bias + m) + load(g + m));
    for (; m < out; m++) bias[m] += g[m];
  }
}

}  // namespace sfumato
