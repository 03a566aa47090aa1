// Renaming the dashboard, and what happens when somebody else does, also while one is at it.

import { byId, page, send, tab, toast } from "./page.js";

const NOTICE = 90_000; // milliseconds an "is editing" notice stands without news

export class Title {
  constructor(subscription) {
    this.dashboard = page.dashboard;
    this.subscription = subscription;
    this.editors = new Map(); // tab -> {name, timer}
    const [form, input] = [byId("title"), byId("title-input")];
    byId("rename").addEventListener("click", () => this.#edit(true));
    byId("cancel").addEventListener("click", () => this.#edit(false));
    input.addEventListener("keydown", (event) => event.key === "Escape" && this.#edit(false));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(input.value);
    });
    addEventListener("pagehide", () => this.editing && this.#tell("editing-finished"));
    subscription.on("publication", ({ data }) => data.tab !== tab && this.#heard(data));
  }

  get editing() {
    return !byId("title-input").hidden;
  }

  #edit(on) {
    if (on === this.editing) return;
    const [heading, input] = [byId("title").querySelector("h1"), byId("title-input")];
    heading.hidden = on;
    byId("rename").hidden = on;
    for (const id of ["title-input", "save", "cancel"]) byId(id).hidden = !on;
    if (on) {
      input.value = this.dashboard.title;
      input.select();
    } else byId("rename").focus();
    this.#tell(on ? "editing-started" : "editing-finished");
  }

  #tell(action) {
    this.subscription.publish({ action, uid: String(this.dashboard.pk), tab }).catch(() => {}); // a courtesy, no more
  }

  async #save(title) {
    if (title.trim() === this.dashboard.title) {
      this.#edit(false);
      return;
    }
    const answer = await send("PATCH", this.dashboard.url, { title, version: this.dashboard.version });
    if (answer.status === 409) {
      toast(`Somebody was faster: it is “${answer.title}” now. Save again to rename it all the same.`, "warn");
      this.#show(answer);
    } else if (answer.status !== 200) {
      toast(answer.error, "warn");
    } else {
      this.#show(answer);
      this.#edit(false);
    }
  }

  #show(dashboard) {
    const { title } = dashboard;
    this.dashboard = dashboard;
    byId("title").querySelector("h1").textContent = title;
    document.title = `${title} · livechannels`;
  }

  async #heard({ action, user, tab: from, message, version }) {
    const who = user ?? "Someone";
    if (action === "editing-started") {
      this.#editor(from, who);
    } else if (action === "editing-finished") {
      this.#editor(from, null);
    } else if (action === "deleted") {
      toast(`${who} deleted this dashboard.`, "warn");
    } else if (action === "saved" && version > this.dashboard.version) {
      const response = await fetch(this.dashboard.url, { headers: { Accept: "application/json" } }).catch(() => null);
      if (!response?.ok) return;
      const dashboard = await response.json();
      const renamed = dashboard.title !== this.dashboard.title;
      const panels = JSON.stringify(dashboard.panels) !== JSON.stringify(this.dashboard.panels);
      const was = this.dashboard.title;
      if (renamed) toast(`“${was}” was renamed “${dashboard.title}” by ${who}.`);
      else toast(`${who} changed this dashboard${message ? `: ${message}` : ""}.`);
      if (panels && !this.editing) location.reload();
      else this.#show(dashboard);
    }
  }

  #editor(from, name) {
    clearTimeout(this.editors.get(from)?.timer);
    if (name) this.editors.set(from, { name, timer: setTimeout(() => this.#editor(from, null), NOTICE) });
    else this.editors.delete(from);
    const names = [...new Set([...this.editors.values()].map((editor) => editor.name))];
    byId("editing").hidden = !names.length;
    byId("editing").textContent = names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} editing` : "";
  }
}
