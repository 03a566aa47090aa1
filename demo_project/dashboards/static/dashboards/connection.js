// The state of the connection as people should see it: a blip of a second is nobody's business.

import { byId, page, speak } from "./page.js";

const PATIENCE = 1500; // milliseconds without a connection before anything is said
const GIVE_UP = 6000; // before another node is suggested
const WORDS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", offline: "Offline" };

export function connectionState(announceAway = () => {}) {
  let timers = [];
  let shown = "connecting";

  function show(state, detail = "") {
    const changed = state !== shown;
    shown = state;
    document.body.dataset.connection = state;
    byId("state").dataset.state = state;
    byId("state").querySelector("span").textContent = WORDS[state];
    byId("state").title = detail;
    if (changed) speak(`Connection: ${WORDS[state]}`);
    if (changed && state === "live") announceAway(false);
  }

  const clear = () => {
    timers.forEach(clearTimeout);
    timers = [];
  };

  return {
    live() {
      clear();
      show("live");
    },
    lost() {
      if (timers.length || shown === "offline") return;
      timers = [
        setTimeout(() => show(shown === "connecting" ? "connecting" : navigator.onLine ? "reconnecting" : "offline"), PATIENCE),
        setTimeout(() => announceAway(true), GIVE_UP),
      ];
    },
    // For good: the server said not to come back.
    ended(reason) {
      clear();
      show("offline", reason);
      announceAway(true, reason);
    },
  };
}

// The notice with a way out: another node has the same data.
export function awayNotice(away, reason = "") {
  const notice = byId("away");
  notice.hidden = !away;
  if (!away) return;
  const text = notice.querySelector("p");
  text.textContent = reason ? `This page was disconnected: ${reason}. ` : `${page.node} does not answer. `;
  if (reason) {
    text.append(Object.assign(document.createElement("a"), { href: "", textContent: "Reload" }));
  } else if (page.others.length) {
    text.append("The same dashboard is live on ");
    page.others.forEach(({ name, url }, index) => {
      if (index) text.append(" and ");
      text.append(Object.assign(document.createElement("a"), { href: new URL(location.pathname, url).href, textContent: name }));
    });
    text.append(".");
  }
}
