// The whole network for some structures of a batch: from positions to energies of atoms and forces, and, given how
// atoms move, to the gradient by the weights of the energy and of its change.
//
//   forward, pull    e(x), ∂e/∂x
//   learn            c ∂e/∂θ + d/dt ∂e/∂θ(x + t v), by a push and a second pull
#pragma once

#include "block.h"
#include "sight.h"

namespace sfumato {

struct Layer {
  Half half[2];
  FeedForward readout;
};

struct Network {
  Settings s{};
  Linear geometry, mix;
  const double* centers = nullptr;
  const float *itself = nullptr, *sources = nullptr, *targets = nullptr;
  size_t at_itself = 0, at_sources = 0, at_targets = 0;
  std::vector<Layer> layers;
  FeedForward energy;
  Harmonics harmonics;

  template <class Do>
  void each_linear(Do act) {
    act(geometry), act(mix), act(energy.up), act(energy.down);
    for (Layer& layer : layers) {
      act(layer.readout.up), act(layer.readout.down);
      for (Half& half : layer.half)
        act(half.qkv), act(half.out), act(half.node.up), act(half.node.down), act(half.edge.up), act(half.edge.down);
    }
  }

  // Read the weights again, after they have changed.
  void pack() {
    each_linear([](Linear& linear) {
      if (linear.w) linear.pack();
    });
    for (Layer& layer : layers)
      for (Half& half : layer.half) expand(half);
  }

 private:
  void expand(Half& half) {
    const int n = s.terms() + 1;
    half.series.assign((size_t)s.heads * n, 0.f), half.slopes.assign((size_t)s.heads * n, 0.f);
    if (!s.degree) return;
    for (int h = 0; h < s.heads; h++)
      for (int l = 1; l <= s.degree; l++) {
        const float w = half.angles[h * s.degree + l - 1];
        half.series[h * n + l] = w;
        for (int j = l - 1; j >= 0; j -= 2) half.slopes[h * n + j] += (2 * j + 1) * w;
      }
  }
};

// The feed-forward networks that read the atoms' rows, each after a norm; results are added to `to`.
class Reading {
 public:
  float* g = nullptr;  // (atoms, out) the gradient by the result

  void reserve(const FeedForward& net, int atoms, bool learn, Arena& arena) {
    net_ = &net, N = atoms, C = net.up.in, hidden = net.up.out, out = padded(net.down.out);
    for (float** p : {&n_, &gn_}) *p = arena.take((size_t)N * C);
    for (float** p : {&u_, &s_, &f_, &gf_, &gu_}) *p = arena.take((size_t)N * hidden);
    r_ = arena.take(N), g = arena.zeros((size_t)N * out);
    if (!learn) return;
    for (float** p : {&dx_, &dn_, &dgn_}) *p = arena.take((size_t)N * C);
    for (float** p : {&du_, &df_, &dgf_, &dgu_}) *p = arena.take((size_t)N * hidden);
  }

  // `rows`: where the atoms are in x; null: one after the other.
  void forward(const float* x, const int* rows, float* to) {
    for (int a = 0; a < N; a++) r_[a] = norm(x + at(rows, a), n_ + (long)a * C, C);
    net_->up.forward(every(), n_, u_, false);
    for (long i = 0; i < (long)N * hidden; i += hidden) activate(u_ + i, s_ + i, f_ + i, hidden, false);
    net_->down.forward(every(), f_, to, true);
  }

  void pull(const int* rows, float* gx) {
    net_->down.pull(every(), g, gf_);
    for (long i = 0; i < (long)N * hidden; i += hidden) activate_pull(u_ + i, s_ + i, gf_ + i, gu_ + i, hidden, false);
    net_->up.pull(every(), gu_, gn_);
    for (int a = 0; a < N; a++)
      norm_pull(gn_ + (long)a * C, n_ + (long)a * C, r_[a], gx + at(rows, a), gx + at(rows, a), C);
  }

  void push(const float* dx, const int* rows, float* to) {
    for (int a = 0; a < N; a++) {
      copy_row(dx + at(rows, a), dx_ + (long)a * C, C);
      norm_pull(dx_ + (long)a * C, n_ + (long)a * C, r_[a], nullptr, dn_ + (long)a * C, C);
    }
    net_->up.push(every(), dn_, du_, false);
    for (long i = 0; i < (long)N * hidden; i += hidden) activate_push(u_ + i, s_ + i, du_ + i, df_ + i, hidden, false);
    if (to) net_->down.push(every(), df_, to, true);
  }

