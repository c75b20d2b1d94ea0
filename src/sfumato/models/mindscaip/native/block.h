// Half a layer, x + attention(norm x) and then x + feed-forward(norm x), in four passes (see rows.h).
#pragma once

#include "parts.h"

namespace sfumato {

// What a half keeps of each pass for the later ones; rows in the order of its side.
struct Trace {
  float *n1, *r1, *qkv, *P, *o, *n2, *r2, *u, *s;        // forward
  float *g, *gf, *gn2, *g2, *go, *dS, *gqkv, *gn1;       // pull
  float *dx, *dn1, *dqkv, *kept, *d_o, *dy, *dn2, *du;   // push
};

struct Half {
  Linear qkv, out;
  FeedForward node, edge;
  const float* angles = nullptr;
  size_t at_angles = 0;
  std::vector<float> series, slopes;  // (heads, degree + 1) of the angular bias and of its derivative
};

// Rows that are used within one group of windows and then no more: memory for the largest group, which stays in
// the processor's cache. What an array has here begins with the first row of the group.
struct Scratch {
  float *f, *df, *gf, *gu, *dgf, *dgu;                   // hidden channels, or those of `up`
  float *gn2, *g2, *gn1, *dgn, *dg2;                     // width
  float *go, *dgo, *gqkv, *dgqkv, *dS;

  void reserve(const Settings& s, const Side* sides, Arena& arena) {
    size_t rows = 0, maps = 0;
    for (int i = 0; i < 2; i++)
      each_group(sides[i], [&](Group g) {
        rows = std::max(rows, (size_t)(g.last_row - g.first_row));
        maps = std::max(maps, sides[i].square[g.last_atom] - sides[i].square[g.first_atom]);
      });
    const size_t hidden = rows * s.hidden, up = hidden * (s.gated ? 2 : 1);
    for (float** p : {&f, &df, &gf, &dgf}) *p = arena.take(hidden);
    for (float** p : {&gu, &dgu}) *p = arena.take(up);
    for (float** p : {&gn2, &g2, &gn1, &dgn, &dg2}) *p = arena.take(rows * s.width);
    for (float** p : {&go, &dgo}) *p = arena.take(rows * s.inner);
    for (float** p : {&gqkv, &dgqkv}) *p = arena.take(3 * rows * s.inner);
    dS = arena.take(maps * s.heads);
  }

  // The same, addressed by the rows of the group.
  Scratch of(const Settings& s, const Side& side, Group g) const {
    Scratch v = *this;
    const long row = g.first_row;
    for (float** p : {&v.f, &v.df, &v.gf, &v.dgf}) *p -= row * s.hidden;
    for (float** p : {&v.gu, &v.dgu}) *p -= row * s.hidden * (s.gated ? 2 : 1);
    for (float** p : {&v.gn2, &v.g2, &v.gn1, &v.dgn, &v.dg2}) *p -= row * s.width;
    for (float** p : {&v.go, &v.dgo}) *p -= row * s.inner;
    for (float** p : {&v.gqkv, &v.dgqkv}) *p -= 3 * row * s.inner;
    v.dS -= s.heads * side.square[g.first_atom];
    return v;
  }
};

template <int D>
class HalfPass {
 public:
  HalfPass(const Settings& s, const Half& half, const Side& side, const Trace& trace, const Scratch& scratch, Bench& bench,
           bool only_own)
      : s_(s), half_(half), side_(side), t_(trace), scratch_(scratch), bench_(bench), only_own_(only_own) {}

  // x: rows on this side, updated; taken from rows of the other side where `other` is given.
  void forward(const float* other, float* x) {
    const int C = s_.width, I = s_.inner;
    each_group(side_, [&](Group g) {
      float* f = scratch_.of(s_, side_, g).f;
      if (other) gather(g, other, x);
      each(g.rows(), [&](long i) { t_.r1[i] = norm(x + i * C, t_.n1 + i * C, C); });
      half_.qkv.forward(g.rows(), t_.n1, t_.qkv, false);
      each_head(g, [&](const Window& w, const Head& h, long at, size_t square) {
        weigh<D>(w, h, t_.qkv + 3 * I * at_row_ + at, 3 * I, I, t_.P + square, bench_);
        attend(w, h, t_.qkv + 3 * I * at_row_ + at, 3 * I, I, t_.P + square, t_.o + I * at_row_ + at, I);
      });
      half_.out.forward(asking(g), t_.o, x, true);
      each(asking(g), [&](long i) { t_.r2[i] = norm(x + i * C, t_.n2 + i * C, C); });
      each_feed(g, [&](Rows rows, const FeedForward& feed) {
        feed.up.forward(rows, t_.n2, t_.u, false);
        each(rows, [&](long i) { activate(u(i), sigma(i), f + i * s_.hidden, s_.hidden, s_.gated); });
        feed.down.forward(rows, f, x, true);
      });
    });
  }

