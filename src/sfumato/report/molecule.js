(() => {
  const BONDED = 1.25;
  const mix = (a, b, t) => a.map((row, k) => row.map((x, d) => x + t * (b[k][d] - x)));
  const times = (m, v) => m.map(row => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const product = (a, b) => a.map(row => [0, 1, 2].map(k => row[0] * b[0][k] + row[1] * b[1][k] + row[2] * b[2][k]));
  const about = (x, y) => {
    const [c, s, d, t] = [Math.cos(y), Math.sin(y), Math.cos(x), Math.sin(x)];
    return product([[1, 0, 0], [0, d, -t], [0, t, d]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]);
  };

  document.querySelectorAll('.molecule').forEach(box => {
    const scenes = JSON.parse(box.querySelector('script').textContent);
    const canvas = box.querySelector('canvas'), pen = canvas.getContext('2d');
    const slider = box.querySelector('input'), output = box.querySelector('output');
    const label = box.querySelector('label span');
    const select = document.getElementById(box.dataset.select);
    let scene, reach, turn = about(0.45, 0.35);

    const ball = k => 0.18 + 0.3 * scene.radii[k];
    const atomsAt = frame => {
      const {lengths, frames} = scene, b = lengths[frame], n = lengths.length - 1;
      if (frames.length > 2) return frames[frame];
      return mix(frames[0], frames[1], (b - lengths[0]) / (lengths[n] - lengths[0]));  // straight lines
    };

    const draw = () => {
      const frame = +slider.value, ratio = devicePixelRatio || 1;
      const width = canvas.clientWidth, height = canvas.clientHeight;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      pen.setTransform(ratio, 0, 0, ratio, ratio * width / 2, ratio * height / 2);
      const ink = getComputedStyle(canvas).getPropertyValue('--ink') || '#000';
      const tall = scene.scanned.length === 2 ? 1.6 : 1;  // what a bond pulls apart lies along the width
      const scale = 0.48 * Math.min(width, tall * height) / reach;
      const atoms = atomsAt(frame).map(v => times(turn, v));
      const flat = v => [v[0] * scale, -v[1] * scale];
      const parts = atoms.map((v, k) => ({z: v[2], atom: k}));
      atoms.forEach((v, i) => atoms.forEach((w, j) => {
        if (j <= i) return;
        const scanned = Math.abs(scene.scanned.indexOf(i) - scene.scanned.indexOf(j)) === 1
          && scene.scanned.includes(i) && scene.scanned.includes(j);
        const apart = Math.hypot(...v.map((x, d) => x - w[d]));
        if (!scanned && apart > BONDED * (scene.radii[i] + scene.radii[j])) return;
        const between = t => v.map((x, d) => x + t * (w[d] - x));  // sticks end on the balls' surfaces
        const ends = [between(ball(i) / apart), between(1 - ball(j) / apart)];
        if (apart > ball(i) + ball(j)) parts.push({z: (v[2] + w[2]) / 2, ends, scanned});
      }));
      parts.sort((p, q) => p.z - q.z);
      for (const part of parts) {
        pen.beginPath();
        if (part.ends) {
          pen.moveTo(...flat(part.ends[0]));
          pen.lineTo(...flat(part.ends[1]));
          pen.setLineDash(part.scanned ? [6, 5] : []);
          pen.lineWidth = part.scanned ? 2 : Math.max(2, 0.16 * scale);
          pen.strokeStyle = part.scanned ? ink : '#9a9a9a';
          pen.stroke();
          continue;
        }
        const [x, y] = flat(atoms[part.atom]), r = ball(part.atom) * scale;
        pen.setLineDash([]);
        pen.arc(x, y, r, 0, 2 * Math.PI);
        pen.fillStyle = scene.colors[part.atom];
        pen.fill();
        const moved = scene.scanned.length === 1 && scene.scanned[0] === part.atom;
        pen.lineWidth = moved ? 4 : 1;
        pen.strokeStyle = moved ? ink : '#333';
        pen.stroke();
        const symbol = scene.symbols[part.atom];
        if (symbol === 'H' || symbol === 'C') continue;
        pen.font = `600 ${Math.round(1.1 * r)}px system-ui, sans-serif`;
        pen.textAlign = 'center';
        pen.textBaseline = 'middle';
        pen.fillStyle = symbol === 'S' ? '#000' : '#fff';
        pen.fillText(symbol, x, y);
      }
      const angle = scene.degrees ? ` (${scene.degrees[frame].toFixed(1)}°)`.replace('-', '−') : '';
      output.textContent = `${scene.lengths[frame].toFixed(3)} Å${angle}`;
      select.dispatchEvent(new CustomEvent('frame', {detail: scene.lengths[frame]}));
    };

    const load = () => {
      scene = scenes[select.value];
      label.textContent = scene.label;
      const widest = scene.frames.length > 2 ? scene.frames : [scene.frames[1]];
      reach = Math.max(2, ...widest.flat().map((v, k) => Math.hypot(...v) + scene.radii[k % scene.radii.length]));
      slider.max = scene.lengths.length - 1;
      slider.value = scene.start;
      draw();
    };
    let held = null;
    canvas.addEventListener('pointerdown', at => { held = [at.clientX, at.clientY]; canvas.setPointerCapture(at.pointerId); });
    canvas.addEventListener('pointerup', () => { held = null; });
    canvas.addEventListener('pointermove', at => {
      if (!held) return;
      turn = product(about((at.clientY - held[1]) / 120, (at.clientX - held[0]) / 120), turn);
      held = [at.clientX, at.clientY];
      draw();
    });
    slider.addEventListener('input', draw);
    select.addEventListener('change', load);
    addEventListener('resize', draw);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
    load();
  });
})();