  void second(const float* dg, const int* rows, float* dgx, float* gradients) {
    net_->down.pull(every(), dg, dgf_);
    for (long i = 0; i < (long)N * hidden; i += hidden)
      activate_second(u_ + i, s_ + i, gf_ + i, du_ + i, dgf_ + i, dgu_ + i, {f_ + i, df_ + i, gu_ + i}, hidden, false);
    net_->down.second(every(), dg, f_, g, df_, gradients);
    net_->up.second(every(), dgu_, n_, gu_, dn_, gradients);
    net_->up.pull(every(), dgu_, dgn_);
    for (int a = 0; a < N; a++) {
      const long i = (long)a * C;
      float* to = dgx + at(rows, a);
      norm_pull(dgn_ + i, n_ + i, r_[a], to, to, C);
      norm_second(dx_ + i, dn_ + i, gn_ + i, n_ + i, r_[a], to, C);
    }
  }

 private:
  const FeedForward* net_ = nullptr;
  int N = 0, C = 0, hidden = 0, out = 0;
  float *n_, *r_, *u_, *s_, *f_, *gf_, *gu_, *gn_, *dx_, *dn_, *du_, *df_, *dgf_, *dgu_, *dgn_;

  Rows every() const { return {nullptr, 0, N}; }
  long at(const int* rows, int a) const { return (long)(rows ? rows[a] : a) * C; }
};

// What a token is at the start: of an edge its length, direction and elements, of an atom its element.
class Embedding {
 public:
  void reserve(const Network& net, const Sight& sight, const Topology& t, const Part& part, bool learn, Arena& arena) {
    net_ = &net, sight_ = &sight;
    E = sight.geometry.edges, T = sight.geometry.atoms + E, C = net.s.width, F = padded(net.geometry.in);
    z_.resize(sight.geometry.atoms);
    for (size_t a = 0; a < z_.size(); a++) z_[a] = (int)t.numbers[part.first_atom + a];
    z_row_.assign(F, 0.f);
    v_ = arena.zeros((size_t)E * F), gv_ = arena.take((size_t)E * F);
    for (float** p : {&pre_, &sigma_, &h_, &gpre_}) *p = arena.take((size_t)E * C);
    for (float** p : {&token_, &n0_, &gn0_, &gtoken_, &gx0_}) *p = arena.take((size_t)T * C);
    r0_ = arena.take(T);
    if (!learn) return;
    dv_ = arena.zeros((size_t)E * F), dpre_ = arena.take((size_t)E * C);
    for (float** p : {&dtoken_, &dn0_, &dgn0_}) *p = arena.take((size_t)T * C);
  }

  void forward(float* x) {
    const Settings& s = net_->s;
    const int n = net_->harmonics.count;
    y_.resize((size_t)E * n);
    for (int e = 0; e < E; e++) {
      float *v = v_ + (long)e * F, *z = z_row_.data();
      from_centers(e, z);
      for (int j = 0; j < s.radial; j += LANES) {
        const vec exponent = all(-0.5f) * load(z + j) * load(z + j);
        store(v + j, exponential(larger(exponent, all(-60.f))) * all(s.smear_height));
      }
      for (int j = s.radial; j < padded(s.radial) && j < F; j++) v[j] = 0.f;
      if (!n) continue;
      net_->harmonics.values(&sight_->geometry.unit[3 * e], &y_[(size_t)e * n]);
      for (int a = 0; a < n; a++) v[s.radial + a] = (float)y_[(size_t)e * n + a];
    }
    net_->geometry.forward(edges(), v_, pre_, false);
    for (long i = 0; i < (long)E * C; i += C) activate(pre_ + i, sigma_ + i, h_ + i, C, false);
    each_token([&](int i, int e, int from, int to) {
      const float *base = e < 0 ? net_->itself : h_ + (long)e * C, *p = net_->sources + (long)from * C,
                  *q = net_->targets + (long)to * C;
      float* token = token_ + (long)i * C;
      for (int j = 0; j < C; j += LANES) store(token + j, load(base + j) + (load(p + j) + load(q + j)));
      r0_[i] = norm(token, n0_ + (long)i * C, C);
    });
    net_->mix.forward(tokens(), n0_, x, false);
  }

  void pull(const float* gx, std::vector<double>& by_distance, std::vector<double>& by_unit) {
    const Settings& s = net_->s;
    const int n = net_->harmonics.count;
    memcpy(gx0_, gx, sizeof(float) * T * C);
    net_->mix.pull(tokens(), gx0_, gn0_);
    for (int i = 0; i < T; i++) {
      const long k = (long)i * C;
      norm_pull(gn0_ + k, n0_ + k, r0_[i], nullptr, gtoken_ + k, C);
    }
    for (int e = 0; e < E; e++)
      activate_pull(pre_ + (long)e * C, sigma_ + (long)e * C, gtoken_ + row(e), gpre_ + (long)e * C, C, false);
    net_->geometry.pull(edges(), gpre_, gv_);
    std::vector<double> gy(n);
    for (int e = 0; e < E; e++) {
      const float *v = v_ + (long)e * F, *g = gv_ + (long)e * F, *z = z_row_.data();
      from_centers(e, z_row_.data());
      vec total = all(0.f);
      for (int j = 0; j < s.radial; j += LANES) total += load(v + j) * load(g + j) * load(z + j);
      by_distance[e] -= sum(total) / s.smear_width;
      if (!n) continue;
      for (int a = 0; a < n; a++) gy[a] = g[s.radial + a];
      net_->harmonics.pull(&y_[(size_t)e * n], gy.data(), &by_unit[3 * e]);
    }
  }

