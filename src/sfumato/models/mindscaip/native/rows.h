// What happens in each row by itself, norm and activation, in four passes each:
//
//   forward   y = f(x)
//   pull      gx = f′(x)ᵀ g, the gradient
//   push      ẏ = f′(x) ẋ, the change of y as x changes by ẋ
//   second    ġx = f′(x)ᵀ ġ + (d/dt f′(x))ᵀ g, the change of that gradient
#pragma once

#include "lanes.h"

namespace sfumato {

constexpr float NORM_EPSILON = 1e-5f;

// y = r (x − mean x) with r = 1/√(variance + ε); returns r.
SFUMATO_INLINE float norm(const float* x, float* y, int C) {
  vec s = all(0.f), q = all(0.f);
  for (int j = 0; j < C; j += LANES) s += load(x + j);
  vec mean = all(sum(s) / C);
  for (int j = 0; j < C; j += LANES) {
    vec d = load(x + j) - mean;
    q += d * d;
  }
  float r = 1.f / std::sqrt(sum(q) / C + NORM_EPSILON);
  for (int j = 0; j < C; j += LANES) store(y + j, (load(x + j) - mean) * all(r));
  return r;
}

// out = r L g (+ add), L g = g − mean g − y mean(g y). As L is symmetric this is also the push.
SFUMATO_INLINE void norm_pull(const float* g, const float* y, float r, const float* add, float* out, int C) {
  vec s = all(0.f), q = all(0.f);
  for (int j = 0; j < C; j += LANES) {
    vec a = load(g + j);
    s += a;
    q += a * load(y + j);
  }
  vec mean = all(sum(s) / C), along = all(sum(q) / C), rate = all(r);
  for (int j = 0; j < C; j += LANES) {
    vec pulled = (load(g + j) - mean - load(y + j) * along) * rate;
    store(out + j, add ? pulled + load(add + j) : pulled);
  }
}

// out += d/dt (r L) g as x changes by ẋ and y by ẏ:
// −r² mean(ẋ y) L g − r ẏ mean(g y) − r y mean(g ẏ).
SFUMATO_INLINE void norm_second(const float* dx, const float* dy, const float* g, const float* y, float r, float* out,
                                int C) {
  vec s = all(0.f), gy = s, xy = s, gd = s;
  for (int j = 0; j < C; j += LANES) {
    vec G = load(g + j), Y = load(y + j);
    s += G;
    gy += G * Y;
    xy += load(dx + j) * Y;
    gd += G * load(dy + j);
  }
  float along = sum(gy) / C, slowing = -r * r * (sum(xy) / C);
  vec mean = all(sum(s) / C), by_y = all(along), by_g = all(slowing), by_dy = all(-r * along);
  vec rest = all(-r * (sum(gd) / C));
  for (int j = 0; j < C; j += LANES) {
    vec Y = load(y + j);
    vec more = by_g * (load(g + j) - mean - Y * by_y) + by_dy * load(dy + j) + rest * Y;
    store(out + j, load(out + j) + more);
  }
}

// f = silu(u) = u σ(u), or gated silu(u) v with v the second half of the row; σ is kept.
SFUMATO_INLINE void activate(const float* u, float* s, float* f, int hidden, bool gated) {
  for (int j = 0; j < hidden; j += LANES) {
    vec x = load(u + j), t = sigmoid(x);
    store(s + j, t);
    store(f + j, gated ? x * t * load(u + hidden + j) : x * t);
  }
}

// silu and its first two derivatives from u and σ.
struct Silu {
  vec value, slope, curvature;
  static inline __attribute__((always_inline)) Silu of(vec x, vec t) {
    vec q = t * (all(1.f) - t);
    return {x * t, t + x * q, q * (all(2.f) + x * (all(1.f) - t - t))};
  }
};

SFUMATO_INLINE void activate_pull(const float* u, const float* s, const float* gf, float* gu, int hidden, bool gated) {
  for (int j = 0; j < hidden; j += LANES) {
    Silu f = Silu::of(load(u + j), load(s + j));
    vec g = load(gf + j);
    store(gu + j, gated ? g * load(u + hidden + j) * f.slope : g * f.slope);
    if (gated) store(gu + hidden + j, g * f.value);
  }
}

SFUMATO_INLINE void activate_push(const float* u, const float* s, const float* du, float* df, int hidden, bool gated) {
  for (int j = 0; j < hidden; j += LANES) {
    Silu f = Silu::of(load(u + j), load(s + j));
    vec along = f.slope * load(du + j);
    store(df + j, gated ? along * load(u + hidden + j) + f.value * load(du + hidden + j) : along);
  }
}

// ġu from ġf, and once more what pull and push made of the same rows, for the gradients of the weights: f, ḟ and gu.
struct Again {
  float *f, *df, *gu;
};

SFUMATO_INLINE void activate_second(const float* u, const float* s, const float* gf, const float* du, const float* dgf,
                                    float* dgu, Again again, int hidden, bool gated) {
  for (int j = 0; j < hidden; j += LANES) {
    Silu f = Silu::of(load(u + j), load(s + j));
    vec g = load(gf + j), dg = load(dgf + j), along = f.slope * load(du + j), bent = f.curvature * load(du + j);
    if (!gated) {
      store(dgu + j, dg * f.slope + g * bent);
      store(again.f + j, f.value);
      store(again.df + j, along);
      store(again.gu + j, g * f.slope);
      continue;
    }
    vec v = load(u + hidden + j), dv = load(du + hidden + j);
    store(dgu + j, (dg * v + g * dv) * f.slope + g * v * bent);
    store(dgu + hidden + j, dg * f.value + g * along);
    store(again.f + j, f.value * v);
    store(again.df + j, along * v + f.value * dv);
    store(again.gu + j, g * v * f.slope);
    store(again.gu + hidden + j, g * f.value);
  }
}

}  // namespace sfumato
