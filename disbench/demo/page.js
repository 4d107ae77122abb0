
"use strict";
(() => {
  const config = JSON.parse(document.getElementById("config").textContent);
  const by = (id) => document.getElementById(id);
  const [stage, sheet, photo, mask, marks, cross] = ["stage", "sheet", "photo", "mask", "marks", "cross"].map(by);
  const html = (name, values, ...children) => {  // names with a hyphen are attributes, others properties
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(values)) {
      if (key.includes("-")) element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  };
  const saves = [...document.querySelectorAll("[data-save]")];
  const photos = new Map(config.photos.map((one) => [one.number, one]));
  const works = new Map();  // photo number -> work id, to resume earlier photos
  let shown = null;  // the selected photo
  let state = null;  // the server's last state of its work
  let sent = [];  // clicks without a response yet
  let zoom = 1;
  let at = { x: 0, y: 0 };  // the cross, in integer image coordinates

  // Requests to the server, sent one at a time and in order.

  let last = Promise.resolve();
  let waiting = 0;
  let since = 0;

  async function ask(path, body, headers = { "Content-Type": "application/json" }) {
    let answer;
    try {
      answer = await fetch(path, { method: "POST", headers: { "X-Disbench-Token": config.token, ...headers }, body });
    } catch {
      throw new Error("The demo does not answer: is it still running in its terminal?");
    }
    if (answer.ok) return answer;
    let words = `the demo answered with an error (${answer.status})`;
    try { words = (await answer.json()).error; } catch { /* keep the default message */ }
    throw new Error(words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : "."));
  }

  const json = async (path, content = {}) => (await ask(path, JSON.stringify(content))).json();

  function inTurn(task) {
    if (!waiting) since = performance.now();
    waiting += 1;
    by("error").hidden = true;
    tellWaiting();
    last = last.then(task).catch(complain).finally(() => {
      waiting -= 1;
      since = performance.now();
      if (!waiting) { sent = []; stage.removeAttribute("aria-busy"); }
      draw();
    });
    return last;
  }

  function complain(error) {
    by("error").textContent = error.message;
    by("error").hidden = false;
  }

  function say(text) {
    if (by("status").textContent === text) return;
    by("status").textContent = text;
    by("status").title = text;  // long text is truncated
  }

  function tellWaiting() {
    if (!waiting) return;
    stage.setAttribute("aria-busy", "true");
    const seconds = Math.floor((performance.now() - since) / 1000);
    say(`${config.method} is working ${seconds > 1 ? `(${seconds} s) ` : ""}…`);
  }
  setInterval(() => { if (waiting && performance.now() - since > 1500) tellWaiting(); }, 500);

  // Photos.

  function listPhotos() {
    by("photos").replaceChildren(...[...photos.values()].map((one) => {
      const button = html("button", {
        type: "button", className: "photo", value: one.number, title: `${one.name}, ${one.width} × ${one.height}`,
        "aria-label": `Photo ${one.name}`, "aria-pressed": one === shown,
      }, html("img", { alt: "", src: `/photos/${one.number}/thumbnail` }));
      button.addEventListener("click", () => choosePhoto(one));
      return button;
    }));
  }

  function choosePhoto(one) {
    const known = works.get(one.number);
    return inTurn(async () => {
      let next = null;
      if (known) {
        try { next = await json(`/works/${known}/state`); } catch { works.delete(one.number); }
      }
      next ??= await json("/works", { photo: one.number });
      works.set(one.number, next.work);
      shown = one;
      state = next;
      sent = [];
      zoom = 1;
      at = { x: Math.floor(one.width / 2), y: Math.floor(one.height / 2) };
      photo.src = `/photos/${one.number}`;
      stage.setAttribute("aria-label", `Photo ${one.name}, ${one.width} by ${one.height} pixels`);
      by("sample").value = one.stem;
      by("samples").replaceChildren(...one.samples.map(([id, name]) => html("option", { value: id, label: `${id}: ${name}` })));
      for (const button of by("photos").children) {
        button.setAttribute("aria-pressed", String(button.value === String(one.number)));
      }
      fit();
    });
  }

  function openFile(file) {
    return inTurn(async () => {
      if (file.size > config.mostBytes) {
        throw new Error(`${file.name} has more than ${config.mostBytes >> 20} MiB; make the photo smaller.`);
      }
      const one = await (await ask("/photos", file, {
        "Content-Type": "application/octet-stream", "X-Disbench-Name": encodeURIComponent(file.name),
      })).json();
      photos.set(one.number, one);
      listPhotos();
      choosePhoto(one);
    });
  }

  by("file").addEventListener("change", () => {
    const [file] = by("file").files;
    by("file").value = "";
    if (file) openFile(file);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
  });

  // Photo size on the screen.

  function fit() {
    if (!shown) return;
    const wide = stage.clientWidth;
    const top = stage.getBoundingClientRect().top + scrollY;  // fit the whole photo, unless it would be too small
    const high = innerWidth <= 960 ? innerHeight * 0.6 : Math.max(320, innerHeight - top - 14);
    stage.style.maxHeight = `${high}px`;
    const width = Math.min(wide, ((high - 2) * shown.width) / shown.height, shown.width * 3) * zoom;
    sheet.style.width = `${width}px`;
    sheet.style.height = `${(width * shown.height) / shown.width}px`;
    sheet.classList.toggle("large", width > 2 * shown.width);
    by("out").disabled = zoom <= 1;
    by("in").disabled = zoom >= 16;
  }
  addEventListener("resize", fit);

  function resize(factor) {
    const next = Math.min(16, Math.max(1, zoom * factor));
    if (next === zoom || !shown) return;
    const middle = [
      (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth,
      (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight,
    ];
    zoom = next;
    fit();
    stage.scrollLeft = middle[0] * stage.scrollWidth - stage.clientWidth / 2;
    stage.scrollTop = middle[1] * stage.scrollHeight - stage.clientHeight / 2;
  }
  by("in").addEventListener("click", () => resize(1.5));
  by("out").addEventListener("click", () => resize(1 / 1.5));

  // Clicks, in integer image coordinates at any zoom.

  let pressed = null;  // fractional screen coordinates; click events have only integers
  stage.addEventListener("pointerdown", (event) => { pressed = { clientX: event.clientX, clientY: event.clientY }; });

  function pixel(clicked) {
    const near = pressed && Math.hypot(pressed.clientX - clicked.clientX, pressed.clientY - clicked.clientY) < 2;
    const event = near ? pressed : clicked;
    const box = photo.getBoundingClientRect();
    const inside = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
    return {
      x: inside(((event.clientX - box.left) * shown.width) / box.width, shown.width),
      y: inside(((event.clientY - box.top) * shown.height) / box.height, shown.height),
    };
  }

  function click({ x, y }, positive) {
    if (!shown) return;
    if (!positive && !state.clicks.length && !sent.length) {
      complain(new Error("The first click must be on the object."));
      return;
    }
    const work = state.work;
    sent.push([x, y, positive]);
    inTurn(async () => {
      try {
        take(await json(`/works/${work}/click`, { x, y, positive }));
      } finally {
        sent.shift();
      }
    });
    draw();
  }

  function take(next) {
    if (state && next.work === state.work) state = next;
  }

  /** True on the photo or just beside it, since image pixels at the edge may be smaller than screen pixels. */
  function isOnPhoto(event) {
    const box = photo.getBoundingClientRect();
    return shown && event.clientX > box.left - 4 && event.clientX < box.right + 4
      && event.clientY > box.top - 4 && event.clientY < box.bottom + 4;
  }

  stage.addEventListener("click", (event) => {
    if (!isOnPhoto(event)) return;
    cross.hidden = true;
    at = pixel(event);
    click(at, document.querySelector("[name=sign]:checked").value === "1");
  });
  stage.addEventListener("contextmenu", (event) => {
    if (event.pointerType === "" || !isOnPhoto(event)) return;  // "": menu opened from the keyboard
    event.preventDefault();
    cross.hidden = true;
    at = pixel(event);
    click(at, false);
  });

  function drawCross() {
    cross.hidden = false;
    cross.firstElementChild.style.top = `${((at.y + 0.5) / shown.height) * 100}%`;
    cross.lastElementChild.style.left = `${((at.x + 0.5) / shown.width) * 100}%`;
    const [x, y] = [((at.x + 0.5) / shown.width) * sheet.clientWidth, ((at.y + 0.5) / shown.height) * sheet.clientHeight];
    if (x < stage.scrollLeft || x > stage.scrollLeft + stage.clientWidth) stage.scrollLeft = x - stage.clientWidth / 2;
    if (y < stage.scrollTop || y > stage.scrollTop + stage.clientHeight) stage.scrollTop = y - stage.clientHeight / 2;
    if (!waiting) say(`Cross at ${at.x}, ${at.y}.`);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  stage.addEventListener("keydown", (event) => {
    if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(shown.width, shown.height) / 64));
      const [right, down] = ARROWS[event.key];
      at = {
        x: Math.min(shown.width - 1, Math.max(0, at.x + right * step)),
        y: Math.min(shown.height - 1, Math.max(0, at.y + down * step)),
      };
    } else if (["Enter", " "].includes(event.key)) {
      if (!event.repeat) click(at, true);
    } else if (event.key.toLowerCase() === "n") {
      if (!event.repeat) click(at, false);
    } else return;
    event.preventDefault();
    drawCross();
  });
  stage.addEventListener("focus", () => { if (shown && stage.matches(":focus-visible")) drawCross(); });
  stage.addEventListener("blur", () => { cross.hidden = true; });

  const writing = (element) => element.matches("input:not([type=range], [type=radio], [type=file]), textarea, select");
  document.addEventListener("keydown", (event) => {
    if (writing(event.target) || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") undo();
    else if (event.ctrlKey || event.metaKey) return;
    else if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
    else if (event.key === "+" || event.key === "=") resize(1.5);
    else if (event.key === "-") resize(1 / 1.5);
    else return;
    event.preventDefault();
  });

  function undo() {
    if (!shown || (!state.clicks.length && !sent.length)) return;
    const work = state.work;
    inTurn(async () => take(await json(`/works/${work}/undo`)));
  }
  by("undo").addEventListener("click", undo);
  by("reset").addEventListener("click", () => {
    const work = state.work;
    inTurn(async () => take(await json(`/works/${work}/reset`)));
  });

  // Candidates.

  function choose(index) {
    if (!state || (!waiting && index >= state.candidates.length)) return;
    inTurn(async () => {  // a pending response may bring the candidates
      if (index < state.candidates.length) take(await json(`/works/${state.work}/choose`, { candidate: index }));
    });
  }

  function preview(one) {
    if (waiting || !state?.candidates.length) return;
    mask.src = one ? one.overlay : state.overlay;
  }

  function candidate(one, index) {
    const images = [`/photos/${shown.number}/thumbnail`, one.overlay].map((src) => html("img", { alt: "", src }));
    const small = html("span", { className: "small" }, ...images);
    small.style.aspectRatio = `${shown.width} / ${shown.height}`;
    const share = (100 * one.pixels) / (shown.width * shown.height);
    const score = one.score === null ? "no score" : `score ${one.score.toFixed(3)}`;
    const button = html("button", {
      type: "button", className: "candidate", title: `${one.pixels.toLocaleString("en")} pixels`,
      "aria-pressed": index === state.kept, "aria-keyshortcuts": index + 1,
    }, small, html("strong", { textContent: index + 1 }), html("small", { textContent: score }),
    html("small", { textContent: `${share.toFixed(share < 1 ? 2 : 1)} % area` }));
    button.addEventListener("click", () => choose(index));
    button.addEventListener("pointerenter", () => preview(one));
    button.addEventListener("pointerleave", () => preview(null));
    button.addEventListener("focus", () => { if (button.matches(":focus-visible")) preview(one); });
    button.addEventListener("blur", () => preview(null));
    return button;
  }

  // Drawing the server's state.

  function mark([x, y, positive], answered) {
    const className = `mark ${positive ? "plus" : "minus"}${answered ? "" : " waiting"}`;
    const dot = html("span", { className, textContent: positive ? "+" : "−" });
    dot.style.left = `${((x + 0.5) / shown.width) * 100}%`;
    dot.style.top = `${((y + 0.5) / shown.height) * 100}%`;
    return dot;
  }

  let drawn = null;  // the state whose candidates are displayed

  function draw() {
    if (!state) return;
    marks.replaceChildren(
      ...state.clicks.map((one) => mark(one, true)), ...sent.map((one) => mark(one, false)),
    );
    mask.hidden = !state.overlay;
    if (state.overlay) mask.src = state.overlay;
    else mask.removeAttribute("src");
    const begun = state.clicks.length > 0;
    for (const button of [by("undo"), by("reset"), by("save-all"), ...saves]) if (button) button.disabled = !begun;
    if (drawn !== state) {
      const held = [...by("candidates").children].indexOf(document.activeElement);
      by("candidates").replaceChildren(...state.candidates.map(candidate));
      if (held >= 0) (by("candidates").children[held] ?? stage).focus({ preventScroll: true });
      drawn = state;
    }
    by("choice").hidden = state.candidates.length < 2;
    by("again").hidden = !state.command;
    by("command").textContent = state.command;
    if (waiting) tellWaiting();
    else say(words());
  }

  function words() {
    const count = state.clicks.length;
    if (!count) return "Click on something in the photo.";
    const pixels = `${state.pixels.toLocaleString("en")} pixels`;
    if (state.candidates.length > 1) {
      return `${state.candidates.length} candidates; number ${state.kept + 1} is shown. Choose one, or refine it by clicks.`;
    }
    const [x, y, positive] = state.clicks[count - 1];
    const which = positive ? "object" : "background";
    return `Click ${count} at ${x}, ${y} (${which}): ${pixels}.`;
  }

  by("opacity").addEventListener("input", () => { mask.style.opacity = String(by("opacity").value / 100); });
  mask.style.opacity = "0.9";

  // Saving.

  try { by("user").value = localStorage.getItem("disbench-user") || "me"; } catch { by("user").value = "me"; }
  by("user").addEventListener("change", () => {
    try { localStorage.setItem("disbench-user", by("user").value); } catch { /* not remembered */ }
  });
  const names = () => ({ sample: by("sample").value, user: by("user").value });

  for (const button of saves) {
    button.addEventListener("click", () => {
      const kind = button.dataset.save;
      const [work, stem] = [state.work, shown.stem];
      inTurn(async () => {
        const content = await (await ask(`/works/${work}/save`, JSON.stringify({ kind, ...names() }))).blob();
        const link = html("a", { href: URL.createObjectURL(content), download: `${stem}-${kind}` });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
    });
  }
  by("save-all")?.addEventListener("click", () => {
    const work = state.work;
    let told = null;
    inTurn(async () => { told = await json(`/works/${work}/save-all`, names()); }).then(() => {
      if (told) say(`Saved into ${told.folder}: ${told.files.join(", ")}.`);
    });
  });
  by("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(by("command").textContent);
      by("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(by("command"));
      by("copy").textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { by("copy").textContent = "Copy"; }, 2000);
  });

  listPhotos();
  if (config.photos.length) choosePhoto(config.photos[0]);
})();
