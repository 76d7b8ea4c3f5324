// Glue between DataTables, Vega-Lite and the address bar. State lives after the # of the address: q, family, row, a, b …
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const views = [];
const picked = document.head.appendChild(document.createElement("style"));

function remember(changes) {
  for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
  history.replaceState(null, "", state.toString() ? `#${state}` : location.pathname + location.search);
}

// one row, everywhere
function pick(name, keep = false) {
  const chosen = !keep && state.get("row") === name ? "" : name;
  remember({row: chosen});
  $$("[data-pick]").forEach(button => button.setAttribute("aria-pressed", String(button.dataset.pick === chosen)));
  picked.textContent = `tr[data-row="${CSS.escape(chosen)}"] > * { background: var(--picked) !important; }`;
  views.filter(answers).forEach(view => view.signal("row", chosen || null).runAsync());
}

const answers = view => "row" in view.getState().signals;

// charts are drawn when they come into sight
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => location.reload());  // charts are drawn in the colours of the page

async function draw(place, spec) {
  const scheme = dark.matches ? "dark" : "light";
  const options = {actions: false, config: themes[scheme], renderer: "svg", tooltip: {theme: scheme}};
  const {view} = await vegaEmbed(place, spec, options);
  $("svg", place)?.setAttribute("aria-hidden", "true");  // the label of its place says what it shows
  views.push(view);
  if (answers(view) && state.get("row")) view.signal("row", state.get("row")).runAsync();
  $$("[data-image]", place.parentElement).forEach(button => button.addEventListener("click", async () => {
    const address = await view.toImageURL(button.dataset.image, 2);
    Object.assign(document.createElement("a"), {href: address, download: `chart.${button.dataset.image}`}).click();
  }));
  view.addEventListener("click", (event, item) => {
    const name = item && item.datum && item.datum.architecture;
    if (name) pick(name);
  });
  return view;
}

function charts() {
  const waiting = new Set($$("[data-chart]"));
  const start = figure => waiting.delete(figure) && draw($(".plot", figure), JSON.parse(document.getElementById(figure.dataset.chart).textContent))
    .catch(error => { $(".plot", figure).textContent = `This chart cannot be drawn: ${error.message}.`; });
  onSight(waiting, start);
  addEventListener("beforeprint", () => waiting.forEach(start));
}

function onSight(elements, start) {
  const seen = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => { seen.unobserve(e.target); start(e.target); }), {rootMargin: "400px"});
  elements.forEach(element => seen.observe(element));
}

// tables: sorted by a click on a column, searched, columns hidden
async function tables() {
  const {default: DataTable} = await window.dataTables;
  DataTable.ext.errMode = "console";
  for (const [way, sign] of [["asc", 1], ["desc", -1]])  // what is missing comes last in both directions
    DataTable.ext.type.order[`num-${way}`] = (x, y) => x === y ? 0 : x === -Infinity ? 1 : y === -Infinity ? -1 : sign * (x - y);
  const start = table => {
    const long = table.tBodies[0].rows.length > 200, many = table.tBodies[0].rows.length > 12;
    const made = new DataTable(table, {
      order: [], autoWidth: false, paging: long, pageLength: 100, info: long,
      layout: {topStart: table.tHead.rows[0].cells.length > 5 ? {buttons: [{extend: "colvis", text: "Columns"}]} : null,
        topEnd: many ? "search" : null, bottomStart: long ? "info" : null, bottomEnd: long ? "paging" : null},
    });
    fit(made, table);
  };
  onSight($$("table.board:not(#comparison)"), start);  // dozens of long ones take seconds
  matrix(DataTable);
}

// optional columns that find no room are hidden, the last first; "Columns" brings them back
function fit(made, table) {
  const frame = table.closest(".wide");
  const optional = $$("th.optional", table.tHead).map(head => made.column(head).index()).reverse();
  for (const index of optional) {
    if (table.scrollWidth <= frame.clientWidth + 1) break;
    made.column(index).visible(false);
  }
}

