
"use strict";
(() => {
  const config = JSON.parse(document.getElementById("config").textContent);
  const byId = (id) => document.getElementById(id);
  const [stage, sheet, photo, mask, marks, cross] = ["stage", "sheet", "photo", "mask", "marks", "cross"].map(byId);
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
  const segmentations = new Map();  // photo number -> segmentation id, to resume earlier photos
  let shown = null;  // the selected photo
  let state = null;  // the server's last state of its segmentation
  let sent = [];  // clicks without a response yet
  let zoom = 1;
  let cursor = { x: 0, y: 0 };  // the cross, in integer image coordinates

  // Requests to the server, sent one at a time and in order.

  let last = Promise.resolve();
  let waiting = 0;
  let waitingSince = 0;

  async function post(path, body, headers = { "Content-Type": "application/json" }) {
    let response;
    try {
      response = await fetch(path, { method: "POST", headers: { "X-Disbench-Token": config.token, ...headers }, body });
    } catch {
      throw new Error("The demo does not answer: is it still running in its terminal?");
    }
    if (response.ok) return response;
    let message = `the demo answered with an error (${response.status})`;
    try { message = (await response.json()).error; } catch { /* keep the default message */ }
    throw new Error(message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : "."));
  }

  const json = async (path, content = {}) => (await post(path, JSON.stringify(content))).json();

  function enqueue(task) {
    if (!waiting) waitingSince = performance.now();
    waiting += 1;
    byId("error").hidden = true;
    showProgress();
    last = last.then(task).catch(showError).finally(() => {
      waiting -= 1;
      waitingSince = performance.now();
      if (!waiting) { sent = []; stage.removeAttribute("aria-busy"); }
      draw();
    });
    return last;
  }

  function showError(error) {
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  }

  function setStatus(text) {
    if (byId("status").textContent === text) return;
    byId("status").textContent = text;
    byId("status").title = text;  // long text is truncated
  }

  function showProgress() {
    if (!waiting) return;
    stage.setAttribute("aria-busy", "true");
    const seconds = Math.floor((performance.now() - waitingSince) / 1000);
    setStatus(`${config.method} is working ${seconds > 1 ? `(${seconds} s) ` : ""}…`);
  }
  setInterval(() => { if (waiting && performance.now() - waitingSince > 1500) showProgress(); }, 500);

  // Photos.

  function listPhotos() {
    byId("photos").replaceChildren(...[...photos.values()].map((one) => {
      const button = html("button", {
        type: "button", className: "photo", value: one.number, title: `${one.name}, ${one.width} × ${one.height}`,
        "aria-label": `Photo ${one.name}`, "aria-pressed": one === shown,
      }, html("img", { alt: "", src: `/photos/${one.number}/thumbnail` }));
      button.addEventListener("click", () => choosePhoto(one));
      return button;
    }));
  }

  function choosePhoto(one) {
    const known = segmentations.get(one.number);
    return enqueue(async () => {
      let next = null;
      if (known) {
        try { next = await json(`/segmentations/${known}/state`); } catch { segmentations.delete(one.number); }
      }
      next ??= await json("/segmentations", { photo: one.number });
      segmentations.set(one.number, next.segmentation);
      shown = one;
      state = next;
      sent = [];
      zoom = 1;
      cursor = { x: Math.floor(one.width / 2), y: Math.floor(one.height / 2) };
      photo.src = `/photos/${one.number}`;
      stage.setAttribute("aria-label", `Photo ${one.name}, ${one.width} by ${one.height} pixels`);
      byId("sample").value = one.stem;
      byId("samples").replaceChildren(...one.samples.map(([id, name]) => html("option", { value: id, label: `${id}: ${name}` })));
      for (const button of byId("photos").children) {
        button.setAttribute("aria-pressed", String(button.value === String(one.number)));
      }
      fit();
    });
  }

  function openFile(file) {
    return enqueue(async () => {
      if (file.size > config.maxUploadBytes) {
        throw new Error(`${file.name} has more than ${config.maxUploadBytes >> 20} MiB; make the photo smaller.`);
      }
      const one = await (await post("/photos", file, {
        "Content-Type": "application/octet-stream", "X-Disbench-Name": encodeURIComponent(file.name),
      })).json();
      photos.set(one.number, one);
      listPhotos();
      choosePhoto(one);
    });
  }

  byId("file").addEventListener("change", () => {
    const [file] = byId("file").files;
    byId("file").value = "";
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
    const maxWidth = stage.clientWidth;
    const top = stage.getBoundingClientRect().top + scrollY;  // fit the whole photo, unless it would be too small
    const maxHeight = innerWidth <= 960 ? innerHeight * 0.6 : Math.max(320, innerHeight - top - 14);
    stage.style.maxHeight = `${maxHeight}px`;
    const width = Math.min(maxWidth, ((maxHeight - 2) * shown.width) / shown.height, shown.width * 3) * zoom;
    sheet.style.width = `${width}px`;
    sheet.style.height = `${(width * shown.height) / shown.width}px`;
    sheet.classList.toggle("large", width > 2 * shown.width);
    byId("out").disabled = zoom <= 1;
    byId("in").disabled = zoom >= 16;
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
  byId("in").addEventListener("click", () => resize(1.5));
  byId("out").addEventListener("click", () => resize(1 / 1.5));

  // Clicks, in integer image coordinates at any zoom.

  let pressed = null;  // fractional screen coordinates; click events have only integers
  stage.addEventListener("pointerdown", (event) => { pressed = { clientX: event.clientX, clientY: event.clientY }; });

  function pixel(clicked) {
    const near = pressed && Math.hypot(pressed.clientX - clicked.clientX, pressed.clientY - clicked.clientY) < 2;
    const event = near ? pressed : clicked;
    const box = photo.getBoundingClientRect();
    const clamp = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
    return {
      x: clamp(((event.clientX - box.left) * shown.width) / box.width, shown.width),
      y: clamp(((event.clientY - box.top) * shown.height) / box.height, shown.height),
    };
  }

  function click({ x, y }, positive) {
    if (!shown) return;
    if (!positive && !state.clicks.length && !sent.length) {
      showError(new Error("The first click must be on the object."));
      return;
    }
    const segmentation = state.segmentation;
    sent.push([x, y, positive]);
    enqueue(async () => {
      try {
        applyState(await json(`/segmentations/${segmentation}/click`, { x, y, positive }));
      } finally {
        sent.shift();
      }
    });
    draw();
  }

  function applyState(next) {
    if (state && next.segmentation === state.segmentation) state = next;
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
    cursor = pixel(event);
    click(cursor, document.querySelector("[name=sign]:checked").value === "1");
  });
  stage.addEventListener("contextmenu", (event) => {
    if (event.pointerType === "" || !isOnPhoto(event)) return;  // "": menu opened from the keyboard
    event.preventDefault();
    cross.hidden = true;
    cursor = pixel(event);
    click(cursor, false);
  });

  function drawCross() {
    cross.hidden = false;
    cross.firstElementChild.style.top = `${((cursor.y + 0.5) / shown.height) * 100}%`;
    cross.lastElementChild.style.left = `${((cursor.x + 0.5) / shown.width) * 100}%`;
    const [x, y] = [((cursor.x + 0.5) / shown.width) * sheet.clientWidth, ((cursor.y + 0.5) / shown.height) * sheet.clientHeight];
    if (x < stage.scrollLeft || x > stage.scrollLeft + stage.clientWidth) stage.scrollLeft = x - stage.clientWidth / 2;
    if (y < stage.scrollTop || y > stage.scrollTop + stage.clientHeight) stage.scrollTop = y - stage.clientHeight / 2;
    if (!waiting) setStatus(`Cross at ${cursor.x}, ${cursor.y}.`);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  stage.addEventListener("keydown", (event) => {
    if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(shown.width, shown.height) / 64));
      const [right, down] = ARROWS[event.key];
      cursor = {
        x: Math.min(shown.width - 1, Math.max(0, cursor.x + right * step)),
        y: Math.min(shown.height - 1, Math.max(0, cursor.y + down * step)),
      };
    } else if (["Enter", " "].includes(event.key)) {
      if (!event.repeat) click(cursor, true);
    } else if (event.key.toLowerCase() === "n") {
      if (!event.repeat) click(cursor, false);
    } else return;
    event.preventDefault();
    drawCross();
  });
  stage.addEventListener("focus", () => { if (shown && stage.matches(":focus-visible")) drawCross(); });
  stage.addEventListener("blur", () => { cross.hidden = true; });

  const isTextField = (element) => element.matches("input:not([type=range], [type=radio], [type=file]), textarea, select");
  document.addEventListener("keydown", (event) => {
    if (isTextField(event.target) || event.altKey) return;
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
    const segmentation = state.segmentation;
    enqueue(async () => applyState(await json(`/segmentations/${segmentation}/undo`)));
  }
  byId("undo").addEventListener("click", undo);
  byId("reset").addEventListener("click", () => {
    const segmentation = state.segmentation;
    enqueue(async () => applyState(await json(`/segmentations/${segmentation}/reset`)));
  });

  // Candidates.

  function choose(index) {
    if (!state || (!waiting && index >= state.candidates.length)) return;
    enqueue(async () => {  // a pending response may bring the candidates
      if (index < state.candidates.length) applyState(await json(`/segmentations/${state.segmentation}/choose`, { candidate: index }));
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

  function mark([x, y, positive], confirmed) {
    const className = `mark ${positive ? "plus" : "minus"}${confirmed ? "" : " waiting"}`;
    const dot = html("span", { className, textContent: positive ? "+" : "−" });
    dot.style.left = `${((x + 0.5) / shown.width) * 100}%`;
    dot.style.top = `${((y + 0.5) / shown.height) * 100}%`;
    return dot;
  }

  let drawnState = null;  // the state whose candidates are displayed

  function draw() {
    if (!state) return;
    marks.replaceChildren(
      ...state.clicks.map((one) => mark(one, true)), ...sent.map((one) => mark(one, false)),
    );
    mask.hidden = !state.overlay;
    if (state.overlay) mask.src = state.overlay;
    else mask.removeAttribute("src");
    const hasClicks = state.clicks.length > 0;
    for (const button of [byId("undo"), byId("reset"), byId("save-all"), ...saves]) if (button) button.disabled = !hasClicks;
    if (drawnState !== state) {
      const focused = [...byId("candidates").children].indexOf(document.activeElement);
      byId("candidates").replaceChildren(...state.candidates.map(candidate));
      if (focused >= 0) (byId("candidates").children[focused] ?? stage).focus({ preventScroll: true });
      drawnState = state;
    }
    byId("choice").hidden = state.candidates.length < 2;
    byId("again").hidden = !state.command;
    byId("command").textContent = state.command;
    if (waiting) showProgress();
    else setStatus(statusText());
  }

  function statusText() {
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

  byId("opacity").addEventListener("input", () => { mask.style.opacity = String(byId("opacity").value / 100); });
  mask.style.opacity = "0.9";

  // Saving.

  try { byId("user").value = localStorage.getItem("disbench-user") || "me"; } catch { byId("user").value = "me"; }
  byId("user").addEventListener("change", () => {
    try { localStorage.setItem("disbench-user", byId("user").value); } catch { /* not remembered */ }
  });
  const names = () => ({ sample: byId("sample").value, user: byId("user").value });

  for (const button of saves) {
    button.addEventListener("click", () => {
      const kind = button.dataset.save;
      const [segmentation, stem] = [state.segmentation, shown.stem];
      enqueue(async () => {
        const content = await (await post(`/segmentations/${segmentation}/save`, JSON.stringify({ kind, ...names() }))).blob();
        const link = html("a", { href: URL.createObjectURL(content), download: `${stem}-${kind}` });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
    });
  }
  byId("save-all")?.addEventListener("click", () => {
    const segmentation = state.segmentation;
    let saved = null;
    enqueue(async () => { saved = await json(`/segmentations/${segmentation}/save-all`, names()); }).then(() => {
      if (saved) setStatus(`Saved into ${saved.folder}: ${saved.files.join(", ")}.`);
    });
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("command").textContent);
      byId("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId("command"));
      byId("copy").textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
  });

  listPhotos();
  if (config.photos.length) choosePhoto(config.photos[0]);
})();
