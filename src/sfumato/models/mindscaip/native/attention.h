// Attention within one window for one head, in four passes (see rows.h).
//
// A window holds m tokens: an atom's own, then edges. Queries, keys and values are d wide and lie in rows of
// the packed array; the weights of the window are an m × width matrix, width = m padded.
//
//   S = α Q Kᵀ + log e + Σ_l w_l P_l(cosine),   P = softmax S,   O = P V
//
// D is the highest degree of the Legendre polynomials, known to the compiler: 0 for none, 6, or 12. What a network
// has less is filled up with weights of zero.
#pragma once

#include "products.h"

namespace sfumato {

constexpr float NEVER = -1e30f;

struct Window {
  int m, width;       // tokens, padded
  int asking;         // rows that ask: m, or 1 where only the atom's own token is read
  const float* log_e; // (width) of each key, NEVER in empty places
  const float* maps;  // (D + 1, m, width) P_l(cosine), zero where a key or query is no edge
  const float* turn;  // (m, width) the change of the cosines; push and second only

  long map() const { return (long)m * width; }
};

// One head: its columns of the rows of a window. K and V follow Q at `next` and `2 next`.
struct Head {
  int d;
  float scale;          // α
  const float* angles;  // (D + 1) w, the first of them 0
  const float* slopes;  // (D + 1) of Σ_l w_l P_l′ = Σ_j slopes_j P_j, the last of them 0
};

// Scratch for one window: as large as the largest.
struct Bench {
  std::vector<float> numbers[5];
  float* get(int which, size_t size) {
    if (numbers[which].size() < size) numbers[which].resize(size);
    return numbers[which].data();
  }
};

template <int FIRST, int LAST>
SFUMATO_INLINE vec series(const float* coefficients, const float* map, long stride) {
  vec total = all(coefficients[FIRST]) * load(map + FIRST * stride);
  for (int l = FIRST + 1; l <= LAST; l++) total += all(coefficients[l]) * load(map + l * stride);
  return total;
}

// P of the rows that ask.
template <int D>
static void weigh(const Window& w, const Head& h, const float* q, long ld, long next, float* P, Bench& bench) {
  float* keys = bench.get(0, (size_t)h.d * w.width);
  transpose(q + next, ld, w.m, h.d, keys, w.width);
  multiply_small(w.asking, w.width, h.d, q, ld, 1, keys, w.width, P, w.width, false, h.scale);
  for (int r = 0; r < w.asking; r++) {
    float* row = P + r * w.width;
    vec top = all(-3e38f), total = all(0.f);
    for (int j = 0; j < w.width; j += LANES) {
      vec x = load(row + j) + load(w.log_e + j);
      if (D && r) x += series<1, D>(h.angles, w.maps + r * w.width + j, w.map());
      store(row + j, x);
      top = larger(top, x);
    }
    vec most = all(largest(top));
    for (int j = 0; j < w.width; j += LANES) {
      vec x = exponential(load(row + j) - most);
      store(row + j, x);
      total += x;
    }
    vec inverse = all(1.f / sum(total));
    for (int j = 0; j < w.width; j += LANES) store(row + j, load(row + j) * inverse);
  }
}

static void attend(const Window& w, const Head& h, const float* q, long ld, long next, const float* P, float* o,
                   long ldo) {
  multiply_small(w.asking, h.d, w.m, P, w.width, 1, q + 2 * next, ld, o, ldo, false, 1.f);
}

// dP = G Vᵀ, dS = P∘(dP − Σ P∘dP); dQ = α dS K, dK = α dSᵀ Q, dV = Pᵀ G. What it adds to the gradients of
// log e (width) and of the cosines (m, width).
template <int D>
static void attend_pull(const Window& w, const Head& h, const float* q, long ld, long next, const float* P,
                        const float* g, long ldg, float* dS, float* gq, float* by_log_e, float* by_cosine,
                        Bench& bench) {
  float* values = bench.get(0, (size_t)h.d * w.width);
  transpose(q + 2 * next, ld, w.m, h.d, values, w.width);
  multiply_small(w.asking, w.width, h.d, g, ldg, 1, values, w.width, dS, w.width, false, 1.f);
  for (int r = 0; r < w.asking; r++) {
    const float* p = P + r * w.width;
    float *ds = dS + r * w.width, *turning = by_cosine + r * w.width;
    vec total = all(0.f);
    for (int j = 0; j < w.width; j += LANES) total += load(p + j) * load(ds + j);
    vec mean = all(sum(total));
    for (int j = 0; j < w.width; j += LANES) {
      vec x = load(p + j) * (load(ds + j) - mean);
      store(ds + j, x);
      store(by_log_e + j, load(by_log_e + j) + x);
      if (D && r) {
        vec slope = series<0, D - 1>(h.slopes, w.maps + r * w.width + j, w.map());
        store(turning + j, load(turning + j) + x * slope);
      }
    }
  }
  multiply_small(w.asking, h.d, w.m, dS, w.width, 1, q + next, ld, gq, ld, false, h.scale);
  multiply_small(w.m, h.d, w.asking, dS, 1, w.width, q, ld, gq + next, ld, false, h.scale);
  multiply_small(w.m, h.d, w.asking, P, 1, w.width, g, ldg, gq + 2 * next, ld, false, 1.f);
}

// With T the change of S: kept is T − Σ P∘T, so that P changes by P∘kept. log_e_change is (width).
template <int D>
static void attend_push(const Window& w, const Head& h, const float* q, const float* dq, long ld, long next,
                        const float* P, const float* log_e_change, float* kept, float* d_o, long ldo, Bench& bench) {
  float *keys = bench.get(0, (size_t)h.d * w.width), *changes = bench.get(1, (size_t)h.d * w.width);
  float* dP = bench.get(2, (size_t)w.map());
  transpose(q + next, ld, w.m, h.d, keys, w.width);
  transpose(dq + next, ld, w.m, h.d, changes, w.width);
  multiply_small(w.asking, w.width, h.d, dq, ld, 1, keys, w.width, kept, w.width, false, h.scale);
  multiply_small(w.asking, w.width, h.d, q, ld, 1, changes, w.width, kept, w.width, true, h.scale);
  for (int r = 0; r < w.asking; r++) {
    const float* p = P + r * w.width;
    float *t = kept + r * w.width, *dp = dP + r * w.width;
    vec total = all(0.f);
    for (int j = 0; j < w.width; j += LANES) {
      vec x = load(t + j) + load(log_e_change + j);
      if (D && r)
        x += series<0, D - 1>(h.slopes, w.maps + r * w.width + j, w.map()) * load(w.turn + r * w.width + j);
      store(t + j, x);
      total += x * load(p + j);
    }
    vec mean = all(sum(total));
    for (int j = 0; j < w.width; j += LANES) {
      vec x = load(t + j) - mean;
      store(t + j, x);
      store(dp + j, x * load(p + j));
    }
  }
  multiply_small(w.asking, h.d, w.m, dP, w.width, 1, q + 2 * next, ld, d_o, ldo, false, 1.f);
  multiply_small(w.asking, h.d, w.m, P, w.width, 1, dq + 2 * next, ld, d_o, ldo, true, 1.f);
}

// Sums over windows that make up the gradient of the angular weights: Σ dṠ∘P_l and Σ dS∘(turn)∘P_l.
struct AngleSums {
  vec by_change[13], by_turn[13];
};

template <int D>
static void add_angles(const Window& w, const float* z, const float* turning, AngleSums& sums) {
  for (int l = 0; l <= D; l++) {
    const float* map = w.maps + l * w.map();
    vec change = sums.by_change[l], turn = sums.by_turn[l];
    for (long i = 0; i < (long)w.asking * w.width; i += LANES) {
      vec value = load(map + i);
      change += load(z + i) * value;
      turn += load(turning + i) * value;
    }
    sums.by_change[l] = change, sums.by_turn[l] = turn;
  }
}

// The change of dS, Z − P Σ Z with Z = P∘(Ġ Vᵀ + G V̇ᵀ) + kept∘dS, and with it those of dQ, dK and dV.
template <int D>
static void attend_second(const Window& w, const Head& h, const float* q, const float* dq, long ld, long next,
                          const float* P, const float* dS, const float* kept, const float* g, const float* dg, long ldg,
                          float* dgq, AngleSums& sums, Bench& bench) {
  float *values = bench.get(0, (size_t)h.d * w.width), *changes = bench.get(1, (size_t)h.d * w.width);
  float *dP = bench.get(2, (size_t)w.map()), *z = bench.get(3, (size_t)w.map());
  float* turning = bench.get(4, (size_t)w.map());
  transpose(q + 2 * next, ld, w.m, h.d, values, w.width);
  transpose(dq + 2 * next, ld, w.m, h.d, changes, w.width);
  multiply_small(w.asking, w.width, h.d, dg, ldg, 1, values, w.width, z, w.width, false, 1.f);
  multiply_small(w.asking, w.width, h.d, g, ldg, 1, changes, w.width, z, w.width, true, 1.f);
  for (int r = 0; r < w.asking; r++) {
    const long at = (long)r * w.width;
    vec total = all(0.f);
    for (int j = 0; j < w.width; j += LANES) {
      vec p = load(P + at + j), t = load(kept + at + j);
      vec x = p * load(z + at + j) + t * load(dS + at + j);
      store(z + at + j, x);
      store(dP + at + j, p * t);
      total += x;
    }
    vec mean = all(sum(total));
    for (int j = 0; j < w.width; j += LANES) {
      vec x = load(z + at + j) - mean * load(P + at + j);
      store(z + at + j, x);
      if (D) store(turning + at + j, load(dS + at + j) * load(w.turn + at + j));
    }
  }
  if (D) add_angles<D>(w, z, turning, sums);
  multiply_small(w.asking, h.d, w.m, z, w.width, 1, q + next, ld, dgq, ld, false, h.scale);
  multiply_small(w.asking, h.d, w.m, dS, w.width, 1, dq + next, ld, dgq, ld, true, h.scale);
  multiply_small(w.m, h.d, w.asking, z, 1, w.width, q, ld, dgq + next, ld, false, h.scale);
  multiply_small(w.m, h.d, w.asking, dS, 1, w.width, dq, ld, dgq + next, ld, true, h.scale);
  multiply_small(w.m, h.d, w.asking, dP, 1, w.width, g, ldg, dgq + 2 * next, ld, false, 1.f);
  multiply_small(w.m, h.d, w.asking, P, 1, w.width, dg, ldg, dgq + 2 * next, ld, true, 1.f);
}

}  // namespace sfumato
