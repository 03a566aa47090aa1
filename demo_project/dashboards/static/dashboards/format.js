// Numbers as people read them. A unit has a text for a value, and tops if its axis starts at zero.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DECIMAL = ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"];

const digits = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
const short = (value, places = digits(value)) => value.toLocaleString("en", { maximumFractionDigits: places });

function scaled(value, base, names) {
  let step = 0;
  while (Math.abs(value) >= 1000 && step < names.length - 1) {
    value /= base;
    step += 1;
  }
  return `${short(value, step ? digits(value) : 0)} ${names[step]}`;
}

// The tops an axis may have: a quarter of each is a number one can read.
const tops = (base, factors, from, to) => {
  const found = [];
  for (let power = from; power <= to; power += 1) for (const factor of factors) found.push(factor * base ** power);
  return found;
};

const UNITS = {
  percent: { text: (value) => `${short(value, 1)} %`, tops: [10, 20, 40, 100] },
  bytes: { text: (value) => scaled(value, 1024, BINARY), tops: tops(2, [1], 10, 50) },
  "bytes/s": { text: (value) => scaled(value, 1000, DECIMAL), tops: tops(10, [1, 2, 4, 8], 3, 14) },
  number: { text: (value) => short(value), tops: null },
};

export const unitOf = (name) => UNITS[name] ?? UNITS.number;

// "just now", "4 s ago", "3 min ago"
export function ago(seconds) {
  if (seconds < 1.8) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}
