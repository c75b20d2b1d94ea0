(() => {
  const narrow = innerWidth < 700 || matchMedia('(pointer: coarse)').matches;
  const config = {responsive: true, displaylogo: false, displayModeBar: narrow ? false : 'hover',
    toImageButtonOptions: {format: 'svg'},
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};
  const draw = (div, id) => {
    const {data, layout} = JSON.parse(document.getElementById(id).textContent);
    if (narrow) layout.dragmode = false;  // a finger on a figure scrolls the page
    Plotly.react(div, data, layout, config);
  };
  const all = (what, act) => document.querySelectorAll(what).forEach(act);
  all('.plot', div => draw(div, div.dataset.figure));
  all('select[data-plot]', select => {
    const show = () => draw(document.getElementById(select.dataset.plot), select.value);
    select.addEventListener('change', show);
    show();
  });
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
  addEventListener('beforeprint', () => all('.plot', div => Plotly.relayout(div, {width: 660})));
  const restored = {width: null, autosize: true};
  addEventListener('afterprint', () => all('.plot', div => Plotly.relayout(div, restored)));
})();
