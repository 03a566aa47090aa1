// A live channel without any client library: one WebSocket, one JSON object a message.

import { connectionState } from "./connection.js";
import { byId, furnish, page } from "./page.js";

const LINES = 8;
const state = connectionState();
const scheme = location.protocol === "https:" ? "wss" : "ws";

function open() {
  const socket = new WebSocket(`${scheme}://${location.host}/plain/ws`);
  socket.addEventListener("open", () => state.live());
  socket.addEventListener("message", ({ data }) => receive(JSON.parse(data), data));
  socket.addEventListener("close", () => {
    state.lost();
    setTimeout(open, 1000);
  });
}

function receive({ offset, data, tags }, text) {
  data.schema.fields.forEach(({ name, type }, index) => {
    const newest = data.data.values[index].at(-1);
    if (type === "number" && newest !== undefined) meter(name, newest); // a stream that ended says so with an empty frame
  });
  const line = Object.assign(document.createElement("li"), { textContent: text });
  line.value = offset;
  byId("log").prepend(line);
  while (byId("log").children.length > LINES) byId("log").lastChild.remove();
  if (tags?.leader) byId("leaders").replaceChildren(Object.assign(document.createElement("li"), { textContent: `${page.channel} led by ${tags.leader}` }));
}

function meter(name, percent) {
  const id = `meter-${name.replace(/\W/g, "-")}`;
  if (!byId(id)) {
    const row = Object.assign(document.createElement("div"), { id, className: "meter" });
    row.append(...["span", "i", "b"].map((tag) => document.createElement(tag)));
    row.firstChild.textContent = name;
    byId("meters").append(row);
  }
  byId(id).style.setProperty("--share", `${percent}%`);
  byId(id).querySelector("b").textContent = `${percent.toFixed(1)} %`;
}

furnish(() => {});
open();
