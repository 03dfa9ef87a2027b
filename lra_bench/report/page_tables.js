"use strict";
// The tables: sorting, filters, moving with the arrow keys, footnotes in place, and all of it in the address.
// All text goes in by textContent and setAttribute: nothing that stands in a record is ever read as markup.
const COLLATOR = new Intl.Collator("en", { numeric: true });
const tables = [...document.querySelectorAll("main table")];
const state = new Map(tables.map((table) => [table, { rows: "", family: "", hidden: new Set(), sorted: null }]));
const atFirst = new Map(tables.map((table) => [table, [...table.tBodies].map(rowsOf)]));
const firstOrder = new Map(tables.map((table) => [table, sortedBy(table)]));

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

function rowsOf(body) {
  return [...body.rows].filter((row) => !row.classList.contains("block"));
}

function textOf(cell) {
  if (!cell.querySelector("sup")) return cell.textContent.trim();
  const copy = cell.cloneNode(true);
  for (const mark of copy.querySelectorAll("sup")) mark.remove();
  return copy.textContent.trim();
}

function headingsOf(table) {
  return [...table.tHead.rows[0].cells];
}

function titleOf(heading) {
  return heading.querySelector("button").textContent;
}

function titlesOf(table) {
  return headingsOf(table).map(titleOf);
}

// Sorting: rows move inside their own block, so quoted rows never mix with measured ones.
function sortedBy(table) {
  const index = headingsOf(table).findIndex((heading) => heading.hasAttribute("aria-sort"));
  return index < 0 ? null : [titlesOf(table)[index], headingsOf(table)[index].getAttribute("aria-sort")];
}

function keyOf(row, index, numeric) {
  const cell = row.cells[index];
  return numeric ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent.trim();
}

