"use strict";
// Says the values under the pointer; everything is readable without it.
for (const svg of document.querySelectorAll("svg.curves")) {
  const data = JSON.parse(svg.dataset.curves);
  const cross = svg.querySelector(".cross");
  const readout = svg.parentElement.querySelector(".readout");
  const nearest = (times, t) => {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < t) low = middle + 1; else high = middle;
    }
    return low > 0 && t - times[low - 1] < times[low] - t ? low - 1 : low;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const t = (x - data.x0) / (data.x1 - data.x0) * data.most;
    if (t < 0 || t > data.most) return;
    cross.setAttribute("x1", x);
    cross.setAttribute("x2", x);
    cross.setAttribute("visibility", "visible");
    const said = data.curves.filter((c) => c.t.length).map((c) => {
      const value = c.v[nearest(c.t, t)];
      return `${c.label}: ${value.toLocaleString("en")} ${data.unit}`;
    });
    readout.textContent = `${t.toFixed(1)} s · ${said.join(" · ")}`;
  });
  svg.addEventListener("pointerleave", () => {
    cross.setAttribute("visibility", "hidden");
    readout.textContent = " ";
  });
}