  // From trace.g, the gradient by the rows, to gx, that by the rows before; adds to those of the windows. What
  // is not kept for `second` lies in scratch.
  void pull(float* gx, bool keep) {
    const int C = s_.width, I = s_.inner, hid = s_.hidden;
    each_group(side_, [&](Group g) {
      const Scratch v = scratch_.of(s_, side_, g);
      Trace t = t_;
      if (!keep) t.gf = v.gf, t.gn2 = v.gn2, t.g2 = v.g2, t.go = v.go, t.dS = v.dS, t.gqkv = v.gqkv, t.gn1 = v.gn1;
      each_feed(g, [&](Rows rows, const FeedForward& feed) {
        feed.down.pull(rows, t.g, t.gf);
        each(rows, [&](long i) { activate_pull(u(i), sigma(i), t.gf + i * hid, v.gu + i * up_, hid, s_.gated); });
        feed.up.pull(rows, v.gu, t.gn2);
      });
      if (only_own_) each(g.rows(), [&](long i) { copy_row(t.g + i * C, t.g2 + i * C, C); });
      each(asking(g), [&](long i) {
        norm_pull(t.gn2 + i * C, t.n2 + i * C, t.r2[i], t.g + i * C, t.g2 + i * C, C);
      });
      half_.out.pull(asking(g), t.g2, t.go);
      silence_others(g, t.gqkv);
      each_head(g, [&](const Window& w, const Head& h, long at, size_t square) {
        attend_pull<D>(w, h, t.qkv + 3 * I * at_row_ + at, 3 * I, I, t.P + square, t.go + I * at_row_ + at, I,
                    t.dS + square, t.gqkv + 3 * I * at_row_ + at, side_.by_log_e + side_.keys[atom_],
                    side_.by_cosine + side_.square[atom_], bench_);
      });
      half_.qkv.pull(g.rows(), t.gqkv, t.gn1);
      each(g.rows(), [&](long i) {
        norm_pull(t.gn1 + i * C, t.n1 + i * C, t.r1[i], t.g2 + i * C, gx + i * C, C);
      });
    });
  }

  // From the change of the rows of the other side (of this one where `gathered`) to that of this half's result.
  void push(const float* other, bool gathered, float* result) {
    const int C = s_.width, I = s_.inner;
    each_group(side_, [&](Group g) {
      float* df = scratch_.of(s_, side_, g).df;
      if (gathered)
        each(g.rows(), [&](long i) { copy_row(other + i * C, t_.dx + i * C, C); });
      else
        gather(g, other, t_.dx);
      each(g.rows(), [&](long i) {
        norm_pull(t_.dx + i * C, t_.n1 + i * C, t_.r1[i], nullptr, t_.dn1 + i * C, C);
        copy_row(t_.dx + i * C, t_.dy + i * C, C);
      });
      half_.qkv.push(g.rows(), t_.dn1, t_.dqkv, false);
      each_head(g, [&](const Window& w, const Head& h, long at, size_t square) {
        attend_push<D>(w, h, t_.qkv + 3 * I * at_row_ + at, t_.dqkv + 3 * I * at_row_ + at, 3 * I, I, t_.P + square,
                    side_.d_log_e + side_.keys[atom_], t_.kept + square, t_.d_o + I * at_row_ + at, I, bench_);
      });
      half_.out.push(asking(g), t_.d_o, t_.dy, true);
      each(asking(g), [&](long i) {
        norm_pull(t_.dy + i * C, t_.n2 + i * C, t_.r2[i], nullptr, t_.dn2 + i * C, C);
      });
      each(g.rows(), [&](long i) { copy_row(t_.dy + i * C, result + i * C, C); });
      each_feed(g, [&](Rows rows, const FeedForward& feed) {
        feed.up.push(rows, t_.dn2, t_.du, false);
        each(rows, [&](long i) {
          activate_push(u(i), sigma(i), t_.du + i * up_, df + i * s_.hidden, s_.hidden, s_.gated);
        });
        feed.down.push(rows, df, result, true);
      });
    });
  }

