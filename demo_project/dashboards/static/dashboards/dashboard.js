// The dashboard page: one connection, a panel for each chart, one clock that scrolls them all.

/* global Centrifuge */
import { awayNotice, connectionState } from "./connection.js";
import { Leaders } from "./leaders.js";
import { byId, furnish, now, page, remembered, send, toast } from "./page.js";
import { Panel } from "./panel.js";
import { People } from "./people.js";
import { Title } from "./title.js";

const scheme = location.protocol === "https:" ? "wss" : "ws";
const client = new Centrifuge(`${scheme}://${location.host}/live/ws`, { minReconnectDelay: 200, maxReconnectDelay: 3000 });

const state = connectionState(awayNotice);
client.on("connected", () => state.live());
client.on("connecting", () => state.lost());
client.on("disconnected", ({ reason }) => state.ended(reason));

let seconds = 60; // the window shown
const leaders = new Leaders();
const panels = page.dashboard.panels.map(
  (panel) => new Panel(byId(`panel-${panel.pk}`), panel, { span: () => seconds, onLeader: (channel, tags) => leaders.heard(channel, tags) }),
);
panels.forEach((panel) => panel.subscribe(client));

const dashboard = client.newSubscription(`dashboard/${page.dashboard.pk}`);
new Title(dashboard);
new People(dashboard);
dashboard.subscribe();

const announcements = client.newSubscription("announcements", { since: { offset: 0, epoch: "" } });
announcements.on("publication", ({ data }) => {
  const key = `${data.user}: ${data.message}`;
  byId("announcement").querySelector("p").textContent = key;
  byId("announcement").hidden = !data.message || remembered("dismissed") === key;
});
announcements.subscribe();
byId("announcement").querySelector("button").addEventListener("click", () => {
  remembered("dismissed", byId("announcement").querySelector("p").textContent);
  byId("announcement").hidden = true;
});
byId("announce")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { status, error } = await send("POST", "/announce", { message: byId("message").value });
  if (status === 204) byId("message").value = "";
  else toast(error, "warn");
});

client.connect();

const buttons = [...byId("windows").querySelectorAll("button")];
function choose(wanted) {
  const chosen = buttons.find((button) => button.dataset.seconds === wanted) ?? buttons[1];
  seconds = Number(chosen.dataset.seconds);
  buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
  remembered("window", chosen.dataset.seconds);
  panels.forEach((panel) => panel.reach(now()));
}
buttons.forEach((button) => button.addEventListener("click", () => choose(button.dataset.seconds)));
choose(remembered("window") ?? "60");

// The browser stops calling this in a hidden tab, and calls it no more often than the screen can show.
function scroll() {
  const at = now();
  panels.forEach((panel) => panel.tick(at));
  requestAnimationFrame(scroll);
}
requestAnimationFrame(scroll);
setInterval(() => panels.forEach((panel) => panel.age(now())), 1000);

furnish(() => panels.forEach((panel) => panel.rebuild()));

byId("curl").textContent =
  `curl -H "Authorization: Bearer ${page.push.token}" ${page.push.url} ` +
  `--data-binary "${page.pushed.split("/").at(-1)},room=lab celsius=$((RANDOM % 10 + 15))"`;
document.querySelectorAll("[data-copy]").forEach((button) =>
  button.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(byId(button.dataset.copy).textContent).catch(() => {});
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }),
);
