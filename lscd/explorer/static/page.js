// The static edition of the explorer: shows the answer that belongs to the controls, from the files in answers/.
"use strict";

const edition = JSON.parse(document.getElementById("edition").textContent);
const control = Object.fromEntries(["pick", "sparsity", "batch"].map((id) => [id, document.getElementById(id)]));
const tabs = [...document.querySelectorAll("[role=tab]")];
const files = new Map(); // promises of answers, by name
const arrivals = new Map(); // what to do with a file that is being loaded, by name
const views = []; // charts on the page
const drawable = new Promise((done) => { window.addEventListener("load", done); }); // answers need not wait for vega.js
let panel = tabs[0].dataset.panel;
let latest; // choice that the page shows
let turn = 0; // counts questions, so that no late answer covers a newer one

// Files of answers are scripts that call this: a page opened without a server may load no others.
window.lscdAnswers = (name, text) => arrivals.get(name)(unpacked(text));

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function answersOf(name) {
  if (!files.has(name)) {
    files.set(name, new Promise((resolve, reject) => {
      arrivals.set(name, resolve);
      const script = document.createElement("script");
      script.src = `answers/${name}.js`;
      script.onerror = () => { files.delete(name); reject(new Error(`${script.src} cannot be loaded`)); };
      document.head.append(script);
    }));
  }
  return files.get(name);
}

function chosen() {
  const pick = edition.find((one) => one.name === control.pick.value);
  const at = Number(control.sparsity.value);
  return { pick, at, sparsity: pick.sparsities[at], batch: pick.batches[control.batch.value] };
}

function fileName(pick, batch) {
  return `${pick.name}-batch-${batch}`;
}

async function show() {
  const now = latest = chosen();
  const mine = ++turn;
  label(now);
  try {
    const answers = await answersOf(fileName(now.pick, now.batch));
    if (mine !== turn) return;
    say("");
    for (const part of ["answer", "needs", "tiles"]) document.getElementById(part).innerHTML = answers[part][now.at];
    showPanel(answers, now.at);
  } catch (error) {
    if (mine === turn) say(error.message);
  }
}

function label({ pick, sparsity, batch }) {
  const shown = { sparsity: `${Math.round(100 * sparsity)}%`, batch: String(batch) };
  for (const [name, text] of Object.entries(shown)) {
    document.getElementById(`${name}-shown`).textContent = text;
    control[name].setAttribute("aria-valuetext", text);
  }
  const live = new URLSearchParams({ ...pick.asked, sparsity, batch });
  document.getElementById("live").textContent = `lscd explore --preset '${live}'`;
  history.replaceState(null, "", `#${new URLSearchParams({ pick: pick.name, sparsity, batch, panel })}`);
}

function say(text) {
  const line = document.createElement("p");
  line.className = "lscd-error";
  line.textContent = text;
  document.getElementById("message").replaceChildren(...(text ? [line] : []));
}

// Charts drawn before stay until those that take their place are there.
function showPanel(answers, at) {
  const place = document.getElementById("panel");
  const before = Object.fromEntries([...place.querySelectorAll(".lscd-chart")].map((box) => [box.dataset.chart, box]));
  place.innerHTML = answers[panel][at];
  place.setAttribute("aria-labelledby", `tab-${panel}`);
  const boxes = [...place.querySelectorAll(".lscd-chart")];
  for (const box of boxes) box.append(...(before[box.dataset.chart]?.childNodes ?? []));
  views.splice(0).forEach((view) => view.finalize());
  const mine = turn;
  setTimeout(() => draw(boxes, answers, at, mine));
}

async function draw(boxes, answers, at, mine) {
  await drawable;
  if (!window.vegaEmbed) { say("vega.js cannot be loaded: there are no charts"); return; }
  for (const box of boxes) {
    if (mine !== turn) return;
    const spec = filled(answers.charts[box.dataset.chart][at], answers.tables);
    views.push(await window.vegaEmbed(box, spec, { mode: "vega-lite", ...spec.usermeta.embedOptions }));
    box.querySelector("summary").setAttribute("aria-label", `save the chart ${box.dataset.chart}`);
    for (const layer of box.querySelectorAll("[role=graphics-symbol]:empty")) layer.setAttribute("aria-hidden", "true");
  }
}

// A chart with its tables in place of their numbers.
function filled(part, tables) {
  if (Array.isArray(part)) return part.map((one) => filled(one, tables));
  if (part === null || typeof part !== "object") return part;
  if ("lscd-table" in part) return { values: rowsOf(tables[part["lscd-table"]]) };
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, filled(value, tables)]));
}

function rowsOf({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
}

function select(name) {
  panel = name;
  for (const tab of tabs) {
    const own = tab.dataset.panel === name;
    tab.setAttribute("aria-selected", own);
    tab.tabIndex = own ? 0 : -1;
  }
}

// Sliders of a pick's own steps, at the values wanted or else at the pick's own.
function stand(pick, sparsity, batch) {
  control.pick.value = pick.name;
  for (const [name, steps, wanted] of [["sparsity", pick.sparsities, sparsity], ["batch", pick.batches, batch]]) {
    control[name].max = steps.length - 1;
    control[name].value = steps.includes(wanted) ? steps.indexOf(wanted) : steps.indexOf(pick.state[name]);
  }
}

function followLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const pick = edition.find((one) => one.name === link.get("pick"));
  stand(pick ?? edition[0], Number(link.get("sparsity")), Number(link.get("batch")));
  select(tabs.some((tab) => tab.dataset.panel === link.get("panel")) ? link.get("panel") : panel);
  show();
}

control.pick.addEventListener("change", () => {
  stand(edition.find((one) => one.name === control.pick.value), latest.sparsity, latest.batch);
  show();
});
for (const name of ["sparsity", "batch"]) control[name].addEventListener("input", show);

// Whoever reaches for the slider of batches finds its answers there.
control.batch.addEventListener("focus", () => {
  const { pick } = chosen();
  for (const batch of pick.batches) answersOf(fileName(pick, batch)).catch(() => {});
});

document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const at = tabs.findIndex((tab) => tab.dataset.panel === panel);
  const next = { Home: 0, End: tabs.length - 1 }[event.key] ?? at + steps[event.key];
  if (Number.isNaN(next)) return;
  event.preventDefault();
  tabs.at(next % tabs.length).focus();
  tabs.at(next % tabs.length).click();
});
for (const tab of tabs) tab.addEventListener("click", () => { select(tab.dataset.panel); show(); });
window.addEventListener("hashchange", followLink);
followLink();
