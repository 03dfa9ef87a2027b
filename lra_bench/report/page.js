// The details of the runs behind a cell, and what the reader does
const data = JSON.parse(document.getElementById("data").textContent);
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const dialog = document.getElementById("details");

function facts(pairs) {
  const list = document.createElement("dl");
  for (const [name, value] of pairs) list.append(make("dt", name), value instanceof Node ? make("dd", "", value) : make("dd", value));
  return list;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const colorOf = (run, runs) => COLORS[runs.indexOf(run) % COLORS.length];
const hasCurve = (run) => run.curve !== undefined && run.curve.length > 1;

function chart(runs) {
  const curves = runs.filter(hasCurve);
  if (curves.length === 0) return document.createDocumentFragment();
  const width = Math.max(280, Math.min(640, innerWidth - 70)), height = 230, left = 44, right = 90, top = 10, bottom = 30;
  const values = curves.flatMap((run) => run.curve), { published, marks } = curves[0];
  if (published !== null) values.push(published);
  const last = Math.max(...curves.map((run) => data.epochs[run.epochs].at(-1)));
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
    picture.append(svg("text", { x: width - right + 6, y: y(published) + 4 }, marks ? `published (${marks})` : "published"));
  }
  for (const run of curves) {
    const points = run.curve.map((value, i) => `${x(data.epochs[run.epochs][i]).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const line = svg("polyline", { points, stroke: colorOf(run, runs) });
    line.append(svg("title", {}, run.title));
    picture.append(line);
  }
  return make("div", "", make("h3", "Validation accuracy (%)"), picture);
}

function copyButton(text) {
  const button = Object.assign(make("button", "copy"), { type: "button", className: "copy" });
  button.addEventListener("click", () => copy(button, text));
  return button;
}

function copy(button, text) {
  navigator.clipboard.writeText(text).then(() => { button.textContent = "copied"; }, () => { button.textContent = "select and copy it"; });
}

function describe(run, open, color) {
  const key = make("span", "■ ");
  key.style.color = color;
  const box = make("details", "", make("summary", "", hasCurve(run) ? key : "", run.title));
  box.open = open;
  if (run.command) box.append(make("h3", "Command that repeats it"), make("pre", run.command), copyButton(run.command));
  for (const [title, labels, values] of run.sections) {
    box.append(make("h3", title), facts(data.labels[labels].map((label, i) => [label, data.values[values][i]])));
  }
  return box;
}

function quoted(cell) {
  const link = cell.parentNode.cells[0].dataset.hint ?? "", pairs = [];
  if (cell.dataset.hint && cell.dataset.hint !== link) pairs.push(["Read in", cell.dataset.hint]);
  if (link.startsWith("https://")) {
    pairs.push(["Work", Object.assign(make("a", link), { href: link, rel: "noreferrer" })]);
  }
  return pairs.length ? make("div", "", make("h3", "Quoted, not measured here"), facts(pairs)) : "";
}

function openDetails(cell) {
  const title = titlesOf(cell.closest("table"))[cell.cellIndex], button = cell.querySelector("[data-runs]");
  const names = [textOf(cell.parentNode.cells[0]), title, textOf(button)];
  const runs = button.dataset.runs.split(" ").filter(Boolean).map((number) => data.runs[Number(number)]);
  const notes = meanings(cell).map((line) => make("p", line));
  const body = document.getElementById("details-body");
  document.getElementById("details-title").textContent = [...new Set(names)].join(" · ");
  body.replaceChildren(
    make("div", "", ...notes), runs.length ? "" : quoted(cell), chart(runs), ...runs.map((run, i) => describe(run, i === 0, colorOf(run, runs))),
  );
  hideTip();
  dialog.showModal();
  dialog.scrollTop = 0;
  place = placeOf(cell);
  document.getElementById("link").textContent = "Copy link";
  writeAddress();
}

// What the reader does
document.addEventListener("click", (event) => {
  const target = event.target, cell = target.closest("main th, main td"), anchor = target.closest("a[href^='#']");
  if (anchor) {
    event.preventDefault();
    place = anchor.getAttribute("href").slice(1);
    writeAddress("pushState");
    goTo(place);
  } else if (cell) {
    moveTo(cell);
    if (target.closest("[data-runs]")) openDetails(cell);
    else if (cell.closest("thead")) chooseOrder(cell);
  } else if (target === dialog || target.id === "close") dialog.close();
  else if (target.id === "link") copy(target, addressOf(place));
});
dialog.addEventListener("close", () => {
  place = "";
  writeAddress();
});
document.addEventListener("input", (event) => { if (event.target.closest(".tools")) changed(event.target); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
  else if (event.target.closest("main table")) move(event);
});
for (const kind of ["focusin", "mouseover"]) {
  document.addEventListener(kind, (event) => {
    const cell = event.target.closest("main th, main td");
    if (cell) showTip(cell);
    else if (!event.target.closest("#tip")) hideTip();
  });
}
document.addEventListener("scroll", hideTip, { capture: true, passive: true });
addEventListener("hashchange", readAddress);

for (const table of tables) {
  makeTools(table);
  table.setAttribute("role", "grid");
  table.setAttribute("aria-readonly", "true");
  table.closest(".scroll").removeAttribute("tabindex");
  for (const button of table.querySelectorAll("button")) {
    button.disabled = false;
    button.tabIndex = -1;
  }
  for (const cell of table.querySelectorAll("[title]")) {
    cell.dataset.hint = cell.title;
    cell.removeAttribute("title");
  }
}
document.querySelector(".script").hidden = false;
readAddress();
