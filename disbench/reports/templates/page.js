"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, below = document) => [...below.querySelectorAll(selector)];
  document.documentElement.classList.add("script");

  /** An HTML element; names with a hyphen are attributes, others properties. */
  function html(name, values, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(values)) {
      if (key.includes("-")) element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  }

  // The table: a head, rows and notes for each dataset; rows are sorted between the two.

  const board = document.getElementById("board");
  const headings = all("thead th", board);
  const rows = all("tbody.run", board).map((body) => ({ body, number: Number(body.dataset.run) }));
  const groups = all("tbody.head", board).map((head, place) => ({
    head,
    notes: board.querySelector(`tbody.notes[data-group="${place}"]`),
    plots: document.querySelector(`.plots[data-group="${place}"]`),
    rows: rows.filter((row) => data.runs[row.number].group === place),
    hidden: new Set(),  // numbers of the runs that the legend leaves out
  }));

  function key(row, column) {
    const cell = row.body.rows[0].cells[column];
    if (!headings[column].classList.contains("n")) return cell.textContent.trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  /** Of two keys the order; what is missing stands last, whichever way the rest is sorted. */
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  }

  function sort(column, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    headings.forEach((heading, at) => {
      if (at === column) heading.setAttribute("aria-sort", direction);
      else heading.removeAttribute("aria-sort");
    });
    const sorted = (list) => list
      .map((row) => ({ row, key: key(row, column) }))
      .sort((a, b) => compare(a.key, b.key, sign) || a.row.number - b.row.number)
      .map((item) => item.row);
    const ordered = headings[column].textContent === "Dataset"
      ? [...groups].sort((a, b) => compare(key(a.rows[0], column), key(b.rows[0], column), sign))
      : groups;
    for (const group of ordered) {
      board.append(group.head, ...sorted(group.rows).map((row) => row.body));
      if (group.notes) board.append(group.notes);
    }
  }

  headings.forEach((heading, column) => {
    const button = html("button", { type: "button", textContent: heading.textContent });
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const turned = { ascending: "descending", descending: "ascending" };
      sort(column, turned[heading.getAttribute("aria-sort")] || heading.dataset.first);
    });
  });

  all(".open", board).forEach((button) => {
    const more = document.getElementById(button.getAttribute("aria-controls"));
    more.querySelector("details").open = true;
    button.addEventListener("click", () => {
      const shown = more.classList.toggle("shown");
      button.setAttribute("aria-expanded", String(shown));
    });
  });

  all(".copy", board).forEach((button) => {
    const name = button.textContent;
    button.addEventListener("click", async () => {
      const command = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "Copied";
      } catch {  // not allowed here
        getSelection().selectAllChildren(command);
        button.textContent = "Selected: copy it by hand";
      }
      setTimeout(() => { button.textContent = name; }, 2000);
    });
  });

  // Filters.

  const filters = document.getElementById("filters");
  const count = document.getElementById("count");
  const shown = new Set();

  function passes(run) {
    const wanted = new FormData(filters);
    const words = wanted.get("label").toLowerCase().split(/\s+/);
    return words.every((word) => run.label.toLowerCase().includes(word))
      && (!wanted.get("standard") || run.standard)
      && ["dataset", "training", "selection", "policy"].every((name) => !wanted.get(name) || wanted.get(name) === run[name]);
  }

  function filter() {
    shown.clear();
    data.runs.forEach((run, number) => { if (passes(run)) shown.add(number); });
    for (const { body, number } of rows) body.hidden = !shown.has(number);
    for (const group of groups) {
      const empty = !group.rows.some((row) => shown.has(row.number));
      for (const part of [group.head, group.notes, group.plots]) if (part) part.hidden = empty;
    }
    for (const part of all(".pictures")) part.hidden = !shown.has(Number(part.dataset.run));
    count.textContent = `${shown.size} of ${data.runs.length} runs`;
    groups.forEach(drawGroup);
  }

  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));  // the fields are empty only after the event

  // Drawing.

  const BOX = { left: 56, right: 14, top: 12, bottom: 40, height: 300 };
  const DASHES = { "-": "none", "--": "6 3", ":": "1.5 2.5", "-.": "7 3 1.5 3" };
  const SHAPES = {  // around (0, 0), of about the same size
    o: [12, 4, 0, 4], s: [4, 5, Math.PI / 4, 5], "^": [3, 5.5, -Math.PI / 2, 5.5], D: [4, 5, 0, 5],
    v: [3, 5.5, Math.PI / 2, 5.5], X: [4, 5.5, Math.PI / 4, 2.2], P: [4, 5.5, 0, 2.2], "*": [5, 6, -Math.PI / 2, 2.6],
  };

  function svg(name, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  /** A star whose corners lie on two circles in turn; on one circle it is a regular shape. */
  function marker(style, x, y) {
    const [corners, outer, turn, inner] = SHAPES[data.markers[style % data.markers.length]];
    const star = inner !== outer;
    const steps = star ? 2 * corners : corners;
    const points = Array.from({ length: steps }, (_, at) => {
      const radius = star && at % 2 ? inner : outer;
      const angle = turn + (2 * Math.PI * at) / steps;
      return `${(x + radius * Math.cos(angle)).toFixed(1)},${(y + radius * Math.sin(angle)).toFixed(1)}`;
    });
    return `M${points.join("L")}Z`;
  }

  function colour(style) {
    const found = data.colours[style % data.colours.length];
    return found === "#000000" ? "var(--ink)" : found;  // black cannot be seen on a dark page
  }

  function dash(style) {
    return DASHES[data.lines[Math.floor(style / data.colours.length) % data.lines.length]];
  }

  function painted(element, style, line) {
    element.style.setProperty(line ? "stroke" : "fill", colour(style));
    if (line) element.setAttribute("stroke-dasharray", dash(style));
    return element;
  }

  function line(style, path) {
    return painted(svg("path", { d: path, fill: "none", "stroke-width": 1.8, "stroke-linejoin": "round" }), style, true);
  }

  function marks(style, path) {
    const element = painted(svg("path", { d: path, "stroke-width": 0.7 }), style, false);
    element.style.stroke = "var(--paper)";
    return element;
  }

  /** The frame of a chart: `x` and `y` each have `to` (a value's pixel), `ticks` ([value, text]) and `title`. */
  function frame(width, x, y) {
    const bottom = BOX.height - BOX.bottom;
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${BOX.height}`, height: BOX.height, "aria-hidden": "true" });
    for (const [value, text] of y.ticks) {
      drawing.append(
        svg("line", { class: "grid", x1: BOX.left, x2: width - BOX.right, y1: y.to(value), y2: y.to(value) }),
        svg("text", { x: BOX.left - 7, y: y.to(value) + 4, "text-anchor": "end" }, text),
      );
    }
    for (const [value, text] of x.ticks) {
      drawing.append(
        svg("line", { class: "axis", x1: x.to(value), x2: x.to(value), y1: bottom, y2: bottom + 4 }),
        svg("text", { x: x.to(value), y: bottom + 18, "text-anchor": "middle" }, text),
      );
    }
    const middle = (BOX.top + bottom) / 2;
    drawing.append(
      svg("line", { class: "axis", x1: BOX.left, x2: width - BOX.right, y1: bottom, y2: bottom }),
      svg("text", { x: (BOX.left + width - BOX.right) / 2, y: BOX.height - 4, "text-anchor": "middle" }, x.title),
      svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, y.title),
    );
    return drawing;
  }

  function scale(low, high, from, to) {
    return (value) => from + ((value - low) / (high - low)) * (to - from);
  }

  function range(low, high, step) {
    return Array.from({ length: Math.round((high - low) / step) + 1 }, (_, at) => low + at * step);
  }

  function titled(run) {
    return run.marks ? `${run.label} [${run.marks}]` : run.label;
  }

  function drawCurves(width, numbers) {
    const runs = numbers.filter((number) => data.runs[number].curve);
    const values = runs.flatMap((number) => data.runs[number].curve).filter((value) => value !== null);
    if (!values.length) return null;
    const longest = Math.max(...runs.map((number) => data.runs[number].curve.length));
    const low = Math.max(0, Math.floor(Math.min(...values) * 20 - 0.2) / 20);
    const high = Math.min(1, Math.ceil(Math.max(...values) * 20 + 0.2) / 20);
    const step = longest <= 10 ? 1 : longest <= 40 ? 5 : 20;
    const apart = high - low > 0.5 ? 0.1 : 0.05;
    const clicks = [...new Set([1, ...range(step, longest, step)])].filter((v) => v <= longest).map((v) => [v, String(v)]);
    const x = { to: scale(0.5, longest + 0.5, BOX.left, width - BOX.right), ticks: clicks, title: "Number of clicks" };
    const y = {
      to: scale(low, high, BOX.height - BOX.bottom, BOX.top),
      ticks: range(Math.ceil(low / apart - 1e-9) * apart, high, apart).filter((v) => v <= high + 1e-9).map((v) => [v, v.toFixed(2)]),
      title: "Mean IoU",
    };
    const drawing = frame(width, x, y);
    const points = [];
    const every = Math.ceil(longest / 25);
    for (const number of [...runs].reverse()) {  // so that the best lie on top
      const { curve, style } = data.runs[number];
      const whole = curve.map((value, at) => ({
        number, x: x.to(at + 1), y: y.to(value), value, at,
        text: [`click ${at + 1}: mean IoU ${value === null ? "" : value.toFixed(3)}`],
      }));
      const path = whole.map((p, at) => (p.value === null ? "" : `${at && whole[at - 1].value !== null ? "L" : "M"}${p.x.toFixed(1)},${p.y.toFixed(1)}`)).join("");
      const seen = whole.filter((point) => point.value !== null);
      drawing.append(svg("g", { "data-run": number }, line(style, path),
        marks(style, seen.filter((point) => point.at % every === 0).map((p) => marker(style, p.x, p.y)).join(""))));
      points.push(...seen);
    }
    return { drawing, points };
  }

  /** Runs that no other beats in both seconds and clicks, the fastest first. */
  function front(numbers) {
    const found = [];
    const sorted = numbers.filter((number) => data.runs[number].comparable)
      .sort((a, b) => data.runs[a].seconds - data.runs[b].seconds || data.runs[a].noc[0] - data.runs[b].noc[0]);
    for (const number of sorted) {
      if (!found.length || data.runs[number].noc[0] < data.runs[found[found.length - 1]].noc[0]) found.push(number);
    }
    return found;
  }

  function logarithmic(low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const digit of [1, 2, 5]) {
        const value = digit * 10 ** power;
        if (value >= low && value <= high) ticks.push([value, String(Number(value.toPrecision(1)))]);
      }
    }
    return ticks.length > 7 ? ticks.filter(([value]) => Math.abs(Math.log10(value) % 1) < 1e-6) : ticks;
  }

  function drawPareto(width, numbers) {
    const runs = numbers.filter((number) => data.runs[number].noc && data.runs[number].seconds > 0);
    if (!runs.length) return null;
    const times = runs.map((number) => data.runs[number].seconds);
    const clicks = runs.flatMap((number) => data.runs[number].noc);
    const wide = Math.max(1.6, Math.sqrt((10 * Math.min(...times)) / Math.max(...times)));  // a decade at least
    const fastest = Math.min(...times) / wide;
    const slowest = Math.max(...times) * wide;
    const low = Math.floor(Math.min(...clicks) - 0.3);
    const high = Math.ceil(Math.max(...clicks) + 0.3);
    const step = high - low > 12 ? 4 : high - low > 5 ? 2 : 1;
    const along = scale(Math.log(fastest), Math.log(slowest), BOX.left, width - BOX.right);
    const x = { to: (value) => along(Math.log(value)), ticks: logarithmic(fastest, slowest), title: "Seconds per click (logarithmic)" };
    const y = {
      to: scale(low, high, BOX.height - BOX.bottom, BOX.top),
      ticks: range(Math.ceil(low / step) * step, high, step).filter((v) => v <= high).map((v) => [v, String(v)]),
      title: `NoC@${data.solved}`,
    };
    const drawing = frame(width, x, y);
    const best = front(runs);
    const corners = best.map((number) => ({ x: x.to(data.runs[number].seconds), y: y.to(data.runs[number].noc[0]) }));
    const path = corners.map((p, at) => (at ? `H${p.x.toFixed(1)}V${p.y.toFixed(1)}` : `M${p.x.toFixed(1)},${p.y.toFixed(1)}`)).join("");
    drawing.append(svg("path", { class: "front", d: path }));
    const points = [...runs].reverse().map((number) => {
      const { noc, style, secondsText, seconds, comparable } = data.runs[number];
      const place = { x: x.to(seconds), y: y.to(noc[0]) };
      const point = marks(style, marker(style, place.x, place.y));
      if (!comparable) {
        point.style.fill = "var(--paper)";
        point.style.stroke = colour(style);
        point.setAttribute("stroke-width", 1.6);
      }
      const interval = svg("path", { d: `M${place.x},${y.to(noc[1])}V${y.to(noc[2])}`, "stroke-width": 1.4 });
      interval.style.stroke = colour(style);
      drawing.append(svg("g", { "data-run": number }, interval, point));
      const clicks90 = `NoC@${data.solved} ${noc[0].toFixed(2)} [${noc[1].toFixed(2)}, ${noc[2].toFixed(2)}]`;
      const text = [clicks90, `${secondsText} s a click`, ...(best.includes(number) ? ["no other run beats it in both"] : [])];
      return { number, ...place, text };
    });
    return { drawing, points };
  }

  // Charts that answer to the pointer.

  class Chart {
    constructor(figure) {
      this.draw = figure.dataset.kind === "curves" ? drawCurves : drawPareto;
      this.canvas = figure.querySelector(".canvas");
      this.tip = figure.querySelector(".tip");
      this.points = [];
      this.numbers = [];
      this.at = null;
      this.canvas.addEventListener("pointermove", (event) => this.near(event));
      this.canvas.addEventListener("pointerdown", (event) => this.near(event));
      this.canvas.addEventListener("pointerleave", (event) => {
        if (event.pointerType !== "touch") this.leave();  // a finger leaves as soon as it is lifted
      });
      new ResizeObserver(() => this.redraw()).observe(this.canvas);
    }

    redraw(numbers = this.numbers) {
      const width = Math.round(this.canvas.clientWidth);
      const same = numbers.length === this.numbers.length && numbers.every((number, at) => number === this.numbers[at]);
      if (!width || (same && width === this.width)) return;
      this.width = width;
      this.numbers = numbers;
      this.leave();
      const made = this.draw(width, numbers);
      this.points = made ? made.points : [];
      const text = numbers.length ? "No shown run has these numbers: samples end early." : "No run is shown.";
      this.canvas.replaceChildren(made ? made.drawing : html("p", { className: "quiet", textContent: text }));
    }

    near(event) {
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const far = (point) => (point.x - x) ** 2 + (point.y - y) ** 2;
      const nearest = this.points.reduce((best, point) => (best && far(best) <= far(point) ? best : point), null);
      this.show(nearest && far(nearest) < 60 ** 2 ? nearest : null);
    }

    show(point) {
      if (!point) { this.leave(); return; }
      if (this.at === point) return;
      this.at = point;
      this.highlight(point.number);
      const drawing = this.canvas.firstElementChild;
      all(".ring", drawing).forEach((ring) => ring.remove());
      drawing.append(svg("circle", { class: "ring", cx: point.x, cy: point.y, r: 8 }));
      const lines = point.text.map((text) => html("div", { textContent: text }));
      this.tip.replaceChildren(html("strong", { textContent: titled(data.runs[point.number]) }), ...lines);
      this.tip.classList.add("shown");
      const left = point.x + 14 + this.tip.offsetWidth > this.width ? point.x - 14 - this.tip.offsetWidth : point.x + 14;
      const top = point.y - this.tip.offsetHeight - 10;
      this.tip.style.left = `${Math.max(0, left)}px`;
      this.tip.style.top = `${top < 0 ? point.y + 14 : top}px`;
    }

    highlight(number) {
      const drawing = this.canvas.firstElementChild;
      if (!drawing) return;
      drawing.classList.toggle("dim", number !== null);
      for (const part of all("g[data-run]", drawing)) part.classList.toggle("focus", Number(part.dataset.run) === number);
    }

    leave() {
      this.at = null;
      this.tip.classList.remove("shown");
      all(".ring", this.canvas).forEach((ring) => ring.remove());
      this.highlight(null);
    }
  }

  groups.forEach((group) => { group.charts = all(".plot", group.plots).map((figure) => new Chart(figure)); });

  function drawGroup(group) {
    const numbers = group.rows.map((row) => row.number).filter((number) => shown.has(number));
    const drawn = numbers.filter((number) => !group.hidden.has(number));
    for (const chart of group.charts) chart.redraw(drawn);
    legend(group, numbers);
  }

  function legend(group, numbers) {
    const list = group.plots.querySelector(".legend");
    list.replaceChildren(...numbers.map((number) => {
      const run = data.runs[number];
      const clicks = [run.noc && `NoC@${data.solved} ${run.noc[0].toFixed(2)}`, !run.curve && "no curve: samples end early"];
      const button = html(
        "button", { type: "button", "aria-pressed": !group.hidden.has(number) },
        svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" }, line(run.style, "M1,7H33"), marks(run.style, marker(run.style, 17, 7))),
        titled(run), " ", html("span", { textContent: clicks.filter(Boolean).join(", ") }),
      );
      for (const [event, to] of [["pointerenter", number], ["focus", number], ["pointerleave", null], ["blur", null]]) {
        button.addEventListener(event, () => group.charts.forEach((chart) => chart.highlight(to)));
      }
      button.addEventListener("click", () => {
        const off = !group.hidden.delete(number);
        if (off) group.hidden.add(number);
        button.setAttribute("aria-pressed", String(!off));
        const drawn = numbers.filter((other) => !group.hidden.has(other));
        for (const chart of group.charts) chart.redraw(drawn);
      });
      return html("li", {}, button);
    }));
  }

  filter();
})();
