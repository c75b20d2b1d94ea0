// The passes through the whole network, for consecutive structures of a batch.
#pragma once

#include "network.h"

namespace sfumato {

class Pass {
 public:
  int systems() const { return sight_.geometry.systems; }
  const Geometry& geometry() const { return sight_.geometry; }
  int64_t bytes() const { return arena_.bytes(); }

  // Energies of atoms, without units. `learn`: keep what the gradient by the weights needs.
  void forward(const Network& net, const Topology& t, int64_t begin, int64_t end, const double* positions,
               const double* cell, bool learn, double* energies) {
    net_ = &net, learns_ = learn;
    const Part part(t, begin, end);
    arena_.clear();
    sight_.look(net.s, t, part, positions, cell, arena_);
    reserve(learn);
    embedding_.reserve(net, sight_, t, part, learn, arena_);
    const int C = net.s.width;
    float *x = x_, *y = y_;
    embedding_.forward(x);
    memset(nodes_, 0, sizeof(float) * C * atoms());
    for (int l = 0; l < net.s.layers; l++)
      for (int side = 0; side < 2; side++) {
        const bool first = !l && !side;
        with_half(l, side, [&](auto half) { half.forward(first ? nullptr : x, first ? x : y); });
        if (!first) std::swap(x, y);
        if (side && net.s.layer_readout) readouts_[l].forward(x, own(), nodes_);
      }
    add_atoms(x, nodes_);
    float* e = arena_.zeros((size_t)atoms() * PANEL);
    energy_.forward(nodes_, nullptr, e);
    for (int a = 0; a < atoms(); a++) energies[a] = e[(long)a * PANEL];
  }

  // Add −∂e/∂r and ∂e/∂ε; extra: gradients by distance and log e of what is not in the network, or null.
  void pull(const double* extra_distance, const double* extra_log_e, double* forces, double* strain) {
    const Settings& s = net_->s;
    const int C = s.width, T = rows();
    float *gn = arena_.zeros((size_t)atoms() * C), *gx = arena_.take((size_t)T * C);
    for (int a = 0; a < atoms(); a++) energy_.g[(long)a * PANEL] = 1.f;
    energy_.pull(nullptr, gn);
    for (int l = s.layers - 1; l >= 0; l--) {
      float* g = traces_[2 * l + 1].g;
      if (l == s.layers - 1) spread_atoms(gn, g);
      if (s.layer_readout) {
        memcpy(readouts_[l].g, gn, sizeof(float) * atoms() * C);
        readouts_[l].pull(own(), g);
      }
      with_half(l, 1, [&](auto half) { half.pull(gx, learns_); });
      cross(1, gx, traces_[2 * l].g);
      with_half(l, 0, [&](auto half) { half.pull(gx, learns_); });
      if (l) cross(0, gx, traces_[2 * l - 1].g);
    }
    const Geometry& geo = geometry();
    std::vector<double> by_distance(geo.pairs, 0.0), by_log_e(geo.edges, 0.0), by_unit(3 * (size_t)geo.edges, 0.0);
    embedding_.pull(gx, by_distance, by_unit);
    sight_.pull(by_log_e, by_unit);
    for (int e = 0; e < geo.edges && extra_distance; e++) {
      by_distance[e] += extra_distance[e];
      if (geo.seen[e]) by_log_e[e] += extra_log_e[e];
    }
    geo.pull(by_distance, by_log_e, by_unit, forces, strain);
  }

  // Add to `gradients` c ∂e/∂θ + d/dt ∂e/∂θ as atoms move by (N, 3) and structures are strained by (G, 3, 3);
  // c is one number for each atom.
  void learn(const double* c, const double* moves, const double* strain, float* gradients) {
    const Settings& s = net_->s;
    const int C = s.width, T = rows();
    sight_.geometry.push(moves, strain);
    sight_.push(arena_);
    float *x = arena_.take((size_t)T * C), *y = arena_.take((size_t)T * C), *dn = arena_.zeros((size_t)atoms() * C);
    embedding_.push(x);
    for (int l = 0; l < s.layers; l++)
      for (int side = 0; side < 2; side++) {
        with_half(l, side, [&](auto half) { half.push(x, !l && !side, y); });
        std::swap(x, y);
        if (side && s.layer_readout) readouts_[l].push(x, own(), dn);
      }
    add_atoms(x, dn);
    energy_.push(dn, nullptr, nullptr);
    second(c, x, y, gradients);
  }