  // Change of the gradients: from dg, of this half's result, to dgx. Adds to the gradients of the weights.
  void second(const float* dg, float* dgx, float* gradients) {
    const int C = s_.width, I = s_.inner, hid = s_.hidden;
    std::vector<AngleSums> sums(s_.heads);
    memset((void*)sums.data(), 0, sums.size() * sizeof(AngleSums));
    each_group(side_, [&](Group g) {
      const Scratch v = scratch_.of(s_, side_, g);
      each_feed(g, [&](Rows rows, const FeedForward& feed) {
        feed.down.pull(rows, dg, v.dgf);
        each(rows, [&](long i) {
          activate_second(u(i), sigma(i), t_.gf + i * hid, t_.du + i * up_, v.dgf + i * hid, v.dgu + i * up_,
                          {v.f + i * hid, v.df + i * hid, v.gu + i * up_}, hid, s_.gated);
        });
        feed.down.second(rows, dg, v.f, t_.g, v.df, gradients);
        feed.up.second(rows, v.dgu, t_.n2, v.gu, t_.dn2, gradients);
        feed.up.pull(rows, v.dgu, v.dgn);
      });
      if (only_own_) each(g.rows(), [&](long i) { copy_row(dg + i * C, v.dg2 + i * C, C); });
      each(asking(g), [&](long i) {
        norm_pull(v.dgn + i * C, t_.n2 + i * C, t_.r2[i], dg + i * C, v.dg2 + i * C, C);
        norm_second(t_.dy + i * C, t_.dn2 + i * C, t_.gn2 + i * C, t_.n2 + i * C, t_.r2[i], v.dg2 + i * C, C);
      });
      half_.out.pull(asking(g), v.dg2, v.dgo);
      half_.out.second(asking(g), v.dg2, t_.o, t_.g2, t_.d_o, gradients);
      silence_others(g, v.dgqkv);
      each_head(g, [&](const Window& w, const Head& h, long at, size_t square) {
        attend_second<D>(w, h, t_.qkv + 3 * I * at_row_ + at, t_.dqkv + 3 * I * at_row_ + at, 3 * I, I, t_.P + square,
                      t_.dS + square, t_.kept + square, t_.go + I * at_row_ + at, v.dgo + I * at_row_ + at, I,
                      v.dgqkv + 3 * I * at_row_ + at, sums[at / h.d], bench_);
      });
      half_.qkv.pull(g.rows(), v.dgqkv, v.dgn);
      half_.qkv.second(g.rows(), v.dgqkv, t_.n1, t_.gqkv, t_.dn1, gradients);
      each(g.rows(), [&](long i) {
        norm_pull(v.dgn + i * C, t_.n1 + i * C, t_.r1[i], v.dg2 + i * C, dgx + i * C, C);
        norm_second(t_.dx + i * C, t_.dn1 + i * C, t_.gn1 + i * C, t_.n1 + i * C, t_.r1[i], dgx + i * C, C);
      });
    });
    if (D) add_angle_gradients(sums, gradients);
  }

 private:
  const Settings& s_;
  const Half& half_;
  const Side& side_;
  const Trace& t_;
  const Scratch& scratch_;
  Bench& bench_;
  const bool only_own_;
  const long up_ = (long)s_.hidden * (s_.gated ? 2 : 1);
  long at_row_ = 0;  // of the window that is worked on
  int atom_ = 0;

  const float* u(long i) const { return t_.u + i * up_; }
  float* sigma(long i) const { return t_.s + i * s_.hidden; }

  template <class Do>
  static void each(Rows rows, Do act) {
    for (int i = 0; i < rows.count; i++) act((long)rows[i]);
  }
  Rows own(Group g) const { return {side_.own.data() + g.first_atom, 0, g.last_atom - g.first_atom}; }
  Rows asking(Group g) const { return only_own_ ? own(g) : g.rows(); }

  template <class Do>
  void each_feed(Group g, Do act) {
    if (!s_.node_ffn) return act(asking(g), half_.edge);
    act(own(g), half_.node);
    const int before = g.first_row - g.first_atom;
    if (!only_own_) act(Rows{side_.others.data() + before, 0, g.last_row - g.last_atom - before}, half_.edge);
  }

  template <class Do>
  void each_head(Group g, Do act) {
    const int d = s_.inner / s_.heads;
    for (int a = g.first_atom; a < g.last_atom; a++) {
      atom_ = a, at_row_ = side_.first[a];
      const Window w = side_.window(a, D, only_own_);
      for (int h = 0; h < s_.heads; h++) {
        const long k = (long)h * (D + 1);
        act(w, Head{d, s_.scale, half_.series.data() + k, half_.slopes.data() + k}, (long)h * d,
            s_.heads * side_.square[a] + (size_t)h * w.map());
      }
    }
  }

  void gather(Group g, const float* other, float* x) {
    each(g.rows(), [&](long i) { copy_row(other + (long)side_.from[i] * s_.width, x + i * s_.width, s_.width); });
  }

  // Where only atoms ask, queries of edges have no gradient.
  void silence_others(Group g, float* gqkv) {
    if (only_own_) memset(gqkv + 3L * s_.inner * g.first_row, 0, 3L * s_.inner * (g.last_row - g.first_row) * sizeof(float));
  }

  void add_angle_gradients(const std::vector<AngleSums>& sums, float* gradients) {
    for (int h = 0; h < (int)sums.size(); h++)
      for (int l = 1; l <= s_.degree; l++) {
        double total = sum(sums[h].by_change[l]);
        for (int j = l - 1; j >= 0; j -= 2) total += (2 * j + 1) * sum(sums[h].by_turn[j]);
        gradients[half_.at_angles + (size_t)h * s_.degree + l - 1] += (float)total;
      }
  }
};

}  // namespace sfumato
