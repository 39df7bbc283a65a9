"use strict";
// A click on a column's head sorts a table, and a field hides the lines of other languages.
// Without this script the page shows every line.

const isMissing = text => /^[—·]?$/.test(text);
const asNumber = text => parseFloat(text.replaceAll(",", "").replace("−", "-"));
const textOf = (row, column) => row.cells[column].textContent.trim();

// Lines in the page's own order, each with the lines that belong to it; the title of a section stays first.
function groupsOf(body) {
  const groups = [];
  for (const row of body.rows) {
    if (row.querySelector("[scope=rowgroup]")) continue;
    if (row.classList.contains("sub")) groups.at(-1).push(row);
    else groups.push([row]);
  }
  return groups;
}

function makeSortable(table) {
  const bodies = [...table.tBodies].map(body => ({ body, groups: groupsOf(body) }));
  const heads = [...table.tHead.rows].at(-1).cells;
  const isNumeric = column => bodies.every(({ groups }) => groups.every(([row]) => {
    const text = textOf(row, column);
    return isMissing(text) || !Number.isNaN(asNumber(text));
  }));

  function sort(column, numeric, sign) {
    const compare = numeric
      ? (one, other) => asNumber(one) - asNumber(other)
      : (one, other) => one.localeCompare(other);
    for (const { body, groups } of bodies) {
      const present = groups.filter(([row]) => !isMissing(textOf(row, column)));
      const missing = groups.filter(group => !present.includes(group));
      present.sort(([one], [other]) => sign * compare(textOf(one, column), textOf(other, column)));
      body.append(...(sign ? [...present, ...missing] : groups).flat());
    }
  }

  [...heads].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const numeric = isNumeric(column);
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    // Numbers begin with the largest. The third click brings the page's own order back.
    const orders = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const order = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
      for (const one of heads) one.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      sort(column, numeric, { ascending: 1, descending: -1 }[order] ?? 0);
    });
  });
}

function makeFilter(filter, marked) {
  const input = filter.querySelector("input");
  const names = new Map(); // code -> name, both in small letters
  const lines = marked.map(element => {
    const [code, ...name] = element.dataset.language.toLowerCase().split(" ");
    names.set(code, name.join(" "));
    return { element, code, hidden: element.hidden };
  });
  const known = [...new Set(marked.map(element => element.dataset.language.replace(/^\S+ /, "")))];
  filter.querySelector("datalist").append(...known.sort().map(name => new Option(name, name)));
  const fits = (code, term) => names.has(term) ? term === code : names.get(code).includes(term);

  function show() {
    const terms = input.value.toLowerCase().split(",").map(term => term.trim()).filter(Boolean);
    const chosen = new Set([...names.keys()].filter(code => terms.some(term => fits(code, term))));
    for (const { element, code, hidden } of lines) {
      element.hidden = terms.length ? !chosen.has(code) : hidden;
    }
    filter.querySelector("output").value = terms.length ? `${chosen.size} of ${names.size}` : "";
  }

  input.addEventListener("input", show);
  filter.hidden = false;
  show(); // a browser keeps what was written before it loads the page again
}

document.querySelectorAll("table:not(.missing)").forEach(makeSortable);
const marked = [...document.querySelectorAll("[data-language]")];
if (marked.length) makeFilter(document.getElementById("filter"), marked);