function sortRows(table, sorted) {
  const headings = headingsOf(table), [title, direction] = sorted ?? firstOrder.get(table) ?? [null, null];
  const index = titlesOf(table).indexOf(title);
  for (const heading of headings) heading.removeAttribute("aria-sort");
  if (index >= 0) headings[index].setAttribute("aria-sort", direction);
  const numeric = index >= 0 && headings[index].classList.contains("num"), sign = direction === "ascending" ? 1 : -1;
  [...table.tBodies].forEach((body, i) => {
    const first = atFirst.get(table)[i];
    if (sorted === null || index < 0) return body.append(...first);
    const keyed = first.map((row) => [keyOf(row, index, numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (numeric ? a - b : COLLATOR.compare(a, b));
    });
    body.append(...keyed.map(([, row]) => row));
  });
  const ends = numeric ? { ascending: "lowest first", descending: "highest first" } : { ascending: "from A to Z", descending: "from Z to A" };
  table.querySelector(".order").textContent = index < 0 ? "" : `, sorted by ${title}, ${ends[direction]}`;
}

function chooseOrder(heading) {
  const table = heading.closest("table"), numeric = heading.classList.contains("num"), before = heading.getAttribute("aria-sort");
  const direction = before === null ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  state.get(table).sorted = [titleOf(heading), direction];
  sortRows(table, state.get(table).sorted);
  writeAddress();
}

// Filters: of rows by their text and family, and of columns
function filterRows(table) {
  const { rows, family } = state.get(table), wanted = rows.trim().toLowerCase();
  let shown = 0, all = 0;
  for (const body of table.tBodies) {
    let here = 0;
    for (const row of rowsOf(body)) {
      row.hidden = (wanted !== "" && !row.textContent.toLowerCase().includes(wanted)) || (family !== "" && row.dataset.family !== family);
      here += !row.hidden;
      all += 1;
    }
    body.querySelector(".block").hidden = here === 0;
    shown += here;
  }
  toolsOf(table).querySelector("output").textContent = shown === all ? "" : `${shown} of ${all} rows`;
}

function filterColumns(table) {
  const { hidden } = state.get(table), titles = titlesOf(table);
  for (const row of table.rows) {
    if (row.classList.contains("block")) row.cells[0].colSpan = titles.length - hidden.size;
    else [...row.cells].forEach((cell, i) => { cell.hidden = hidden.has(titles[i]); });
  }
  toolsOf(table).querySelector("summary").textContent = hidden.size === 0 ? "Columns" : `Columns (${hidden.size} hidden)`;
}

function showState(table) {
  const { rows, family, hidden, sorted } = state.get(table), tools = toolsOf(table);
  tools.querySelector("[type=search]").value = rows;
  if (tools.querySelector("select")) tools.querySelector("select").value = family;
  for (const box of tools.querySelectorAll("[type=checkbox]")) box.checked = !hidden.has(box.value);
  sortRows(table, sorted);
  filterRows(table);
  filterColumns(table);
}

const toolsOf = (table) => table.closest(".section").querySelector(".tools");

function makeTools(table) {
  const search = make("input"), families = new Set(rowsWithFamily(table).map((row) => row.dataset.family));
  Object.assign(search, { type: "search", autocomplete: "off", spellcheck: false });
  const tools = make("div", "", make("label", "Filter rows ", search));
  tools.className = "tools";
  if (families.size > 1) {
    const choice = make("select", "", new Option("all", ""), ...[...families].sort().map((name) => new Option(name)));
    tools.append(make("label", "Family ", choice));
  }
  const boxes = titlesOf(table).slice(1).map((title) => {
    const box = Object.assign(make("input"), { type: "checkbox", checked: true, value: title });
    return make("label", "", box, ` ${title}`);
  });
  tools.append(make("details", "", make("summary", "Columns"), make("div", "", ...boxes)), make("output"));
  table.closest(".scroll").before(tools);
}

const rowsWithFamily = (table) => [...table.querySelectorAll("tr[data-family]")];

function changed(control) {
  const table = control.closest(".section").querySelector("table"), mine = state.get(table);
  if (control.type === "checkbox") {
    if (control.checked) mine.hidden.delete(control.value);
    else mine.hidden.add(control.value);
    filterColumns(table);
  } else {
    mine[control.type === "search" ? "rows" : "family"] = control.value;
    filterRows(table);
  }
  keepOneStop(table);
  writeAddress();
}

// The address: #PLACE&TABLE.rows=…&TABLE.family=…&TABLE.hidden=…&TABLE.sorted=…. PLACE is the id of an element or a cell.
let place = "";

function writeAddress(how = "replaceState") {
  const found = new URLSearchParams();
  for (const [table, { rows, family, hidden, sorted }] of state) {
    if (rows) found.set(`${table.id}.rows`, rows);
    if (family) found.set(`${table.id}.family`, family);
    for (const title of hidden) found.append(`${table.id}.hidden`, title);
    if (sorted) found.set(`${table.id}.sorted`, sorted.join("."));
  }
  const hash = [place, found.toString()].filter(Boolean).join("&");
  history[how](null, "", addressOf(hash));
}

const addressOf = (hash) => location.href.split("#")[0] + (hash ? `#${hash}` : "");

function readAddress() {
  const [first, ...rest] = location.hash.slice(1).split("&");
  place = first.includes("=") ? "" : first;
  const found = new URLSearchParams((first.includes("=") ? [first, ...rest] : rest).join("&"));
  for (const table of tables) {
    const titles = titlesOf(table), get = (name) => found.get(`${table.id}.${name}`) ?? "";
    const families = rowsWithFamily(table).map((row) => row.dataset.family);
    const [, title, direction] = get("sorted").match(/^(.*)\.(ascending|descending)$/) ?? [];
    state.set(table, {
      rows: get("rows"),
      family: families.includes(get("family")) ? get("family") : "",
      hidden: new Set(found.getAll(`${table.id}.hidden`).filter((name) => titles.indexOf(name) > 0)),
      sorted: titles.includes(title) ? [title, direction] : null,
    });
    showState(table);
    keepOneStop(table);
  }
  goTo(place);
}

function goTo(name) {
  document.getElementById("status").textContent = "";
  if (name === "") return;
  const cell = name.includes("/") ? cellAt(name) : null, element = cell ?? document.getElementById(name);
  if (element === null) {
    document.getElementById("status").textContent = "The address names a cell that this page does not have.";
    return;
  }
  const section = element.closest("details.section");
  if (section) section.open = true;
  if (cell) {
    show(cell);
    moveTo(cell);
    cell.scrollIntoView({ block: "center", inline: "center" });
    if (cell.querySelector("[data-runs]")) openDetails(cell);
  } else {
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
    element.scrollIntoView();
  }
}

// A cell's place: TABLE/BLOCK/TEXT/…/COLUMN, with as many of the row's first texts as tell it from the others
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const blockOf = (body) => slug(body.querySelector(".block").textContent);
const beginsWith = (row, texts) => texts.every((text, i) => row.cells[i] !== undefined && textOf(row.cells[i]) === text);

function placeOf(cell) {
  const row = cell.parentNode, body = row.parentNode, table = row.closest("table"), texts = [];
  do texts.push(textOf(row.cells[texts.length]));
  while (texts.length < row.cells.length && rowsOf(body).filter((other) => beginsWith(other, texts)).length > 1);
  const names = [...texts, titlesOf(table)[cell.cellIndex]].map(encodeURIComponent);
  return [table.id, blockOf(body), ...names].join("/");
}

function cellAt(name) {
  let parts;
  try { parts = name.split("/").map(decodeURIComponent); } catch { return null; }
  const [id, block, ...texts] = parts, title = texts.pop(), table = tables.find((one) => one.id === id);
  const bodies = table ? [...table.tBodies].filter((body) => blockOf(body) === block) : [];
  const row = bodies.flatMap(rowsOf).find((one) => beginsWith(one, texts));
  return row?.cells[titlesOf(table).indexOf(title)] ?? null;
}

function show(cell) {
  const table = cell.closest("table"), mine = state.get(table);
  if (cell.parentNode.hidden) Object.assign(mine, { rows: "", family: "" });
  mine.hidden.delete(titlesOf(table)[cell.cellIndex]);
  showState(table);
}

// One stop of the Tab key per table; inside, the arrow keys, Home, End, Page Up and Page Down move from cell to cell.
const stops = new Map();
const stopOf = (cell) => cell.querySelector("button") ?? cell;

function moveTo(cell, focus = true) {
  const table = cell.closest("table"), before = stops.get(table), stop = stopOf(cell);
  if (before) before.tabIndex = -1;
  stops.set(table, stop);
  stop.tabIndex = 0;
  if (!focus) return;
  const box = table.closest(".scroll"), head = table.tHead.rows[0].cells[0];
  box.style.scrollPadding = `${head.offsetHeight + 4}px 4px 4px ${head.offsetWidth + 4}px`;
  stop.focus({ preventScroll: true });
  cell.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function keepOneStop(table) {
  const cell = stops.get(table)?.closest("th, td");
  if (!cell || cell.hidden || cell.parentNode.hidden) moveTo(headingsOf(table)[0], false);
}

function move(event) {
  const cell = event.target.closest("th, td"), table = event.target.closest("table");
  if (!cell || event.altKey || event.metaKey) return;
  const rows = [table.tHead.rows[0], ...[...table.tBodies].flatMap(rowsOf)].filter((row) => !row.hidden);
  const cells = [...cell.parentNode.cells].filter((one) => !one.hidden);
  const y = rows.indexOf(cell.parentNode), x = cells.indexOf(cell), last = cells.length - 1, bottom = rows.length - 1;
  const [down, across] = {
    ArrowDown: [y + 1, x], ArrowUp: [y - 1, x], PageDown: [y + 10, x], PageUp: [y - 10, x],
    ArrowRight: [y, x + 1], ArrowLeft: [y, x - 1], Home: [event.ctrlKey ? 0 : y, 0], End: [event.ctrlKey ? bottom : y, last],
  }[event.key] ?? [null, null];
  if (down === null) return;
  event.preventDefault();
  const row = rows[Math.min(Math.max(down, 0), bottom)];
  moveTo([...row.cells].filter((one) => !one.hidden)[Math.min(Math.max(across, 0), last)]);
}

// Footnotes in place: beside a cell that has the focus or the pointer, what its letters mean and where it is from
const tip = document.getElementById("tip");

function meanings(cell) {
  const notes = [...cell.closest(".section").querySelectorAll(".notes .mark")];
  const letters = [...cell.querySelectorAll("sup")].flatMap((mark) => mark.textContent.split(","));
  const meaningOf = (letter) => notes.find((note) => note.firstChild.textContent === letter).lastChild.textContent.trim();
  return letters.map((letter) => `${letter}: ${meaningOf(letter)}`);
}

function showTip(cell) {
  const lines = [...meanings(cell), ...(cell.dataset.hint ? [cell.dataset.hint] : [])];
  hideTip();
  if (lines.length === 0 || document.getElementById("details").open) return;
  tip.replaceChildren(...lines.map((line) => make("p", line)));
  tip.hidden = false;
  const around = stopOf(cell).getBoundingClientRect(), box = tip.getBoundingClientRect();
  const below = around.bottom + 4 + box.height < innerHeight || around.top < box.height;
  tip.style.left = `${Math.max(6, Math.min(around.left, document.documentElement.clientWidth - box.width - 6))}px`;
  tip.style.top = `${below ? around.bottom + 4 : around.top - box.height - 4}px`;
  stopOf(cell).setAttribute("aria-describedby", "tip");
}

function hideTip() {
  tip.hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}
