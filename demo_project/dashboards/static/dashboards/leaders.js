// Which node leads each stream: told by the frames themselves.

import { byId, page, toast } from "./page.js";

export class Leaders {
  constructor() {
    this.known = new Map(); // channel -> {leader, pid}
    this.moved = new Map(); // new leader -> channels, gathered into one message
  }

  heard(channel, { leader, pid }) {
    const before = this.known.get(channel);
    if (before?.leader === leader && before.pid === pid) return;
    this.known.set(channel, { leader, pid });
    if (before && before.leader !== leader) this.#took(leader, channel);
    this.#show();
  }

  #took(leader, channel) {
    const channels = this.moved.get(leader) ?? [];
    this.moved.set(leader, [...channels, channel]);
    if (channels.length) return;
    setTimeout(() => {
      const count = this.moved.get(leader).length;
      this.moved.delete(leader);
      toast(`${leader} took over ${count > 1 ? `${count} streams` : channel}.`);
    }, 1200);
  }

  #show() {
    const items = [...this.known].sort().map(([channel, { leader }]) => {
      const item = document.createElement("li");
      item.dataset.channel = channel;
      item.append(`${channel.split("/").at(-1)} `, Object.assign(document.createElement("b"), { textContent: leader }));
      item.title = `${leader} reads ${channel} for all nodes`;
      return item;
    });
    byId("leaders").replaceChildren(...items);
    // Rather a node that does not serve this page, so that one can watch.
    const all = [...this.known.values()];
    const victim = all.find(({ leader }) => leader !== page.node) ?? all[0];
    if (byId("kill")) byId("kill").textContent = `kill -9 ${victim.pid}`;
  }
}
