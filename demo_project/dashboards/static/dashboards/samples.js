// The samples of one panel, by time, and what uPlot draws of them. Knows nothing of sockets or the page.

const KEPT = 905; // seconds: the widest window and a little

const isNumeric = ({ type }) => type !== "time" && type !== "string" && type !== "boolean";
const named = (name, labels) => (labels ? `${name} · ${labels}` : name);

// A data frame as [time in seconds, series, value]; labels, of a column or of a row, tell series of one name apart.
function* readings({ schema: { fields }, data: { values } }) {
  const times = values[fields.findIndex(({ type }) => type === "time")] ?? [];
  const rowLabels = values[fields.findIndex(({ name, type }) => name === "labels" && type === "string")];
  for (const [index, field] of fields.entries()) {
    if (!isNumeric(field)) continue;
    const labels = Object.entries(field.labels ?? {}).map((pair) => pair.join("="));
    for (const [row, time] of times.entries()) {
      const value = values[index][row];
      if (value !== null) yield [time / 1000, named(field.name, rowLabels?.[row] || labels.join(", ")), value];
    }
  }
}

export class Samples {
  // interval: seconds between frames, 0 if they come when they come.
  constructor(interval) {
    this.silence = interval ? 2.5 * interval : Infinity;
    this.rows = []; // [time, Map(key -> value)], ascending
    this.keys = [];
    this.breaks = []; // times after which something is known to be missing
  }

  get last() {
    return this.rows.at(-1);
  }

  // True if the frame brought a series not seen before.
  add(frame) {
    const before = this.keys.length;
    for (const [time, key, value] of readings(frame)) {
      if (!this.keys.includes(key)) this.keys.push(key);
      this.#row(time).set(key, value);
    }
    return this.keys.length > before;
  }

  #row(time) {
    let index = this.rows.length;
    while (index > 0 && this.rows[index - 1][0] > time) index -= 1;
    if (index > 0 && this.rows[index - 1][0] === time) return this.rows[index - 1][1];
    const values = new Map();
    this.rows.splice(index, 0, [time, values]);
    return values;
  }

  // Something was lost after what is known now: draw no line across it.
  breakHere() {
    if (this.last) this.breaks.push(this.last[0]);
  }

  forget(now) {
    const first = this.rows.findIndex(([time]) => time > now - KEPT);
    this.rows.splice(0, first < 0 ? this.rows.length : first);
    this.breaks = this.breaks.filter((time) => time > now - KEPT);
  }

  // Last known value of a series, or undefined.
  latest(key) {
    return this.rows.findLast(([, values]) => values.has(key))?.[1].get(key);
  }

  // [times, values, values…]: null is a gap; undefined only says that another series has a point there.
  aligned() {
    const columns = [[], ...this.keys.map(() => [])];
    let before = null;
    for (const [time, values] of this.rows) {
      if (before !== null && (time - before > this.silence || this.breaks.includes(before))) {
        columns[0].push((before + time) / 2);
        for (let index = 1; index < columns.length; index += 1) columns[index].push(null);
      }
      columns[0].push(time);
      this.keys.forEach((key, index) => columns[index + 1].push(values.get(key)));
      before = time;
    }
    return columns;
  }
}
