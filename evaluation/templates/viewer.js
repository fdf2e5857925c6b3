// The viewer: one sample large, with zoom, next and previous, and two of its images against each other.
(() => {
  const MODES = [["single", "one image"], ["slider", "slider"], ["flicker", "flicker"], ["difference", "difference"]];
  let dialog = null, cards = [], at = 0, first = 0, second = 0, mode = "single", zoom = 1, x = 0, y = 0, timer = 0;
  const find = name => dialog.querySelector("." + name);
  const button = (name, words, action, title = "") => make("button", { type: "button", className: name, textContent: words, title, onclick: action });
  const imagesOf = card => [...card.querySelectorAll("figure")].map(figure => ({ image: figure.querySelector("img"), label: figure.querySelector("figcaption").textContent, side: figure.closest(".side") })).filter(one => one.image);
  const nameOf = one => (one.side ? one.side.querySelector("b").textContent + ": " : "") + one.label;

  function build() {
    dialog = make("dialog", { id: "viewer" });
    const modes = MODES.map(([name, words]) => button("mode mode-" + name, words, () => { mode = name; draw(); }));
    const other = make("select", { className: "other", title: "the image it is compared with", onchange: () => { second = Number(other.value); draw(); } });
    const slide = make("input", { className: "cut", type: "range", min: 0, max: 100, value: 50, oninput: cut }); slide.setAttribute("aria-label", "where the two images meet");
    dialog.append(
      make("div", { className: "bar" }, button("before", "←", () => go(-1), "previous sample"), button("after", "→", () => go(1), "next sample"), make("b", { className: "grow" }), make("span", { className: "soft small counted" }), button("shut", "close", () => dialog.close(), "Esc")),
      make("div", { className: "bar" }, ...modes, other, slide, button("smaller", "−", () => scale(1 / 1.5)), button("larger", "+", () => scale(1.5)), button("whole", "fit", reset, "the whole image")),
      make("div", { className: "stage" }, make("div")), make("div", { className: "about" }), make("div", { className: "strip" }));
    document.body.append(dialog);
    const stage = find("stage");
    stage.onwheel = event => { event.preventDefault(); const box = stage.getBoundingClientRect(); scale(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left - 12, event.clientY - box.top - 12); };
    stage.onpointerdown = event => { stage.setPointerCapture(event.pointerId); };
    stage.onpointermove = event => { if (!event.buttons) return; x += event.movementX; y += event.movementY; move(); };
    dialog.onclose = () => { clearInterval(timer); cards[at]?.scrollIntoView({ block: "nearest" }); };
    dialog.onkeydown = event => {
      if (event.target.matches("select, input")) return;
      const action = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), "+": () => scale(1.5), "-": () => scale(1 / 1.5), 0: reset }[event.key];
      if (action) { event.preventDefault(); action(); }
      else if (event.key >= "1" && event.key <= "9" && imagesOf(cards[at])[event.key - 1]) { first = event.key - 1; draw(); }
    };
  }
  function go(step) { at = (at + step + cards.length) % cards.length; first = 0; pair(); draw(); }
  function pair() {
    const all = imagesOf(cards[at]), truth = all.findIndex(one => /^tru(e|th)/.test(one.label));
    second = truth >= 0 && truth !== first ? truth : all.length > 1 ? (first + 1) % all.length : 0;
  }
  function scale(factor, cx, cy) {
    const box = find("stage").getBoundingClientRect(); cx ??= box.width / 2; cy ??= box.height / 2;
    const next = Math.min(40, Math.max(1, zoom * factor)); x = cx - (cx - x) * next / zoom; y = cy - (cy - y) * next / zoom; zoom = next;
    if (zoom === 1) x = y = 0;
    move();
  }
  function reset() { zoom = 1; x = y = 0; move(); }
  function move() { find("stage").firstChild.style.transform = "translate(" + x + "px," + y + "px) scale(" + zoom + ")"; dialog.dataset.zoom = zoom.toFixed(2); }
  function cut() {
    const over = find("stage").firstChild.lastElementChild;
    if (mode === "slider" && over) over.style.clipPath = "inset(0 " + (100 - find("cut").value) + "% 0 0)";
  }
  function apart(one, other) {
    // Mean absolute difference over colours: dark where they agree, white from 64 of 255 on.
    const canvas = make("canvas", { width: one.naturalWidth, height: one.naturalHeight }), pen = canvas.getContext("2d", { willReadFrequently: true });
    const read = image => { pen.imageSmoothingEnabled = false; pen.drawImage(image, 0, 0, canvas.width, canvas.height); return pen.getImageData(0, 0, canvas.width, canvas.height); };
    const a = read(one), b = read(other).data, ramp = [[32, 36, 42], [0, 114, 178], [86, 180, 233], [240, 228, 66], [255, 255, 255]];
    for (let k = 0; k < b.length; k += 4) {
      const d = Math.min(1, (Math.abs(a.data[k] - b[k]) + Math.abs(a.data[k + 1] - b[k + 1]) + Math.abs(a.data[k + 2] - b[k + 2])) / 192) * 4, low = Math.min(3, Math.floor(d));
      for (let c = 0; c < 3; c++) a.data[k + c] = ramp[low][c] + (d - low) * (ramp[low + 1][c] - ramp[low][c]);
      a.data[k + 3] = 255;
    }
    pen.putImageData(a, 0, 0);
    return canvas;
  }
  function draw() {
    clearInterval(timer);
    const card = cards[at], all = imagesOf(card), stage = find("stage").firstChild, twice = all.length > 1;
    find("grow").textContent = card.querySelector("header b").textContent;
    find("counted").textContent = at + 1 + " of " + cards.length;
    if (!twice) mode = "single";
    for (const [name] of MODES) { const one = find("mode-" + name); one.setAttribute("aria-pressed", name === mode); one.disabled = !twice && name !== "single"; }
    find("other").replaceChildren(...all.map((one, k) => make("option", { value: k, textContent: nameOf(one), selected: k === second })));
    find("other").hidden = mode === "single"; find("cut").hidden = mode !== "slider";
    const [one, other] = [all[first], all[second]], copy = image => make("img", { src: image.src, alt: image.alt });
    stage.replaceChildren();
    if (one && mode === "difference") stage.append(apart(one.image, other.image));
    else if (one && mode === "slider") stage.append(copy(other.image), copy(one.image));
    else if (one && mode === "flicker") {
      const over = copy(one.image); stage.append(copy(other.image), over);
      timer = setInterval(() => { over.style.visibility = over.style.visibility === "hidden" ? "" : "hidden"; }, 500);
    } else if (one) stage.append(copy(one.image));
    cut(); move();
    const told = { single: one && nameOf(one), slider: "left: " + (one && nameOf(one)) + "; right: " + (other && nameOf(other)), flicker: (one && nameOf(one)) + " and " + (other && nameOf(other)), difference: (one && nameOf(one)) + " against " + (other && nameOf(other)) + "; white: 64 of 255 or more apart" }[mode];
    const words = [...card.querySelectorAll("dl, .score, .side > .said, .side > .top")].map(part => part.cloneNode(true));
    find("about").replaceChildren(make("p", { className: "soft told", textContent: told || "this sample has no image" }), ...words);
    find("strip").replaceChildren(...all.map((part, k) => { const chosen = button("", "", () => { first = k; if (first === second) pair(); draw(); }, nameOf(part)); chosen.append(copy(part.image), nameOf(part)); chosen.setAttribute("aria-pressed", k === first); return chosen; }));
  }
  document.addEventListener("click", event => {
    const figure = event.target.closest?.("figure"), card = figure?.closest(".card");
    if (!card || !figure.querySelector("img")) return;
    if (!dialog) build();
    cards = [...card.parentElement.children].filter(one => !one.hidden); at = cards.indexOf(card);
    first = imagesOf(card).findIndex(one => one.image === figure.querySelector("img")); zoom = 1; x = y = 0;
    pair(); dialog.showModal(); draw();
  });
})();
