// One uPlot chart that scrolls with the clock. Canvas does not see CSS: colours are read from the page when it is built.

/* global uPlot */
const HEIGHT = 208;
const FONT = "11px -apple-system, BlinkMacSystemFont, 'Segoe UI', Inter, Roboto, 'Helvetica Neue', Arial, sans-serif";

// As the page resolves it in the theme in force: "rgb(…)".
function colour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

const transparent = (rgb, share) => rgb.replace("rgb(", "rgba(").replace(")", `, ${share})`);
export const seriesColour = (index) => `var(--series-${(index % 8) + 1})`;

function fade(chart, stroke) {
  const { top, height } = chart.bbox;
  if (!height) return "transparent";
  const gradient = chart.ctx.createLinearGradient(0, top, 0, top + height);
  gradient.addColorStop(0, transparent(stroke, 0.22));
  gradient.addColorStop(1, transparent(stroke, 0));
  return gradient;
}

const quarters = (_chart, _axis, low, high) => [0, 1, 2, 3, 4].map((part) => low + ((high - low) * part) / 4);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class Chart {
  // onZoom(from, to) when a range is dragged; onCursor(index or null) while the pointer is on the plot.
  constructor(element, unit, { onZoom, onCursor }) {
    this.element = element;
    this.unit = unit;
    this.on = { onZoom, onCursor };
    this.hidden = new Set();
    this.observer = new ResizeObserver(() => this.plot?.setSize({ width: element.clientWidth, height: HEIGHT }));
    this.observer.observe(element);
  }

  // Makes the chart anew: for a new series, or in another theme.
  build(keys, data) {
    this.plot?.destroy();
    this.keys = keys;
    this.drawn = NaN;
    const grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: colour("--axis"), font: FONT, grid, ticks: { show: false } };
    const options = {
      width: this.element.clientWidth || 320,
      height: HEIGHT,
      padding: [10, 26, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "panels", setSeries: false },
        drag: { x: true, y: false, setScale: false },
        points: { size: 7 },
      },
      scales: { x: { time: true }, y: { range: (_chart, low, high) => this.#range(low, high) } },
      axes: [
        { ...axis, space: 80, size: 30, values: (_chart, times) => times.map((time) => clock.format(time * 1000)), grid: { show: false } },
        { ...axis, space: 36, size: 66, ...(this.unit.tops && { splits: quarters }), values: (_chart, values) => values.map(this.unit.text) },
      ],
      series: [{}, ...keys.map((key, index) => this.#series(key, index, keys.length))],
      hooks: {
        setSelect: [(chart) => this.#selected(chart)],
        setCursor: [(chart) => this.on.onCursor(chart.cursor.idx ?? null)],
      },
    };
    this.plot = new uPlot(options, data, this.element);
  }

  #series(key, index, count) {
    const stroke = colour(`--series-${(index % 8) + 1}`);
    return {
      label: key,
      stroke,
      width: 1.75,
      fill: count <= 4 ? (chart) => fade(chart, stroke) : undefined,
      show: !this.hidden.has(key),
      // A point on its own has no line: draw it, or it would not be there.
      points: { size: 5, fill: stroke, filter: (chart, series, _show, gaps) => alone(chart.data[series], gaps) },
    };
  }

  #range(low, high) {
    const { tops } = this.unit;
    if (tops) return [0, tops.find((top) => top >= (high ?? 0) * 1.02) ?? tops.at(-1)];
    return low === null ? [0, 1] : uPlot.rangeNum(low, high, 0.15, true);
  }

  #selected(chart) {
    const { left, width } = chart.select;
    if (width < 8) return;
    this.on.onZoom(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  update(data) {
    this.plot?.setData(data, false);
    this.drawn = NaN;
  }

  // Shows [from, to] in seconds; draws only if that moves the picture by a pixel or the data changed.
  show(from, to) {
    if (!this.plot) return;
    const pixel = (to - from) / Math.max(1, this.plot.bbox.width);
    if (Math.abs(to - this.drawn) < pixel) return;
    this.drawn = to;
    this.plot.setScale("x", { min: from, max: to });
  }

  toggle(key) {
    if (!this.hidden.delete(key)) this.hidden.add(key);
    this.plot.setSeries(this.keys.indexOf(key) + 1, { show: !this.hidden.has(key) });
    return !this.hidden.has(key);
  }
}

function alone(values) {
  const indices = [];
  let run = [];
  const close = () => {
    if (run.length === 1) indices.push(run[0]);
    run = [];
  };
  values.forEach((value, index) => {
    if (value === null) close();
    else if (value !== undefined) run.push(index);
  });
  close();
  return indices;
}
