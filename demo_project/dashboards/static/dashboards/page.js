// What the server wrote into the page, the person's choices, and the words spoken to screen readers.

export const page = JSON.parse(document.getElementById("page").textContent);
export const byId = (id) => document.getElementById(id);
export const tab = crypto.randomUUID?.() ?? String(Math.random()).slice(2);

// The server's clock, so that a viewer whose own is wrong still sees the samples where they belong; in seconds.
const skew = page.now - Date.now();
export const now = () => (Date.now() + skew) / 1000;

export function remembered(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
  return value ?? null;
}

export function speak(text) {
  byId("spoken").textContent = text;
}

export function toast(text, kind = "") {
  const box = document.createElement("div");
  box.className = `toast ${kind}`;
  box.textContent = text;
  byId("toasts").append(box);
  setTimeout(() => box.classList.add("leaving"), 5600);
  setTimeout(() => box.remove(), 6000);
}

// POST or PATCH of JSON; the answer's JSON comes with its status and is never thrown.
export async function send(method, url, body) {
  const token = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? document.querySelector("[name=csrfmiddlewaretoken]").value;
  const headers = { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token, "X-Live-Tab": tab };
  try {
    const response = await fetch(url, { method, headers, body: JSON.stringify(body) });
    const answer = await response.json().catch(() => ({}));
    return { status: response.status, error: response.ok ? "" : `The server answered ${response.status}.`, ...answer };
  } catch {
    return { status: 0, error: "The node does not answer." };
  }
}

// The theme button and the menu of people, which both pages have. onTheme() after a change.
export function furnish(onTheme) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  byId("theme").addEventListener("click", () => {
    const current = document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
    const next = current === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    remembered("theme", next);
    onTheme();
  });
  system.addEventListener("change", onTheme);
  byId("person").addEventListener("change", (event) => event.target.form.submit());
}