 private:
  const Network* net_ = nullptr;
  bool learns_ = false;
  Arena arena_;
  Scratch scratch_;
  Bench bench_;
  Sight sight_;
  Embedding embedding_;
  std::vector<Trace> traces_;
  std::vector<Reading> readouts_;
  Reading energy_;
  float *x_ = nullptr, *y_ = nullptr, *nodes_ = nullptr;

  int atoms() const { return geometry().atoms; }
  int rows() const { return geometry().atoms + geometry().edges; }
  const int* own() const { return sight_.side[1].own.data(); }

  template <class Do>
  void with_half(int l, int side, Do act) {
    const int terms = net_->s.terms();
    return terms == 0 ? act(half<0>(l, side)) : terms == 6 ? act(half<6>(l, side)) : act(half<12>(l, side));
  }
  template <int D>
  HalfPass<D> half(int l, int side) {
    const bool only_own = side && l == net_->s.layers - 1;  // nothing reads the edges of the last
    return {net_->s, net_->layers[l].half[side], sight_.side[side], traces_[2 * l + side], scratch_,
            bench_, only_own};
  }

  void reserve(bool learn) {
    const Settings& s = net_->s;
    const size_t T = rows(), C = T * s.width, I = T * s.inner, hid = T * s.hidden, up = hid * (s.gated ? 2 : 1);
    traces_.resize(2 * s.layers);
    for (size_t i = 0; i < traces_.size(); i++) {
      Trace& t = traces_[i];
      const size_t maps = s.heads * sight_.side[i % 2].square[atoms()];
      for (float** p : {&t.n1, &t.n2, &t.g}) *p = arena_.take(C);
      for (float** p : {&t.r1, &t.r2}) *p = arena_.take(T);
      t.qkv = arena_.take(3 * I), t.P = arena_.take(maps), t.o = arena_.take(I);
      t.u = arena_.take(up), t.s = arena_.take(hid);
      if (!learn) continue;
      for (float** p : {&t.gn2, &t.g2, &t.gn1, &t.dx, &t.dn1, &t.dy, &t.dn2}) *p = arena_.take(C);
      for (float** p : {&t.go, &t.d_o}) *p = arena_.take(I);
      for (float** p : {&t.gqkv, &t.dqkv}) *p = arena_.take(3 * I);
      for (float** p : {&t.dS, &t.kept}) *p = arena_.take(maps);
      t.gf = arena_.take(hid), t.du = arena_.take(up);
    }
    scratch_.reserve(s, sight_.side, arena_);
    x_ = arena_.take(C), y_ = arena_.take(C), nodes_ = arena_.take((size_t)atoms() * s.width);
    readouts_.resize(s.layer_readout ? s.layers : 0);
    for (size_t l = 0; l < readouts_.size(); l++)
      readouts_[l].reserve(net_->layers[l].readout, atoms(), learn, arena_);
    energy_.reserve(net_->energy, atoms(), learn, arena_);
  }

  void second(const double* c, float* dg, float* dgx, float* gradients) {
    const Settings& s = net_->s;
    float *to_atoms = arena_.zeros((size_t)atoms() * s.width), *first = arena_.zeros((size_t)atoms() * PANEL);
    for (int a = 0; a < atoms(); a++) first[(long)a * PANEL] = (float)c[a];
    energy_.second(first, nullptr, to_atoms, gradients);
    spread_atoms(to_atoms, dg);
    for (int l = s.layers - 1; l >= 0; l--) {
      if (s.layer_readout) readouts_[l].second(to_atoms, own(), dg, gradients);
      with_half(l, 1, [&](auto half) { half.second(dg, dgx, gradients); });
      cross(1, dgx, dg);
      with_half(l, 0, [&](auto half) { half.second(dg, dgx, gradients); });
      if (l) cross(0, dgx, dg);
    }
    embedding_.second(dgx, gradients);
  }

  void add_atoms(const float* x, float* to) const {
    for (int a = 0; a < atoms(); a++)
      for (int j = 0; j < net_->s.width; j += LANES) {
        float* p = to + (long)a * net_->s.width + j;
        store(p, load(p) + load(x + (long)own()[a] * net_->s.width + j));
      }
  }

  // Rows that are zero but for those of the atoms.
  void spread_atoms(const float* from, float* to) const {
    const int C = net_->s.width;
    memset(to, 0, sizeof(float) * rows() * C);
    for (int a = 0; a < atoms(); a++) copy_row(from + (long)a * C, to + (long)own()[a] * C, C);
  }

  // Rows of one side where the other has them.
  void cross(int side, const float* from, float* to) const {
    const int C = net_->s.width;
    for (int i = 0; i < rows(); i++) copy_row(from + (long)i * C, to + (long)sight_.side[side].from[i] * C, C);
  }
};

}  // namespace sfumato
