(() => {
  const narrow = innerWidth < 700 || matchMedia('(pointer: coarse)').matches;
  const config = {responsive: true, displaylogo: false, displayModeBar: narrow ? false : 'hover',
    toImageButtonOptions: {format: 'svg'},
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};
  const all = (what, act) => document.querySelectorAll(what).forEach(act);
  const darkness = matchMedia('(prefers-color-scheme: dark)');
  const inTheDark = JSON.parse(document.getElementById('dark-colors').textContent);
  let printing = false;

  const recolored = (part, key = '') => {
    if (typeof part === 'string') return key.endsWith('color') ? inTheDark[part.toUpperCase()] ?? part : part;
    if (Array.isArray(part)) return part.map(each => recolored(each, key));
    if (part === null || typeof part !== 'object') return part;
    return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, recolored(value, name)]));
  };
  // Names of rows must leave room for the rows on a small screen: they break where words do.
  const broken = (text, most) => {
    const lines = [''];
    for (const part of text.match(/\([^)]*\)|[^-_ (]*[-_ ]|[^-_ (]+|\(/g) ?? []) {
      const last = lines[lines.length - 1];
      if (last && (last + part).trimEnd().length > most) lines.push(part); else lines[lines.length - 1] += part;
    }
    return lines.join('<br>');
  };
  const fit = (div, layout) => {
    layout.dragmode = false;  // a finger on a figure scrolls the page
    const {yaxis} = layout, labels = yaxis && yaxis.ticktext;
    if (labels && Math.max(...labels.map(label => label.length)) > 12 && !labels.some(label => label.includes('<'))) {
      yaxis.ticktext = labels.map(label => broken(label, 12));
      yaxis.tickfont = {...yaxis.tickfont, size: 10};
    }
    if (yaxis && yaxis.scaleanchor) layout.height = Math.min(layout.height, div.clientWidth + 40);  // a square one
  };
  const PAGE = 900;  // px of a figure that a printed page holds
  // The line that a molecule's slider moves is the shape of this name.
  const frameOf = layout => (layout.shapes || []).findIndex(shape => shape.name === 'frame');
  const draw = div => {
    const found = JSON.parse(document.getElementById(div.dataset.figure).textContent);
    const {data, layout} = darkness.matches && !printing ? recolored(found) : found;
    const at = frameOf(layout);
    if (at >= 0 && div.frame !== undefined) Object.assign(layout.shapes[at], {x0: div.frame, x1: div.frame});
    if (narrow) fit(div, layout);
    if (printing) Object.assign(layout, {width: 660, height: Math.min(layout.height, PAGE)});
    Plotly.react(div, data, layout, config);
  };
  all('.plot', draw);
  all('select[data-plot]', select => {
    const div = document.getElementById(select.dataset.plot);
    select.addEventListener('change', () => {
      div.dataset.figure = select.value;
      div.frame = undefined;
      draw(div);
    });
    select.addEventListener('frame', event => {
      div.frame = event.detail;
      const at = frameOf(div.layout);
      if (at >= 0) Plotly.relayout(div, {[`shapes[${at}].x0`]: div.frame, [`shapes[${at}].x1`]: div.frame});
    });
    // A browser that comes back to the page keeps what was selected.
    if (div.dataset.figure !== select.value) select.dispatchEvent(new Event('change'));
  });
  darkness.addEventListener('change', () => all('.plot', draw));
  addEventListener('beforeprint', () => { printing = true; all('.plot', draw); });
  addEventListener('afterprint', () => { printing = false; all('.plot', draw); });

  const value = (row, k) => row.children[k].dataset.value ?? row.children[k].textContent;
  const order = (a, b) => (a === '') - (b === '') || (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  all('th.sort', th => {
    const sort = () => {
      const k = th.cellIndex, body = th.closest('table').tBodies[0];
      const up = th.getAttribute('aria-sort') !== 'ascending';
      const rows = [...body.rows].sort((p, q) => {
        const [a, b] = [value(p, k), value(q, k)];
        return a === '' || b === '' || up ? order(a, b) : order(b, a);
      });
      [...th.parentNode.children].forEach(other => other.removeAttribute('aria-sort'));
      th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      body.append(...rows);
    };
    th.addEventListener('click', sort);
    th.addEventListener('keydown', key => { if (key.key === 'Enter') sort(); });
  });

  const measure = box => {
    const scroll = box.firstElementChild, hidden = scroll.scrollWidth - scroll.clientWidth;
    box.classList.toggle('clipped', hidden > 1);
    box.classList.toggle('more', hidden - scroll.scrollLeft > 1);
  };
  all('.wide', box => {
    box.firstElementChild.addEventListener('scroll', () => measure(box), {passive: true});
    new ResizeObserver(() => measure(box)).observe(box.firstElementChild);
    measure(box);
  });
})();