function matrix(DataTable) {
  const table = $("#matrix"), form = $("#filters");
  if (!table) return;
  const made = new DataTable(table, {order: [], paging: false, info: false, autoWidth: false, layout: {topStart: null, topEnd: null, bottomStart: null, bottomEnd: null}, orderCellsTop: false});
  const fields = ["q", "family", "trait", "suite", "role", "track"].filter(name => form.elements[name]);
  const first = Object.fromEntries(fields.map(name => [name, form.elements[name].value]));
  made.search.fixed("rows", (text, data, index) => {
    const row = made.row(index).node().dataset, value = name => form.elements[name] ? form.elements[name].value : "";
    const preset = state.get("preset") || "all";
    return (!value("family") || row.family === value("family")) && (!value("trait") || row.traits.split(", ").includes(value("trait")))
      && (preset === "all" || row.presets.split(" ").includes(preset))
      && `${row.row} ${row.family}`.toLowerCase().includes(value("q").trim().toLowerCase());
  });
  const heads = $$("th.task", table.tHead).map(head => ({...head.dataset, index: made.column(head).index()}));
  const apply = () => {
    for (const head of heads) {
      const shown = ["suite", "role", "track"].every(key => !form.elements[key] || ["", "*", head[key]].includes(form.elements[key].value));
      if (made.column(head.index).visible() !== shown) made.column(head.index).visible(shown, false);
    }
    made.draw();
    // as many columns as fit; numbers only where they can be read
    const shown = heads.filter(head => made.column(head.index).visible()).length, room = table.closest(".wide").clientWidth;
    const width = Math.max(14, Math.min(44, Math.floor((room - 304) / Math.max(1, shown))));
    table.style.setProperty("--cell", `${width}px`);
    remember(Object.fromEntries(fields.map(name => [name, form.elements[name].value === first[name] ? "" : form.elements[name].value])));
  };
  fields.forEach(name => { form.elements[name].value = state.get(name) ?? first[name]; form.elements[name].addEventListener("input", apply); });
  const presets = $$("[data-preset]", form);
  const press = key => presets.forEach(button => button.setAttribute("aria-pressed", String(button.dataset.preset === key)));
  presets.forEach(button => button.addEventListener("click", () => {
    remember({preset: button.dataset.preset === "all" ? "" : button.dataset.preset});
    press(button.dataset.preset);
    apply();
  }));
  press(state.get("preset") || "all");
  apply();
}

// two architectures, board by board; the numbers are those of the boards
const digits = value => value == null ? "–" : Number(value.toPrecision(4)).toString();
const ratio = (a, b) => a && b ? a / b : null;
const letters = text => text.match(/[a-z]\d*/g) || [];

function compared(a, b) {
  return window.boards.filter(board => Object.hasOwn(board.rows, a) && Object.hasOwn(board.rows, b)).map(board => {
    const [one, two] = [board.rows[a], board.rows[b]];
    const difference = one.mean == null || two.mean == null ? null : one.mean - two.mean;
    const half = one.half == null || two.half == null ? null : Math.hypot(one.half, two.half);
    const ranked = one.letters && two.letters, apart = ranked && !letters(one.letters).some(l => letters(two.letters).includes(l));
    const better = difference * (board.higher ? 1 : -1) > 0;
    return {
      board: `${board.suite}: ${board.task}`, href: board.href, metric: board.metric, difference, half,
      turned: half ? difference * (board.higher ? 1 : -1) / half : null,
      verdict: !ranked ? [one.reason && `${a}: ${one.reason}`, two.reason && `${b}: ${two.reason}`].filter(Boolean).join("; ") || "not ranked" : !apart ? "not separated" : `${better ? a : b} is better`,
      winner: !ranked ? null : !apart ? "" : better ? a : b,
      flops: ratio(one.flops, two.flops), speed: ratio(one.speed, two.speed), state: ratio(one.state, two.state), params: ratio(one.params, two.params),
    };
  });
}

