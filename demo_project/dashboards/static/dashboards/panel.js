// One panel: a subscription, its samples, its chart, and the words around it.

import { Chart, seriesColour } from "./chart.js";
import { ago, unitOf } from "./format.js";
import { Samples } from "./samples.js";

const PAGE = 300; // publications a history request may bring
const REFUSALS = { 102: "There is no such stream.", 103: "You may not watch this stream." };

export class Panel {
  // span() is the window shown, in seconds; onLeader(channel, {leader, pid}) when a frame says where it came from.
  constructor(element, { channel, unit, interval, title }, { span, onLeader }) {
    Object.assign(this, { element, channel, interval, title, span, onLeader });
    this.unit = unitOf(unit);
    this.samples = new Samples(interval);
    this.zoom = null;
    this.oldest = null; // position before which there may be more
    this.find = (selector) => element.querySelector(selector);
    this.chart = new Chart(this.find(".plot"), this.unit, {
      onZoom: (from, to) => this.#hold({ from, to }),
      onCursor: (index) => this.#read(index),
    });
    this.find(".resume").addEventListener("click", () => this.#hold(null));
  }

  subscribe(client) {
    this.subscription = client.newSubscription(this.channel);
    this.subscription.on("publication", (publication) => this.#receive([publication]));
    this.subscription.on("subscribed", (context) => this.#subscribed(context));
    this.subscription.on("unsubscribed", ({ code, reason }) => this.#say(REFUSALS[code] ?? `Not subscribed: ${reason}.`));
    this.subscription.subscribe();
  }

  async #subscribed({ wasRecovering, recovered }) {
    if (recovered) return; // what was missed has been replayed: there is no gap
    if (wasRecovering) this.samples.breakHere();
    try {
      // No more than the window needs: the first picture must not wait for the rest.
      const limit = this.interval ? Math.min(PAGE, Math.ceil(this.span() / this.interval) + 5) : PAGE;
      const newest = await this.subscription.history({ limit, reverse: true });
      this.#receive(newest.publications.reverse());
      this.#rememberOldest(newest, limit);
    } catch (error) {
      if (error.code !== 108) console.warn(`${this.channel}: no history: ${error.message}`);
    }
    if (!this.samples.last) this.#say(this.interval ? "Waiting for the first frame." : "Nothing was pushed yet. Copy the command below and run it.");
  }

  #rememberOldest({ publications, epoch }, limit) {
    this.oldest = publications.length === limit ? { offset: publications[0].offset, epoch } : null;
  }

  // Reads further back until the window is covered or there is no more.
  async reach(now) {
    while (this.oldest && !this.reaching && this.samples.rows[0]?.[0] > now - this.span()) {
      this.reaching = true;
      try {
        const older = await this.subscription.history({ limit: PAGE, reverse: true, since: this.oldest });
        this.#take(older.publications.reverse());
        this.#rememberOldest(older, PAGE);
      } catch {
        this.oldest = null;
      } finally {
        this.reaching = false;
      }
    }
  }

  #receive(publications) {
    this.#take(publications);
    const { tags } = publications.at(-1) ?? {};
    if (tags?.leader) this.onLeader(this.channel, tags);
  }

  #take(publications) {
    let newSeries = false;
    for (const { data } of publications) {
      if (data?.schema && data.data) newSeries = this.samples.add(data) || newSeries;
    }
    if (!this.samples.last) return;
    this.#say("");
    if (newSeries || !this.chart.plot) this.rebuild();
    else this.#redraw();
  }

  // Anew: another theme, or another series.
  rebuild() {
    if (!this.samples.last) return;
    this.chart.build([...this.samples.keys], this.samples.aligned());
    this.#count();
    this.#legend();
    this.#read(null);
  }

  // For tests, and for whoever wonders how much is there.
  #count() {
    this.element.dataset.samples = this.samples.rows.length;
  }

  #redraw() {
    this.#count();
    this.chart.update(this.samples.aligned());
    if (!this.pointed) this.#read(null);
  }

  tick(now) {
    const { from, to } = this.zoom ?? { from: now - this.span(), to: now };
    this.chart.show(from, to);
  }

  // Once a second: how old the newest sample is, and what lies too far back.
  age(now) {
    if (!this.samples.last) return;
    this.samples.forget(now);
    const seconds = this.samples.last ? now - this.samples.last[0] : Infinity;
    const label = this.find(".fresh");
    label.textContent = Number.isFinite(seconds) ? `updated ${ago(seconds)}` : "no recent data";
    label.classList.toggle("stale", this.interval > 0 && seconds > 3 * this.interval + 1);
  }

  #hold(range) {
    this.zoom = range;
    this.find(".resume").hidden = !range;
    this.chart.drawn = NaN;
  }

  #legend() {
    const buttons = this.chart.keys.map((key, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = `Show or hide ${key}`;
      button.style.setProperty("--colour", seriesColour(index));
      button.setAttribute("aria-pressed", String(!this.chart.hidden.has(key)));
      button.append(Object.assign(document.createElement("span"), { textContent: key }), document.createElement("b"));
      button.addEventListener("click", () => button.setAttribute("aria-pressed", String(this.chart.toggle(key))));
      return button;
    });
    this.find(".legend").replaceChildren(...buttons);
  }

  // Legend values: those under the pointer, else the newest.
  #read(index) {
    this.pointed = index !== null;
    if (!this.chart.keys) return;
    const values = this.chart.keys.map((key, series) => (this.pointed ? this.chart.plot.data[series + 1][index] : this.samples.latest(key)));
    const texts = values.map((value) => (value === null || value === undefined ? "–" : this.unit.text(value)));
    this.find(".legend").querySelectorAll("b").forEach((cell, series) => {
      cell.textContent = texts[series] ?? "";
    });
    if (!this.pointed) {
      const words = this.chart.keys.map((key, series) => `${key} ${texts[series]}`).join(", ");
      this.find(".plot").setAttribute("aria-label", `Chart of ${this.title}. Now: ${words}`);
    }
  }

  #say(text) {
    this.find(".empty").textContent = text;
    this.find(".empty").hidden = !text;
    this.element.classList.toggle("blank", Boolean(text));
  }
}
