/* Zegel's pages in the browser: keys, tables, dialogs, theme, live parts, charts. No framework, nothing evaluated.
   Everything is wired by data attributes, also in what htmx swaps in. Without this script the pages still work:
   links, forms, tables and the figures behind charts are in the HTML. */
(() => {
  "use strict";

  const root = document.documentElement;
  root.classList.add("scripted");
  const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
  const said = JSON.parse(meta("zegel-messages") || "{}");

  /* A message in the page's language; %(name)s is filled in. */
  function _(message, values = {}) {
    return (said[message] ?? message).replace(/%\((\w+)\)s/g, (whole, name) => values[name] ?? whole);
  }

  const number = new Intl.NumberFormat(root.lang, { maximumFractionDigits: 6 });
  const order = new Intl.Collator(root.lang, { numeric: true, sensitivity: "base" });
  const all = (selector, within = document) => {
    const found = [...within.querySelectorAll(selector)];
    if (within !== document && within.matches?.(selector)) found.unshift(within);
    return found;
  };

  /* -- Saying ---------------------------------------------------------------------------------------------------- */

  /* Speaks through the page's polite live region. */
  function announce(text) {
    const region = document.getElementById("said");
    if (!region) return;
    region.textContent = "";
    requestAnimationFrame(() => { region.textContent = text; });
  }

  /* Shows a problem that no server worded: what happened and what to do. */
  function problem(title, todo) {
    const place = document.getElementById("problems");
    if (!place) return;
    const box = document.createElement("div");
    box.className = "problem";
    const inner = box.appendChild(document.createElement("div"));
    const first = inner.appendChild(document.createElement("p")).appendChild(document.createElement("strong"));
    first.textContent = title;
    inner.appendChild(document.createElement("p")).textContent = todo;
    place.replaceChildren(box);
  }

  function newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(18));
    return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
  }

  /* -- htmx -------------------------------------------------------------------------------------------------------- */

  document.addEventListener("htmx:configRequest", (event) => {
    const { verb, headers } = event.detail;
    if (verb === "get") return;
    headers["X-CSRF-Token"] = meta("zegel-csrf");
  });
  document.addEventListener("htmx:beforeRequest", () => document.getElementById("problems")?.replaceChildren());
  document.addEventListener("htmx:afterRequest", (event) => {
    // A form that was answered gets a fresh key: sending it again is another request.
    const key = event.detail.successful && event.detail.elt.querySelector?.('input[name="idempotency_key"]');
    if (key) key.value = newKey();
  });
  document.addEventListener("htmx:sendError", () => {
    problem(_("The server cannot be reached."), _("Nothing was lost. Check the connection and try again."));
  });
  document.addEventListener("htmx:load", (event) => enhance(event.detail.elt));

  /* -- Theme ------------------------------------------------------------------------------------------------------ */

  document.addEventListener("click", (event) => {
    const choice = event.target.closest("[data-theme-choice]");
    if (!choice) return;
    event.preventDefault();
    const theme = choice.dataset.themeChoice;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `zegel-theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
    root.dataset.theme = theme;
    for (const each of all("[data-theme-choice]")) {
      each.setAttribute("aria-pressed", String(each.dataset.themeChoice === theme));
    }
    redrawPlots();
  });

  /* -- Copying, dialogs -------------------------------------------------------------------------------------------- */

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      try {
        await navigator.clipboard.writeText(copy.dataset.copy);
        copy.classList.add("done");
        announce(_("Copied."));
        setTimeout(() => copy.classList.remove("done"), 1500);
      } catch {
        announce(_("This browser does not let pages copy. Select the text instead."));
      }
      return;
    }
    const opener = event.target.closest("[data-dialog-open]");
    if (opener) {
      opener.closest("[popover]")?.hidePopover();
      document.getElementById(opener.dataset.dialogOpen)?.showModal();
      return;
    }
    if (event.target.closest("[data-dialog-close]")) event.target.closest("dialog")?.close();
    else if (event.target.nodeName === "DIALOG") event.target.close();
  });

  /* A question before something that cannot be taken back. */
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-confirm]");
    if (!button || button.dataset.confirmed) return;
    event.preventDefault();
    event.stopPropagation();
    const dialog = document.body.appendChild(document.createElement("dialog"));
    const words = dialog.appendChild(document.createElement("p"));
    words.textContent = button.dataset.confirm;
    words.id = "confirm-words";
    dialog.className = "question";
    dialog.setAttribute("aria-labelledby", words.id);
    const ways = dialog.appendChild(document.createElement("div"));
    ways.className = "cluster";
    for (const [label, kind, yes] of [[button.textContent.trim(), "danger", true], [_("Cancel"), "plain", false]]) {
      const way = ways.appendChild(document.createElement("button"));
      way.type = "button";
      way.className = `button ${kind}`;
      way.textContent = label;
      way.addEventListener("click", () => {
        dialog.close();
        if (!yes) return;
        button.dataset.confirmed = "yes";
        button.click();
        delete button.dataset.confirmed;
      });
    }
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
    ways.lastElementChild.focus();
  }, true);

  /* -- Tables: sort, filter, CSV ------------------------------------------------------------------------------------ */

  const exact = (cell) => (cell.dataset.exact ?? cell.textContent).trim();

  function icon(down) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    const path = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
    path.setAttribute("d", down ? "M3.5 6 8 10.5 12.5 6" : "M3.5 10 8 5.5 12.5 10");
    return svg;
  }

  function compare(a, b) {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1; // what has no figure stays last
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? order.compare(a, b) : x - y;
  }

  function sortBy(table, head, column) {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const each of head.parentElement.children) {
      each.removeAttribute("aria-sort");
      each.querySelector("button .icon")?.replaceWith(icon(false));
    }
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    head.querySelector("button .icon").replaceWith(icon(descending));
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [exact(row.cells[column]), row]);
    rows.sort(([a], [b]) => (a === "" || b === "" || !descending ? compare(a, b) : compare(b, a)));
    body.append(...rows.map(([, row]) => row));
    const by = { column: head.textContent.trim() };
    announce(descending ? _("Sorted by %(column)s, descending.", by) : _("Sorted by %(column)s, ascending.", by));
  }

  function csv(table) {
    const quoted = (text) => {
      // A spreadsheet must not run what a hospital wrote.
      const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
      return `"${safe.replaceAll('"', '""')}"`;
    };
    const rows = [...table.rows].filter((row) => !row.hidden);
    const lines = rows.map((row) => [...row.cells].map((cell) => quoted(exact(cell).replace(/\s+/g, " "))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`\ufeff${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    link.download = `${(table.caption?.textContent ?? "table").trim().replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase()}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function enhanceTable(frame) {
    if (frame.dataset.ready) return;
    frame.dataset.ready = "yes";
    const table = frame.querySelector("table");
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    if ("sortable" in frame.dataset && table.tBodies[0].rows.length > 1) {
      heads.forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes, icon(false));
        head.replaceChildren(button);
        button.addEventListener("click", () => sortBy(table, head, column));
      });
    }
    const filter = frame.querySelector("[data-filter]");
    const count = frame.querySelector("[data-count]");
    const none = frame.querySelector("[data-no-match]");
    const total = table.tBodies[0].rows.length;
    filter?.addEventListener("input", () => {
      const wanted = filter.value.trim().toLocaleLowerCase(root.lang).split(/\s+/);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLocaleLowerCase(root.lang);
        row.hidden = !wanted.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      none.hidden = shown > 0;
      const words = filter.value.trim() ? _("%(shown)s of %(total)s rows", { shown: number.format(shown), total: number.format(total) }) : "";
      count.textContent = words;
      if (words) announce(words);
    });
    frame.querySelector("[data-csv]")?.addEventListener("click", () => csv(table));
  }

  /* A row or an event opens what it is about. */
  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-href]");
    if (!row || event.target.closest("a, button, input, label, summary") || getSelection().toString()) return;
    if (event.metaKey || event.ctrlKey) window.open(row.dataset.href, "_blank", "noopener");
    else location.assign(row.dataset.href);
  });

  /* -- Keys --------------------------------------------------------------------------------------------------------- */

  const typing = (element) => element?.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable]");
  let going = 0;

  function step(by) {
    const rows = all("main [data-href], main .table tbody tr").filter((row) => !row.hidden && row.querySelector("a") && row.offsetParent);
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("at"));
    rows[at]?.classList.remove("at");
    const next = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
    next.classList.add("at");
    next.querySelector("a").focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function showKeys() {
    const dialog = document.getElementById("keys");
    if (!dialog) return;
    const list = dialog.querySelector("[data-keys-page]");
    list.replaceChildren();
    for (const each of all("main [data-shortcut]")) {
      const row = list.appendChild(document.createElement("div"));
      row.appendChild(document.createElement("dt")).appendChild(document.createElement("kbd")).textContent = each.dataset.shortcut;
      row.appendChild(document.createElement("dd")).textContent = each.textContent.trim();
    }
    list.hidden = !list.children.length;
    dialog.showModal();
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(event.target)) event.target.blur();
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (Date.now() - going < 1500) {
      going = 0;
      const link = document.querySelector(`a[data-go="${CSS.escape(event.key)}"]`);
      if (link) {
        event.preventDefault();
        location.assign(link.href);
      }
      return;
    }
    const own = document.querySelector(`main [data-shortcut="${CSS.escape(event.key)}"]`);
    if (own) own.click();
    else if (event.key === "g") going = Date.now();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") showKeys();
    else if (event.key === "/") {
      const field = document.querySelector("[data-search]");
      if (!field) return;
      const places = field.closest("[popover]");
      if (places && !field.offsetParent) places.showPopover();
      field.focus();
      field.select();
    } else return;
    event.preventDefault();
  });

  /* -- Forms that send themselves -------------------------------------------------------------------------------------- */

  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-autosubmit]");
    if (!form) return;
    clearTimeout(form.zegelTimer);
    form.zegelTimer = setTimeout(() => { if (form.checkValidity()) form.requestSubmit(); }, 250);
  });

  /* -- Live parts: a stream of events changes figures in place --------------------------------------------------------- */

  function live(part) {
    if (part.zegelLive) return;
    let source, lost, waiting, last = "", wait = 1000, over = false;
    const handle = (kind, act) => source.addEventListener(kind, (event) => {
      last = event.lastEventId || last;
      act(event.data ? JSON.parse(event.data) : {});
    });
    // Servers end streams now and then, and browsers come back at once: only what lasts is worth saying.
    const gone = () => {
      if (lost || waiting || over) return;
      const since = new Date().toLocaleTimeString(root.lang);
      waiting = setTimeout(() => { waiting = undefined; say(since); }, 3000);
    };
    const say = (since) => {
      if (over) return;
      lost = document.getElementById("lost-connection").content.firstElementChild.cloneNode(true);
      lost.querySelector("span").textContent = _("No connection since %(time)s. The figures are from then; trying again.", { time: since });
      part.prepend(lost);
      part.classList.add("stale");
    };
    const back = () => {
      clearTimeout(waiting);
      waiting = undefined;
      if (lost) announce(_("Connected again."));
      lost?.remove();
      lost = undefined;
      wait = 1000;
      part.classList.remove("stale");
    };
    const open = () => {
      const glue = part.dataset.live.includes("?") ? "&" : "?";
      source = new EventSource(last ? `${part.dataset.live}${glue}last_event_id=${encodeURIComponent(last)}` : part.dataset.live);
      source.addEventListener("open", back);
      source.addEventListener("error", () => {
        gone();
        if (source.readyState !== EventSource.CLOSED || over) return;
        setTimeout(() => { if (part.isConnected && !over) open(); }, wait);
        wait = Math.min(wait * 2, 30000);
      });
      handle("values", (values) => {
        for (const [name, value] of Object.entries(values)) {
          for (const each of all(`[data-live-value="${CSS.escape(name)}"]`)) {
            if ((each.closest("[data-live]") ?? part) !== part) continue; // another stream's
            if (each.textContent !== String(value)) each.textContent = value;
          }
        }
      });
      handle("html", (parts) => {
        for (const [id, html] of Object.entries(parts)) {
          const place = document.getElementById(id);
          if (!place) continue;
          place.innerHTML = html; // from our own server; the policy lets no script in it run
          window.htmx?.process(place);
          enhance(place);
        }
      });
      handle("rows", (tables) => {
        for (const [id, rows] of Object.entries(tables)) addRows(document.getElementById(id), rows);
      });
      handle("state", ({ word, announce: aloud }) => { if (aloud || word) announce(aloud || word); });
      handle("done", end);
    };
    const end = () => {
      over = true;
      clearTimeout(waiting);
      source.close();
    };
    part.zegelLive = end;
    open();
  }
  addEventListener("pagehide", () => { for (const part of all("[data-live]")) { part.zegelLive?.(); part.zegelLive = undefined; } });
  addEventListener("pageshow", (event) => { if (event.persisted) enhance(document); });

  function addRows(table, rows) {
    if (!table) return;
    const heads = [...table.tHead.rows[0].cells];
    for (const values of rows) {
      const row = table.tBodies[0].insertRow();
      values.forEach((value, i) => {
        const cell = i ? row.insertCell() : row.appendChild(document.createElement("th"));
        if (!i) cell.scope = "row";
        cell.className = heads[i].className;
        cell.dataset.exact = value ?? "";
        cell.textContent = value === null ? "\u2013" : typeof value === "number" ? number.format(value) : value;
      });
    }
    for (const figure of all("[data-plot]")) if (figure.dataset.plot === table.id) drawPlot(figure);
  }

  /* -- Charts from tables (uPlot, on pages that load it) ------------------------------------------------------------------ */

  function colour(name) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function drawPlot(figure) {
    const table = document.getElementById(figure.dataset.plot);
    if (!window.uPlot || !table) return;
    const keys = [...table.tHead.rows[0].cells].map((head) => head.dataset.key);
    const labels = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    const chosen = [figure.dataset.x, ...figure.dataset.series.split(" ")].map((key) => keys.indexOf(key));
    const data = chosen.map((column) => [...table.tBodies[0].rows].map((row) => {
      const text = exact(row.cells[column]);
      if (text === "") return null;
      return /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) / 1000 : Number(text);
    }));
    const pairs = data[0].map((_x, i) => i).sort((a, b) => data[0][a] - data[0][b]);
    const sorted = data.map((values) => pairs.map((i) => values[i]));
    if (figure.zegelPlot) {
      figure.zegelPlot.setData(sorted);
      return;
    }
    const place = figure.querySelector("[data-canvas]");
    const time = /T/.test(exact(table.tBodies[0].rows[0]?.cells[chosen[0]] ?? place));
    const whole = sorted[0].every((x) => Number.isInteger(x));
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "13px system-ui" };
    figure.zegelPlot = new uPlot({
      width: place.clientWidth, height: 256,
      scales: { x: { time }, y: { range: "zero" in figure.dataset ? (_u, low, high) => [Math.min(0, low), high > 0 ? high * 1.06 : 1] : undefined } },
      axes: [{ ...axis, grid: { show: false }, incrs: !time && whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] : undefined }, { ...axis, size: 64, values: (_u, values) => values.map((value) => number.format(value)) }],
      series: [
        { label: labels[chosen[0]] },
        ...chosen.slice(1).map((column, i) => ({
          label: labels[column], width: 2, stroke: colour(`--hue-${(i % 8) + 1}`), points: { show: false },
          value: (_u, value) => (value === null ? "\u2013" : `${number.format(value)} ${figure.dataset.unit}`),
        })),
      ],
    }, sorted, place);
  }

  function redrawPlots() {
    for (const figure of all("[data-plot]")) {
      figure.zegelPlot?.destroy();
      figure.zegelPlot = undefined;
      drawPlot(figure);
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawPlots);
  const sizes = new ResizeObserver((changes) => {
    for (const { target } of changes) {
      const plot = target.closest("[data-plot]")?.zegelPlot;
      if (plot && target.clientWidth && plot.width !== target.clientWidth) plot.setSize({ width: target.clientWidth, height: 256 });
    }
  });

  /* -- All of it, also for what is swapped in -------------------------------------------------------------------------- */

  function enhance(within) {
    all("[data-table]", within).forEach(enhanceTable);
    all("[data-live]", within).forEach(live);
    for (const figure of all("[data-plot]", within)) {
      drawPlot(figure);
      sizes.observe(figure.querySelector("[data-canvas]"));
    }
  }

  window.zegel = Object.freeze({ announce, problem, newKey, enhance, csrf: () => meta("zegel-csrf"), t: _ });
  enhance(document);
})();
