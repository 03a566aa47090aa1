// The unmodified centrifuge-js, driven by JSON lines: one command in, one answer out, events in between.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import vm from "node:vm";

vm.runInThisContext(readFileSync(new URL("../../livechannels/static/livechannels/centrifuge.js", import.meta.url)));
const clients = new Map();
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

// A browser sends cookies by itself, and says so when nobody listens; node's WebSocket has to be helped with both.
const socketWith = (headers) => class extends WebSocket {
  constructor(url, protocols) {
    super(url, { protocols: protocols ?? [], headers });
    this.addEventListener("error", () => {
      if (this.readyState === WebSocket.CONNECTING && this.onclose) this.onclose({ code: 1006, reason: "" });
    });
  }
};

function watch(source, names, facts) {
  for (const name of names) {
    source.on(name, (context) => say({ event: name, ...facts, context: plain(context) }));
  }
}

const plain = (context) => JSON.parse(JSON.stringify(context ?? null, (key, value) =>
  value instanceof Error ? { message: value.message, code: value.code } : value));

const operations = {
  open({ client, url, headers, options }) {
    const centrifuge = new Centrifuge(url, {
      websocket: socketWith(headers ?? {}), minReconnectDelay: 50, maxReconnectDelay: 500, timeout: 20000, ...options,
    });
    clients.set(client, centrifuge);
    watch(centrifuge, ["connecting", "connected", "disconnected", "error", "message", "publication", "join", "leave",
      "subscribed", "subscribing", "unsubscribed"], { client });
  },
  connect({ client }) { clients.get(client).connect(); },
  disconnect({ client }) { clients.get(client).disconnect(); },
  subscribe({ client, channel, options }) {
    const centrifuge = clients.get(client);
    const found = centrifuge.getSubscription(channel);
    const subscription = found ?? centrifuge.newSubscription(channel, { minResubscribeDelay: 50, ...options });
    if (!found) {
      watch(subscription, ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"],
        { client, channel });
    }
    subscription.subscribe();
  },
  unsubscribe({ client, channel }) { clients.get(client).getSubscription(channel).unsubscribe(); },
  // The wire breaks: no goodbye from either side.
  cut({ client }) { clients.get(client)._transport._transport.close(); },
  async call({ client, channel, method, args }) {
    const centrifuge = clients.get(client);
    const target = channel ? centrifuge.getSubscription(channel) : centrifuge;
    return plain(await target[method](...(args ?? [])));
  },
};

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  Promise.resolve().then(() => operations[command.op](command)).then(
    (result) => say({ answer: command.number, result: result ?? null }),
    (error) => say({ answer: command.number, error: { code: error.code ?? -1, message: error.message } }),
  );
}
process.exit(0);
