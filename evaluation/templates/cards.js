// Sections of samples: each holds its cards and images as JSON, and is drawn from it. Texts of files are set as text alone.
function make(tag, about = {}, ...inside) {
  const found = Object.assign(document.createElement(tag), about);
  found.append(...inside.filter(one => one !== null && one !== undefined && one !== ""));
  return found;
}
function shown(value) {
  if (value === null || value === undefined) return "-";
  return Math.abs(value) > 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : Math.abs(value) < 10 ? value.toFixed(3) : value.toFixed(1);
}
function figureOf(picture, images) {
  const caption = make("figcaption", { textContent: picture.label });
  if (picture.problem !== undefined) return make("figure", {}, make("span", { className: "bad small", textContent: picture.problem }), caption);
  const image = make("img", { src: images[picture.image], alt: picture.label, loading: "lazy" });
  return make("figure", {}, make("button", { type: "button", title: "show large" }, image), caption);
}
function picturesOf(pictures, images) {
  return pictures.length ? make("div", { className: "pictures" }, ...pictures.map(one => figureOf(one, images))) : null;
}
function listOf(pairs) {
  const told = pairs.filter(pair => pair[1]);
  return told.length ? make("dl", {}, ...told.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })])) : null;
}
function scoreOf(score) {
  const line = make("div", { className: "score" }, make("b", { textContent: score.verifier }));
  if (score.status !== "ok") line.append(make("span", { className: score.status === "not_applicable" ? "soft" : "bad", textContent: score.status.replace("_", " ") }));
  if (score.value !== null) {
    const bar = make("i"); bar.style.width = 100 * Math.min(1, Math.max(0, score.value)) + "%";
    line.append(make("span", {}, make("span", { className: "meter" }, bar), shown(score.value)));
  }
  const raw = Object.entries(score.raw || {}).filter(pair => pair[1] !== score.value).map(([key, value]) => key + " " + shown(value)).join(" · ");
  if (raw) { line.title = raw; line.append(make("div", { className: "soft raw", textContent: raw })); }
  if (score.reason) line.append(make("div", { className: "soft", textContent: score.reason }));
  return line;
}
function sideOf(side, images) {
  const top = make("div", { className: "top" }, make("b", { textContent: side.name }));
  if (side.reward !== undefined) top.append(make("span", { textContent: "reward " + shown(side.reward) }));
  if (side.advantage !== undefined && side.advantage !== null)
    top.append(make("span", { className: side.advantage > 0 ? "good" : side.advantage < 0 ? "bad" : "soft", textContent: "advantage " + (side.advantage > 0 ? "+" : "") + side.advantage.toFixed(2) }));
  const scores = (side.scores || []).map(one => scoreOf(one.reason && one.reason === side.problem ? { ...one, reason: "" } : one));
  return make("div", { className: "side" }, top, picturesOf(side.pictures || [], images), side.answer ? make("p", { className: "said", textContent: side.answer }) : null,
    side.problem ? make("p", { className: "bad", textContent: side.problem }) : null, ...scores);
}
function cardOf(card, images) {
  const tags = [card.why, card.kind, card.status && card.status !== "ok" ? card.status : "", ...Object.entries(card.numbers || {}).map(([key, value]) => key + " " + shown(value))];
  const head = make("header", {}, make("b", { textContent: card.id + (card.candidate ? " #" + card.candidate : "") }), make("span", { textContent: tags.filter(Boolean).join(" · ") }));
  const element = make("article", { className: "card", id: card.anchor || "" }, head, picturesOf(card.pictures || [], images),
    listOf([["prompt", card.prompt], ["truth", card.truth], ["answer", card.answer], ...Object.entries(card.texts || {})]), ...(card.scores || []).map(scoreOf));
  if (card.sides) element.append(make("div", { className: "sides" + (card.sides.length < 5 ? " few" : "") }, ...card.sides.map(side => sideOf(side, images))));
  return element;
}
function choice(name, values, change) {
  const select = make("select", {}, ...values.map(([value, words]) => make("option", { value, textContent: words })));
  select.dataset.name = name; select.onchange = () => change(select.value);
  return make("label", {}, name + " ", select);
}
for (const section of document.querySelectorAll("section.gallery")) {
  const { images, cards } = JSON.parse(section.querySelector("script").textContent);
  const place = section.querySelector(".cards"), bar = section.querySelector(".filters"), wanted = {}, count = make("span", { className: "soft small" });
  const elements = cards.map(card => cardOf(card, images));
  let order = null;
  const draw = () => {
    const rank = cards.map((_, k) => k);
    if (order) rank.sort((a, b) => order.down * ((cards[a].numbers[order.key] ?? -Infinity) - (cards[b].numbers[order.key] ?? -Infinity)));
    place.append(...rank.map(k => elements[k]));
    let n = 0;
    cards.forEach((card, k) => { elements[k].hidden = Object.entries(wanted).some(([key, value]) => value && card[key] !== value); n += !elements[k].hidden; });
    count.textContent = n + " of " + cards.length;
  };
  for (const field of ["why", "task", "kind", "status"]) {
    const values = [...new Set(cards.map(card => card[field]))].filter(Boolean);
    if (values.length > 1) bar.append(choice(field === "why" ? "show" : field, [["", "all"], ...values.map(value => [value, value])], value => { wanted[field] = value; draw(); }));
  }
  const keys = Object.keys((cards[0] || {}).numbers || {});
  if (keys.length && cards.length > 1) bar.append(choice("sort", [["", "as they came"], ...keys.flatMap(key => [["-" + key, "highest " + key], ["+" + key, "lowest " + key]])],
    value => { order = value ? { key: value.slice(1), down: value[0] === "-" ? -1 : 1 } : null; draw(); }));
  if (cards.length > 1) bar.append(count);
  draw();
}
if (location.hash) { const card = document.getElementById(decodeURIComponent(location.hash.slice(1))); if (card) card.scrollIntoView(); }
