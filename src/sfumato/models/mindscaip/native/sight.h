// What attention sees: which tokens share a window, log e of the keys, and the angles between edges.
#pragma once

#include "parts.h"

namespace sfumato {

class Sight {
 public:
  Geometry geometry;
  Side side[2];  // windows of edges that leave, and of those that arrive

  void look(const Settings& s, const Topology& t, const Part& part, const double* positions, const double* cell,
            Arena& arena) {
    geometry.place(s.graph, t, part, positions, cell);
    degree_ = s.terms(), mutual_ = s.graph.mutual;
    arrange();
    for (Side& d : side) {
      const int atoms = geometry.atoms;
      d.log_e = arena.take(d.keys[atoms]), d.by_log_e = arena.zeros(d.keys[atoms]);
      d.by_cosine = d.turn = d.maps = nullptr;
      each_key(d, [&](size_t at, int e) {
        d.log_e[at] = e == OWN ? 0.f : e == EMPTY || !geometry.seen[e] ? NEVER : (float)geometry.log_e[e];
      });
      if (&d != side && mutual_) {
        // Place by place the reverse of the other side: the same angles.
        d.maps = side[0].maps, d.by_cosine = side[0].by_cosine;
        continue;
      }
      d.by_cosine = arena.zeros(d.square[atoms]);
      if (degree_) add_maps(d, arena);
    }
  }

  // From what the attention left to gradients by log e (edges) and by unit vectors (edges, 3); added.
  void pull(std::vector<double>& by_log_e, std::vector<double>& by_unit) const {
    for (const Side& d : side)
      each_key(d, [&](size_t at, int e) {
        if (e >= 0) by_log_e[e] += d.by_log_e[at];
      });
    for (const Side& d : side) {
      if (!degree_ || (&d != side && mutual_)) continue;
      each_pair(d, [&](size_t at, size_t mirrored, int e, int f) {
        const double both = (double)d.by_cosine[at] + d.by_cosine[mirrored];
        for (int c = 0; c < 3; c++) by_unit[3 * e + c] += both * geometry.unit[3 * f + c];
      });
    }
  }

  // The changes of log e and of the cosines, after geometry.push.
  void push(Arena& arena) {
    const Geometry& g = geometry;
    for (Side& d : side) {
      d.d_log_e = arena.take(d.keys[g.atoms]);
      each_key(d, [&](size_t at, int e) { d.d_log_e[at] = e >= 0 ? (float)g.d_log_e[e] : 0.f; });
      if (!degree_) continue;
      if (&d != side && mutual_) {
        d.turn = side[0].turn;
        continue;
      }
      d.turn = arena.zeros(d.square[g.atoms]);
      each_pair(d, [&](size_t at, size_t, int e, int f) {
        double x = 0;
        for (int c = 0; c < 3; c++)
          x += g.d_unit[3 * e + c] * g.unit[3 * f + c] + g.unit[3 * e + c] * g.d_unit[3 * f + c];
        d.turn[at] = (float)x;
      });
    }
  }

 private:
  static constexpr int OWN = -1, EMPTY = -2;
  int degree_ = 0, mutual_ = 1;

  // Edges lie by source on the first side; on the second by target, in mutual mode in the order of their reverses.
  void arrange() {
    const Geometry& g = geometry;
    std::vector<int> leaving(g.atoms), arriving(g.atoms, 0), next(g.atoms, 0);
    for (int a = 0; a < g.atoms; a++) leaving[a] = g.first_edge[a + 1] - g.first_edge[a];
    for (int e = 0; e < g.edges; e++) arriving[g.target[e]]++;
    side[0].arrange(g.atoms, leaving), side[1].arrange(g.atoms, arriving);
    for (Side& d : side) d.row.resize(g.edges);
    for (int e = 0; e < g.edges; e++) {
      const int a = g.source[e], place = e - g.first_edge[a];
      side[0].put(a, place, e);
      if (mutual_)
        side[1].put(a, place, g.reverse[e]);
      else
        side[1].put(g.target[e], next[g.target[e]]++, e);
    }
    for (int s = 0; s < 2; s++) {
      side[s].from.resize(g.atoms + g.edges);
      for (int a = 0; a < g.atoms; a++) {
        side[s].from[side[s].first[a]] = side[1 - s].first[a];
        for (int i = side[s].first[a] + 1; i < side[s].first[a + 1]; i++) {
          side[s].from[i] = side[1 - s].row[side[s].edge[i]];
          side[s].others.push_back(i);
        }
      }
    }
  }

  void add_maps(Side& d, Arena& arena) {
    d.maps = arena.zeros((degree_ + 1) * d.square[geometry.atoms]);
    for (int a = 0; a < geometry.atoms; a++) {
      const int first = d.first[a], m = d.first[a + 1] - first, width = padded(m);
      float* maps = d.maps + (degree_ + 1) * d.square[a];
      for (int j = 1; j < m; j++)
        for (int k = 1; k < m; k++) {
          const double *u = &geometry.unit[3 * d.edge[first + j]], *v = &geometry.unit[3 * d.edge[first + k]];
          float* at = maps + (long)j * width + k;
          at[0] = 1.f;
          at[(long)m * width] = (float)(u[0] * v[0] + u[1] * v[1] + u[2] * v[2]);
        }
      const long map = (long)m * width;
      for (int l = 1; l < degree_; l++)
        for (long i = 0; i < map; i += LANES) {
          vec c = load(maps + map + i), now = load(maps + l * map + i), before = load(maps + (l - 1) * map + i);
          vec next = all((2 * l + 1.f) / (l + 1)) * (c * now) - all((float)l / (l + 1)) * before;
          store(maps + (l + 1) * map + i, next);
        }
    }
  }

  template <class Do>
  void each_key(const Side& d, Do act) const {
    for (int a = 0; a < geometry.atoms; a++) {
      const int m = d.first[a + 1] - d.first[a];
      for (int j = 0; j < padded(m); j++)
        act(d.keys[a] + j, j == 0 ? OWN : j < m ? d.edge[d.first[a] + j] : EMPTY);
    }
  }

  // All pairs of edges of a window: where their cosine lies, and where it lies with the two exchanged.
  template <class Do>
  void each_pair(const Side& d, Do act) const {
    for (int a = 0; a < geometry.atoms; a++) {
      const int first = d.first[a], m = d.first[a + 1] - first, width = padded(m);
      for (int j = 1; j < m; j++)
        for (int k = 1; k < m; k++)
          act(d.square[a] + (size_t)j * width + k, d.square[a] + (size_t)k * width + j, d.edge[first + j],
              d.edge[first + k]);
    }
  }
};

}  // namespace sfumato
