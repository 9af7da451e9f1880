// Tokens to look up: their nearest neighbors in each model, side by side.
"use strict";
(() => {
  const SHOWN = 24;

  // Numbers of two or three bytes, lowest first; the greatest stands for none.
  const decode = (text, bytes) => {
    const raw = atob(text);
    const none = 256 ** bytes - 1;
    return Int32Array.from({ length: raw.length / bytes }, (_, index) => {
      let value = 0;
      for (let byte = bytes - 1; byte >= 0; byte--) value = value * 256 + raw.charCodeAt(index * bytes + byte);
      return value === none ? -1 : value;
    });
  };

  const make = (kind, text, attributes = {}) => {
    const element = document.createElement(kind);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  // A token is shown in quotes, and found by what stands between them. Bytes are found as they are shown.
  const between = (shown) => (/^['"]/.test(shown) ? shown.slice(1, -1) : shown);

  const start = (widget) => {
    const data = JSON.parse(widget.querySelector("script").textContent);
    const [input, choice] = [widget.querySelector(".typed"), widget.querySelector(".sets")];
    const [matches, told] = [widget.querySelector(".matches"), widget.querySelector(".told")];
    const table = widget.querySelector("table");
    let set = null;
    let current = -1;

    const open = (packed) => ({
      ...packed,
      names: packed.tokens.map(between),
      lower: packed.tokens.map((token) => between(token).toLowerCase()),
      lists: packed.neighbors.map((text) => decode(text, packed.bytes)),
      sizes: packed.dimensions.map((text) => decode(text, 2)),
    });

    // 0: the token itself; 1: with a space before it; 2: in another case; 3: its beginning; 4: anywhere.
    const rank = (index, typed, lower) => {
      const [name, small] = [set.names[index], set.lower[index]];
      if (name === typed) return 0;
      if (name === " " + typed) return 1;
      if (small.trim() === lower.trim()) return 2;
      if (small.startsWith(lower) || small.startsWith(" " + lower)) return 3;
      return small.includes(lower) ? 4 : 5;
    };

    const find = (typed) => {
      const lower = typed.toLowerCase();
      const ranked = [[], [], [], [], []];
      for (let index = 0; index < set.names.length; index++) ranked[rank(index, typed, lower)]?.push(index);
      const shortest = (one, other) => set.names[one].length - set.names[other].length || one - other;
      return { exact: ranked[0], spaced: ranked[1], all: ranked.flatMap((each) => each.sort(shortest)) };
    };

    const show = (index) => {
      current = index;
      for (const button of matches.children) button.setAttribute("aria-pressed", Number(button.value) === index);
      const k = set.k;
      const lists = set.lists.map((list) => [...list.subarray(index * k, (index + 1) * k)].filter((i) => i >= 0));
      const common = lists.map((list) => new Set(list)).reduce((one, other) => new Set([...one].filter((i) => other.has(i))));
      const isHeld = index < set.held;
      table.caption.firstChild.textContent = isHeld
        ? `The ${k} nearest neighbors of ${set.tokens[index]}; ${common.size} of them (marked) in ${set.models.length === 2 ? "both" : `all ${set.models.length}`} models`
        : `The neighbors of ${set.tokens[index]} are not in this file; they are in tokens.parquet`;
      const head = document.createElement("tr");
      const sizes = document.createElement("tr");
      head.append(make("th", "", { scope: "col" }), ...set.models.map((name) => make("th", name, { scope: "col" })));
      sizes.append(
        make("th", "intrinsic dimension", { scope: "row" }),
        ...set.sizes.map((all) => make("td", all[index] >= 0 ? all[index] : "not measured")),
      );
      const rows = Array.from({ length: isHeld ? k : 0 }, (_, place) => {
        const row = document.createElement("tr");
        row.append(make("th", `neighbor ${place + 1}`, { scope: "row" }));
        for (const list of lists) {
          const other = list[place];
          const cell = make("td", other === undefined ? "none" : set.tokens[other]);
          // No line breaks within a token, unless it is wider than a phone.
          cell.classList.toggle("whole", cell.textContent.length <= 40);
          cell.classList.toggle("shared", common.has(other));
          row.append(cell);
        }
        return row;
      });
      table.tHead.replaceChildren(head);
      table.tBodies[0].replaceChildren(...(isHeld ? [sizes, ...rows] : []));
      dispatchEvent(new Event("resize"));
    };

    const search = () => {
      const typed = input.value;
      const { exact, spaced, all } = typed ? find(typed) : { exact: [], spaced: [], all: [] };
      matches.replaceChildren(
        ...all.slice(0, SHOWN).map((index) => {
          const button = make("button", set.tokens[index], { type: "button", value: index });
          button.addEventListener("click", () => show(index));
          return button;
        }),
      );
      const says = [];
      if (typed && all.length === 0) says.push(`No shared token contains “${typed}”.`);
      if (all.length > SHOWN) says.push(`${SHOWN} of ${all.length} tokens that contain “${typed}”.`);
      if (spaced.length && exact.length)
        says.push(`${set.tokens[spaced[0]]}, with a leading space, is another token than ${set.tokens[exact[0]]}.`);
      else if (spaced.length) says.push(`There is ${set.tokens[spaced[0]]}, with a leading space, and no token without it.`);
      told.replaceChildren(...says.map((sentence) => make("p", sentence)));
      if (all.length) show(all[0]);
    };

    const openSet = (number) => {
      set = open(data.sets[number]);
      current = -1;
      search();
      if (current < 0 && set.tokens.length) show(set.first);
    };

    data.sets.forEach((each, number) => choice.append(make("option", each.models.join(" and "), { value: number })));
    choice.hidden = data.sets.length < 2;
    choice.addEventListener("change", () => openSet(Number(choice.value)));
    input.addEventListener("input", search);
    openSet(0);
  };

  document.querySelectorAll('[data-widget="lookup"]').forEach(start);
})();
