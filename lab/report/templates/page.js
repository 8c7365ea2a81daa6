"use strict";
(() => {
  const root = document.documentElement;
  let data = null;
  let at = 0;
  let timer = null;

  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const escape = (text) =>
    typeof text === "string" ? text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;") : text;
  const panels = () => document.querySelectorAll("figure[data-panel]");
  const frameOf = (panel) => panel.frames[Math.min(at, panel.frames.length - 1)];

  // Plotly takes texts for markup, so names of runs and weights are escaped on their way to it.
  // The darkest colour of the lines is lighter on a dark page.
  const lighter = (part) => (dark() && part?.color === "#0072B2" ? { ...part, color: "#3D9BD9" } : part);
  const shown = (trace) => {
    const text = { name: escape(trace.name), x: trace.x.map(escape), y: trace.y.map(escape) };
    return trace.line ? { ...trace, ...text, line: lighter(trace.line), marker: lighter(trace.marker) } : { ...trace, ...text };
  };

  function layoutOf(panel) {
    const edge = colour("--edge");
    const layout = structuredClone(panel.layout);
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        Object.assign(layout[key], { gridcolor: edge, zerolinecolor: edge, automargin: true });
        layout[key].title = { ...layout[key].title, standoff: 6 };
      }
    }
    return {
      ...layout,
      autosize: true,
      margin: { l: 50, r: 10, t: layout.annotations ? 34 : 14, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), size: 12 },
      legend: { orientation: "h", y: -0.25 },
      hoverlabel: { namelength: 40 },
    };
  }

  function draw(figure) {
    const panel = data.panels[figure.dataset.panel];
    const frame = frameOf(panel);
    const plot = figure.querySelector(".plot");
    plot.style.height = `${panel.layout.height}px`; // or Plotly takes the least height when the window changes
    Plotly.react(plot, frame.traces.map(shown), layoutOf(panel), {
      responsive: true,
      displaylogo: false,
      displayModeBar: false,
    });
    figure.querySelector(".alternative").textContent = frame.alternative;
    figure.querySelector(".words").textContent = frame.alternative;
  }

  function drawAll(moving) {
    for (const figure of panels()) {
      if (!moving || data.panels[figure.dataset.panel].frames.length > 1) draw(figure);
    }
  }

  function move(to) {
    at = to;
    const slider = document.getElementById("slider");
    if (slider) {
      slider.value = String(at);
      slider.setAttribute("aria-valuetext", data.labels[at]);
      document.getElementById("label").textContent = data.labels[at];
    }
    document.querySelectorAll("#summary tbody tr").forEach((row, number) => {
      row.querySelectorAll("td.cell").forEach((cell, group) => {
        cell.textContent = data.summary[number][at][group];
      });
    });
    drawAll(true);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    const play = document.getElementById("play");
    if (play) play.textContent = "Play";
  }

  function play() {
    if (timer) return stop();
    document.getElementById("play").textContent = "Stop";
    if (at === data.labels.length - 1) move(0);
    timer = setInterval(() => (at + 1 < data.labels.length ? move(at + 1) : stop()), 700);
  }

  // A cell that a spreadsheet would take for a formula begins with an apostrophe.
  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  function csv(name) {
    const panel = data.panels[name];
    const rows = [["checkpoint", "series", ...panel.columns, ...(panel.columns.length === 2 ? ["spread"] : [])]];
    panel.frames.forEach((frame, number) => {
      const label = panel.frames.length > 1 || data.labels.length === 1 ? data.labels[number] : "";
      for (const trace of frame.traces) {
        if (trace.type === "heatmap") {
          trace.z.forEach((line, i) => line.forEach((z, j) => rows.push([label, trace.name, trace.x[j], trace.y[i], z])));
        } else {
          trace.x.forEach((x, i) => rows.push([label, trace.name, x, trace.y[i], trace.error_y?.array[i]]));
        }
      }
    });
    return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  function save(figure, kind) {
    const name = figure.dataset.panel;
    if (kind !== "csv") {
      const plot = figure.querySelector(".plot");
      const size = { width: plot.clientWidth, height: plot.clientHeight, scale: 2 };
      const frame = frameOf(data.panels[name]);
      const layout = { ...layoutOf(data.panels[name]), paper_bgcolor: colour("--back") };
      Plotly.downloadImage({ data: frame.traces.map(shown), layout }, { format: kind, filename: name, ...size });
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(name)], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function sort(heading) {
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const numbers = body.rows[0].cells[column].dataset.sort !== undefined;
    const rows = [...body.rows].sort((a, b) => {
      if (numbers && (key(a) === "" || key(b) === "")) return (key(a) === "") - (key(b) === "");
      const order = numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
      return up ? order : -order;
    });
    body.append(...rows);
  }

  function theme(name) {
    if (name) root.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(dark()));
    drawAll(false);
  }

  function begin(position) {
    data = JSON.parse(document.getElementById("data").textContent);
    at = position ?? Math.max(data.labels.length - 1, 0);
    move(at);
    theme();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "theme") theme(dark() ? "light" : "dark");
    else if (button.id === "play") play();
    else if (button.dataset.save) save(button.closest("figure"), button.dataset.save);
    else if (button.closest(".sortable th")) sort(button.closest("th"));
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "slider") {
      stop();
      move(Number(event.target.value));
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
  let before = null;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme ?? "";
    theme("light");
  });
  addEventListener("afterprint", () => {
    if (before === "") delete root.dataset.theme;
    else root.dataset.theme = before;
    theme();
  });

  async function follow(version) {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const now = await answer.text();
      if (answer.ok && now !== version) {
        if (version !== null) {
          const text = await (await fetch("content", { cache: "no-store" })).text();
          const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
          const newest = at >= data.labels.length - 1;
          stop();
          panels().forEach((figure) => Plotly.purge(figure.querySelector(".plot")));
          document.getElementById("main").replaceWith(fresh);
          begin(newest ? null : at);
        }
        version = now;
      }
      document.getElementById("live").textContent = "Live: follows the run.";
    } catch {
      document.getElementById("live").textContent = "The server has ended; this is what it said last.";
    }
    setTimeout(() => follow(version), 3000);
  }

  begin(null);
  if ("live" in document.body.dataset) follow(null);
})();
