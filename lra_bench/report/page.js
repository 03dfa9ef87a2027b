"use strict";
// All text goes in by textContent and setAttribute: nothing that stands in a record is ever read as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

// Sorting: rows move inside their own block, so quoted rows never mix with measured ones.
function sortBy(heading) {
  const table = heading.closest("table");
  const index = [...heading.parentNode.children].indexOf(heading);
  const numeric = heading.classList.contains("num");
  const before = heading.getAttribute("aria-sort");
  const direction = before === null ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => {
    const cell = row.children[index];
    return numeric ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent.trim();
  };
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("block"));
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...keyed.map(([, row]) => row));
  }
}

function filterRows(input) {
  const section = input.closest(".section");
  const wanted = input.value.trim().toLowerCase();
  let shown = 0, all = 0;
  for (const body of section.querySelector("table").tBodies) {
    let here = 0;
    for (const row of body.rows) {
      if (row.classList.contains("block")) continue;
      row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
      here += !row.hidden;
      all += 1;
    }
    body.querySelector(".block").hidden = here === 0;
    shown += here;
  }
  section.querySelector("output").textContent = wanted === "" ? "" : `${shown} of ${all} rows`;
}

// Details of the runs behind a cell
function facts(pairs) {
  const list = document.createElement("dl");
  for (const [name, value] of pairs) list.append(make("dt", name), make("dd", value));
  return list;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const colorOf = (run, runs) => COLORS[runs.indexOf(run) % COLORS.length];

function chart(runs) {
  const curves = runs.filter((run) => run.curve && run.curve.length > 1);
  if (curves.length === 0) return document.createDocumentFragment();
  const width = Math.max(280, Math.min(640, innerWidth - 70)), height = 230, left = 44, right = 90, top = 10, bottom = 30;
  const values = curves.flatMap((run) => run.curve.map((point) => point[1]));
  const published = curves[0].published;
  if (published !== null) values.push(published);
  const last = Math.max(...curves.map((run) => run.curve[run.curve.length - 1][0]));
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (epoch) => left + (width - left - right) * epoch / last;
  const y = (value) => top + (height - top - bottom) * (high - value) / span;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": "Validation accuracy by epoch" });
  for (const value of [low, (low + high) / 2, high]) {
    picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)));
  }
  picture.append(svg("text", { x: left, y: height - 8 }, "epoch 0"));
  picture.append(svg("text", { x: width - right, y: height - 8, "text-anchor": "end" }, String(last)));
  if (published !== null) {
    picture.append(svg("line", { class: "published", x1: left, x2: width - right, y1: y(published), y2: y(published) }));
    picture.append(svg("text", { x: width - right + 6, y: y(published) + 4 }, "published"));
  }
  curves.forEach((run) => {
    const points = run.curve.map((point) => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(" ");
    const line = svg("polyline", { points, stroke: colorOf(run, runs) });
    line.append(svg("title", {}, run.title));
    picture.append(line);
  });
  return make("div", "", make("h3", "Validation accuracy (%)"), picture);
}

function describe(run, open, color) {
  const key = make("span", "■ ");
  key.style.color = color;
  const box = make("details", "", make("summary", "", run.curve.length > 1 ? key : "", run.title));
  box.open = open;
  if (run.command) {
    const copy = make("button", "copy");
    copy.type = "button";
    copy.className = "copy";
    copy.addEventListener("click", () => {
      navigator.clipboard.writeText(run.command).then(() => { copy.textContent = "copied"; }, () => { copy.textContent = "select and copy it"; });
    });
    box.append(make("h3", "Command that repeats it"), make("pre", run.command), copy);
  }
  for (const [title, pairs] of run.sections) box.append(make("h3", title), facts(pairs));
  if (run.recipe !== null) box.append(make("h3", "Recipe"), facts(data.recipes[run.recipe]));
  return box;
}

function showRuns(numbers, title) {
  const runs = numbers.map((number) => data.runs[number]);
  document.getElementById("details-title").textContent = title;
  const body = document.getElementById("details-body");
  body.replaceChildren(chart(runs), ...runs.map((run, i) => describe(run, i === 0, colorOf(run, runs))));
  const dialog = document.getElementById("details");
  dialog.showModal();
  dialog.scrollTop = 0;
}

document.addEventListener("click", (event) => {
  const dialog = document.getElementById("details");
  const runs = event.target.closest("[data-runs]");
  const heading = event.target.closest("thead th");
  if (runs) {
    const row = runs.closest("tr"), cell = runs.closest("td");
    const column = runs.closest("table").tHead.rows[0].children[[...row.children].indexOf(cell)];
    const names = [row.children[0].textContent.trim(), column.textContent.trim(), runs.textContent.trim()];
    showRuns(runs.dataset.runs.split(" ").map(Number), [...new Set(names)].join(" · "));
  } else if (heading) sortBy(heading);
  else if (event.target === dialog || event.target.id === "close") dialog.close();
});
document.addEventListener("input", (event) => { if (event.target.type === "search") filterRows(event.target); });
