// Tables of samples: all rows as JSON, of which a page is drawn at a time. A column is [name, sort], sort being text, number or link.
for (const section of document.querySelectorAll("section.rows")) {
  const { columns, rows, size } = JSON.parse(section.querySelector("script").textContent);
  const table = section.querySelector("table"), search = make("input", { type: "search", placeholder: "search" }), count = make("span", { className: "soft small" });
  search.setAttribute("aria-label", "search in all rows");
  const texts = rows.map(row => columns.map(([, sort], k) => sort === "link" ? row[k][0] : sort === "text" ? row[k] : "").join("\n").toLowerCase());
  const back = make("button", { type: "button", textContent: "← previous", onclick: () => { page--; draw(); } }), on = make("button", { type: "button", textContent: "next →", onclick: () => { page++; draw(); } });
  const where = make("span", { className: "small" }), wanted = {};
  let page = 0, key = null, down = 1, found = rows.map((_, k) => k);
  const plain = (row, k) => columns[k][1] === "link" ? row[k][0] : row[k];
  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / size)); page = Math.min(Math.max(page, 0), pages - 1);
    table.tBodies[0].replaceChildren(...found.slice(page * size, (page + 1) * size).map(n => make("tr", {}, ...columns.map(([, sort], k) => {
      const value = rows[n][k];
      if (sort === "number") return make("td", { textContent: typeof value === "number" ? shown(value) : "-" });
      if (sort === "link") return make("td", { className: "text" }, value[1] ? make("a", { href: value[1], textContent: value[0] }) : value[0]);
      return make("td", { className: "text" + (value.length > 20 ? " long" : "") + (columns[k][0] === "status" && value !== "ok" ? " bad" : ""), textContent: value });
    }))));
    where.textContent = "page " + (page + 1) + " of " + pages; back.disabled = page === 0; on.disabled = page === pages - 1;
    count.textContent = found.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  }
  function choose() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.map((_, k) => k).filter(n => words.every(word => texts[n].includes(word)) && Object.entries(wanted).every(([k, value]) => !value || rows[n][k] === value));
    if (key !== null) found.sort((a, b) => {
      const one = plain(rows[a], key), other = plain(rows[b], key), empty = value => value === null || value === "";
      if (empty(one) || empty(other)) return empty(one) - empty(other);
      return down * (typeof one === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true }));
    });
    page = 0; draw();
  }
  search.oninput = choose;
  const bar = section.querySelector(".filters"); bar.append(search);
  columns.forEach(([name, sort, chosen], k) => {
    const values = chosen ? [...new Set(rows.map(row => row[k]))].filter(Boolean).sort() : [];
    if (values.length > 1 && values.length <= 60) bar.append(choice(name, [["", "all"], ...values.map(value => [value, value])], value => { wanted[k] = value; choose(); }));
  });
  bar.append(count);
  const heads = columns.map(([name, sort], k) => {
    const head = make("button", { type: "button", textContent: name, title: "sort", onclick: () => { down = key === k ? -down : sort === "number" ? -1 : 1; key = k; for (const one of heads) one.parentElement.removeAttribute("aria-sort"); head.parentElement.setAttribute("aria-sort", down > 0 ? "ascending" : "descending"); for (const one of heads) one.textContent = one.textContent.replace(/ [▲▼]$/, ""); head.textContent += down > 0 ? " ▲" : " ▼"; choose(); } });
    return head;
  });
  table.tHead.rows[0].append(...heads.map((head, k) => make("th", { className: columns[k][1] === "number" ? "" : "text" }, head)));
  section.append(make("div", { className: "pager" }, back, where, on));
  draw();
}
