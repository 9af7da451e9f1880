// Tables that sort by their heads, and long ones that filter. Without this script they are plain tables.
"use strict";
(() => {
  // Of a table of over 30 rows the first 20 are shown, and the others after a click.
  const [PAGE, MOST] = [20, 30];
  const collator = new Intl.Collator("en", { numeric: true });

  // The first number of a cell: "0.387 ± 0.003" sorts by 0.387. What has none comes last.
  const numberIn = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.replace("\u2212", "-");
    const found = text.match(/[-+]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return found ? Number(found[0].replaceAll(",", "")) : NaN;
  };

  const compare = (column, isNumber, direction) => (one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    if (!isNumber) return direction * collator.compare(a.textContent, b.textContent);
    const [x, y] = [numberIn(a), numberIn(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return direction * (x - y);
  };

  const makeSortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.ariaSort] ?? "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        const rows = [...original];
        if (next !== "none") {
          head.setAttribute("aria-sort", next);
          rows.sort(compare(column, head.classList.contains("number"), next === "ascending" ? 1 : -1));
        }
        body.append(...rows);
        body.dispatchEvent(new Event("rows"));
      });
    });
  };

  const makeFiltered = (box, table) => {
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const bar = document.createElement("div");
    bar.className = "filter";
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    input.type = "search";
    input.placeholder = "Filter rows";
    input.setAttribute("aria-label", `Filter rows of: ${table.caption?.textContent ?? "table"}`);
    label.append(input);
    bar.append(label, count);
    box.before(bar);
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
      table.tBodies[0].dispatchEvent(new Event("rows"));
    };
    input.addEventListener("input", show);
    show();
  };

  const makePaged = (box, body) => {
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    box.after(more);
    let isWhole = false;
    const show = () => {
      const found = [...body.rows].filter((row) => !row.hidden);
      more.hidden = found.length <= MOST;
      found.forEach((row, place) => row.classList.toggle("later", !more.hidden && !isWhole && place >= PAGE));
      more.textContent = isWhole ? `Show the first ${PAGE} rows` : `Show all ${found.length} rows`;
    };
    more.addEventListener("click", () => {
      isWhole = !isWhole;
      show();
      dispatchEvent(new Event("resize"));
    });
    body.addEventListener("rows", show);
    show();
  };

  // What scrolls must be reached by the keyboard.
  const boxes = document.querySelectorAll(".table, .picture");
  const markScrolling = () => {
    for (const box of boxes) {
      const isWide = box.scrollWidth > box.clientWidth;
      if (isWide) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      box.toggleAttribute("data-scrolls", isWide);
    }
  };

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    // A first column without a name holds the names of facts, which have their order.
    if (table.tBodies[0].rows.length > 2 && table.rows[0].cells[0].textContent) makeSortable(table);
    if ("filter" in box.dataset) makeFiltered(box, table);
    if (table.tBodies[0].rows.length > MOST) makePaged(box, table.tBodies[0]);
  }
  markScrolling();
  addEventListener("resize", markScrolling);
  // A link to a closed section opens it.
  const openTarget = () => {
    const closed = document.getElementById(location.hash.slice(1))?.querySelector("details");
    if (closed) closed.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
  // On paper nothing can be opened.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((each) => (each.open = true));
    document.querySelectorAll(".later").forEach((row) => row.classList.remove("later"));
  });
})();