  void push(float* dx) {
    const Settings& s = net_->s;
    const int n = net_->harmonics.count;
    std::vector<double> dy(n);
    for (int e = 0; e < E; e++) {
      float *v = v_ + (long)e * F, *dv = dv_ + (long)e * F, *z = z_row_.data();
      from_centers(e, z);
      const vec rate = all((float)(-sight_->geometry.d_distance[e] / s.smear_width));
      for (int j = 0; j < s.radial; j += LANES) store(dv + j, load(v + j) * load(z + j) * rate);
      if (!n) continue;
      net_->harmonics.push(&y_[(size_t)e * n], &sight_->geometry.d_unit[3 * e], dy.data());
      for (int a = 0; a < n; a++) dv_[(long)e * F + s.radial + a] = (float)dy[a];
    }
    net_->geometry.push(edges(), dv_, dpre_, false);
    each_token([&](int i, int e, int, int) {
      const long k = (long)i * C, q = (long)e * C;
      if (e < 0)
        memset(dtoken_ + k, 0, sizeof(float) * C);
      else
        activate_push(pre_ + q, sigma_ + q, dpre_ + q, dtoken_ + k, C, false);
      norm_pull(dtoken_ + k, n0_ + k, r0_[i], nullptr, dn0_ + k, C);
    });
    net_->mix.push(tokens(), dn0_, dx, false);
  }

  void second(const float* dgx, float* gradients) {
    net_->mix.pull(tokens(), dgx, dgn0_);
    net_->mix.second(tokens(), dgx, n0_, gx0_, dn0_, gradients);
    std::vector<float> dgtoken(C);
    each_token([&](int i, int e, int from, int to) {
      const long k = (long)i * C, q = (long)e * C;
      norm_pull(dgn0_ + k, n0_ + k, r0_[i], nullptr, dgtoken.data(), C);
      norm_second(dtoken_ + k, dn0_ + k, gn0_ + k, n0_ + k, r0_[i], dgtoken.data(), C);
      add(dgtoken.data(), gradients + net_->at_sources + (long)from * C);
      add(dgtoken.data(), gradients + net_->at_targets + (long)to * C);
      if (e < 0)
        add(dgtoken.data(), gradients + net_->at_itself);
      else  // the gradient by `pre` takes the place of h, which nothing needs any more
        activate_second(pre_ + q, sigma_ + q, gtoken_ + k, dpre_ + q, dgtoken.data(), h_ + q,
                        {token_ + k, token_ + k, gpre_ + q}, C, false);
    });
    net_->geometry.second(edges(), h_, v_, gpre_, dv_, gradients);
  }

 private:
  const Network* net_ = nullptr;
  const Sight* sight_ = nullptr;
  int E = 0, T = 0, C = 0, F = 0;
  std::vector<int> z_;
  std::vector<double> y_;
  std::vector<float> z_row_;
  float *v_, *gv_, *pre_, *sigma_, *h_, *gpre_, *token_, *n0_, *r0_, *gn0_, *gtoken_, *gx0_;
  float *dv_, *dpre_, *dtoken_, *dn0_, *dgn0_;

  // (d − μ)/width of each Gaussian, 0 in what pads the row.
  void from_centers(int e, float* z) const {
    const double d = sight_->geometry.distance[e], inverse = 1 / (double)net_->s.smear_width;
    for (int j = 0; j < net_->s.radial; j++) z[j] = (float)((d - net_->centers[j]) * inverse);
  }
  Rows edges() const { return {nullptr, 0, E}; }
  Rows tokens() const { return {nullptr, 0, T}; }
  long row(int e) const { return (long)sight_->side[0].row[e] * C; }
  void add(const float* from, float* to) const {
    for (int j = 0; j < C; j += LANES) store(to + j, load(to + j) + load(from + j));
  }
  template <class Do>
  void each_token(Do act) const {
    const Geometry& g = sight_->geometry;
    for (int a = 0; a < g.atoms; a++)
      for (int i = sight_->side[0].first[a]; i < sight_->side[0].first[a + 1]; i++) {
        const int e = sight_->side[0].edge[i];
        act(i, e, z_[a], e < 0 ? z_[a] : z_[g.target[e]]);
      }
  }
};

}  // namespace sfumato
