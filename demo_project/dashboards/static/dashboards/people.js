// Who else looks at this dashboard: one disc for each person, however many windows they have open.

import { byId, page } from "./page.js";

const SHOWN = 5;
const LOOK_AGAIN = 30_000; // milliseconds: nobody says that the people of a killed node have left

const nameOf = ({ user, connInfo }) => connInfo?.name || connInfo?.username || (user ? `user ${user}` : "guest");

const hue = (text) => [...text].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7);

export class People {
  constructor(subscription) {
    this.clients = new Map();
    subscription.on("subscribed", () => this.#load(subscription));
    setInterval(() => subscription.state === "subscribed" && this.#load(subscription), LOOK_AGAIN);
    subscription.on("join", ({ info }) => this.#change(() => this.clients.set(info.client, nameOf(info))));
    subscription.on("leave", ({ info }) => this.#change(() => this.clients.delete(info.client)));
  }

  async #load(subscription) {
    try {
      const { clients } = await subscription.presence();
      this.#change(() => (this.clients = new Map(Object.values(clients).map((info) => [info.client, nameOf(info)]))));
    } catch {
      // Presence is a courtesy: without it the dashboard works as well.
    }
  }

  #change(action) {
    action();
    const windows = new Map();
    for (const name of this.clients.values()) windows.set(name, (windows.get(name) ?? 0) + 1);
    const names = [...windows.keys()].sort((a, b) => (b === page.user) - (a === page.user) || a.localeCompare(b));
    const discs = names.slice(0, SHOWN).map((name) => disc(name, windows.get(name)));
    if (names.length > SHOWN) discs.push(disc(`+${names.length - SHOWN}`, 1, names.slice(SHOWN).join(", ")));
    byId("people").replaceChildren(...discs);
  }
}

function disc(name, windows, title = "") {
  const item = document.createElement("li");
  const you = name === (page.user || "guest") ? " (you)" : "";
  item.textContent = name.startsWith("+") ? name : name[0].toUpperCase();
  item.title = title || `${name}${you}${windows > 1 ? `, ${windows} windows` : ""}`;
  item.setAttribute("aria-label", item.title);
  if (name !== "guest") item.style.setProperty("--hue", hue(name));
  else item.className = "guest";
  if (windows > 1) item.dataset.windows = windows;
  return item;
}