async function compare() {
  const form = $("#pair");
  if (!form) return;
  const {default: DataTable} = await window.dataTables;
  const names = [...form.a.options].map(option => option.value);
  form.a.value = names.includes(state.get("a")) ? state.get("a") : names[0];
  form.b.value = names.includes(state.get("b")) ? state.get("b") : names[1] || names[0];
  const render = (value, type) => type === "display" ? digits(value) : value;
  const exact = (cell, value) => { cell.dataset.order = value ?? ""; };  // for `save`
  const made = new DataTable("#comparison", {
    order: [], paging: false, info: false, autoWidth: false, layout: {topStart: null, topEnd: null},
    columns: [
      {data: "board", render: (value, type, row) => type !== "display" ? value : Object.assign(document.createElement("a"), {href: row.href, textContent: value})},
      {data: "metric", render: DataTable.render.text()},
      {data: "difference", className: "number", createdCell: exact, render: (value, type) => type !== "display" ? value : `${value > 0 ? "+" : ""}${digits(value)}`},
      {data: "half", className: "number", createdCell: exact, render},
      {data: "verdict", render: DataTable.render.text()},
      ...["flops", "speed", "state", "params"].map(data => ({data, className: "number", createdCell: exact, render})),
    ],
  });
  const show = async () => {
    const [a, b] = [form.a.value, form.b.value];
    remember({a, b});
    const rows = compared(a, b);
    made.clear().rows.add(rows).draw();
    const decided = rows.filter(row => row.winner !== null), count = name => decided.filter(row => row.winner === name).length;
    const costs = rows.map(row => row.flops).filter(Boolean), cost = Math.exp(costs.map(Math.log).reduce((x, y) => x + y, 0) / costs.length);
    $("#verdict").textContent = !decided.length ? `No board ranks both ${a} and ${b}.` :
      `${a} is better than ${b} on ${count(a)} of ${decided.length} boards, worse on ${count(b)}; ${count("")} undecided.` + (costs.length ? ` It costs ${cost.toPrecision(2)}× the training FLOPs.` : "");
    const points = rows.filter(row => row.turned != null).map(row => ({board: row.board, turned: Math.max(-8, Math.min(8, row.turned)), about: row.verdict}));
    $("#differences").replaceChildren();
    if (points.length) await draw($("#differences"), {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: {step: 18}, data: {values: points},
      encoding: {y: {field: "board", type: "nominal", sort: null, title: null, axis: {labelLimit: 260}}},
      layer: [
        {data: {values: [{}]}, mark: {type: "rect", color: "#808080", opacity: .18}, encoding: {x: {datum: -1}, x2: {datum: 1}, y: {value: 0}, y2: {value: "height"}}},
        {mark: {type: "bar", height: 9, color: "#0072B2"}, encoding: {x: {field: "turned", type: "quantitative", title: `← ${b} better · difference over its 95% half-width (cut at ±8) · ${a} better →`, scale: {domainMin: -8, domainMax: 8}}, tooltip: [{field: "board"}, {field: "about", title: "verdict"}]}},
      ],
    });
  };
  form.addEventListener("input", show);
  $("#swap").addEventListener("click", () => { [form.a.value, form.b.value] = [form.b.value, form.a.value]; show(); });
  await show();
}

// a table as a file: what stands in its cells, numbers in full
function save(kind, table) {
  const rows = $$("tr", table).map(row => [...row.cells].map(cell => cell.dataset.order && cell.classList.contains("number") ? Number(cell.dataset.order) : cell.innerText.trim()));
  const [heads, ...lines] = rows;
  const safe = text => /^[=+\-@\t\r]/.test(text) && isNaN(text) ? `'${text}` : text;
  const tex = text => text.replace(/[\\{}$&#%_^~]/g, c => ({"\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}"})[c] || `\\${c}`);
  const text = {
    csv: () => rows.map(row => row.map(cell => `"${safe(String(cell)).replaceAll('"', '""')}"`).join(",")).join("\n"),
    json: () => JSON.stringify(lines.map(row => Object.fromEntries(row.map((cell, i) => [heads[i], cell]))), null, 1),
    tex: () => ["\\begin{tabular}{" + "l".repeat(heads.length) + "}", "\\toprule", ...rows.map((row, i) => row.map(cell => tex(String(cell))).join(" & ") + " \\\\" + (i ? "" : "\n\\midrule")), "\\bottomrule", "\\end{tabular}"].join("\n"),
  }[kind]();
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(new Blob([text + "\n"], {type: "text/plain"})), download: `${table.id.split(":")[0]}.${kind}`});
  link.click();
  URL.revokeObjectURL(link.href);
}

document.addEventListener("DOMContentLoaded", async () => {
  $$("[data-pick]").forEach(button => button.addEventListener("click", () => pick(button.dataset.pick)));
  $$("[data-save]").forEach(button => button.addEventListener("click", () => save(button.dataset.save, document.getElementById(button.dataset.of))));
  document.addEventListener("click", event => {
    const row = event.target.closest("tr[data-row]");
    if (row && !event.target.closest("a, button, thead")) pick(row.dataset.row);
    $$("header details[open]").forEach(menu => menu.contains(event.target) || menu.removeAttribute("open"));
  });
  if (window.vegaEmbed) charts();
  await tables();
  await compare();
  const row = state.get("row");
  if (row && $(`[data-row="${CSS.escape(row)}"]`)) pick(row, true); else remember({row: ""});
  addEventListener("hashchange", () => location.hash.includes("=") ? location.reload() : state.toString() && remember({}));
  document.documentElement.dataset.ready = "true";
});
