
(function () {
  "use strict";
  var slider = document.getElementById("round");
  if (!slider) return;
  var rows = Array.from(document.querySelectorAll("#values tbody tr"));
  var cursors = document.querySelectorAll(".cursor");
  var dots = document.querySelectorAll(".now");
  var outputs = document.querySelectorAll("[data-column]");
  var sections = Array.from(document.querySelectorAll(".round"));
  var note = document.getElementById("nearest");

  function nearest(round) {
    return sections.reduce(function (best, section) {
      return Math.abs(section.dataset.round - round) < Math.abs(best.dataset.round - round) ? section : best;
    });
  }

  function show() {
    var row = rows[slider.value], round = row.dataset.round, cells = row.querySelectorAll("td");
    cursors.forEach(function (line) {
      line.setAttribute("x1", row.dataset.x);
      line.setAttribute("x2", row.dataset.x);
    });
    dots.forEach(function (dot, column) {
      var y = cells[column].dataset.y;
      dot.classList.toggle("on", Boolean(y));
      if (y) { dot.setAttribute("cx", row.dataset.x); dot.setAttribute("cy", y); }
    });
    outputs.forEach(function (output) { output.textContent = cells[output.dataset.column].textContent; });
    rows.forEach(function (other) { other.classList.toggle("on", other === row); });
    document.getElementById("shown").textContent = round;
    slider.setAttribute("aria-valuetext", "round " + round + ": " + document.getElementById("chips").textContent.replace(/\s+/g, " "));
    if (!sections.length) return;
    var closest = nearest(round);
    sections.forEach(function (section) { section.hidden = section !== closest; });
    note.hidden = closest.dataset.round === round;
    note.textContent = "No completions of round " + round + " are kept in this report; those of round " + closest.dataset.round + " are the nearest.";
  }

  function move(event) {
    var hit = event.target.closest(".hit");
    if (!hit) return;
    slider.value = hit.dataset.stop;
    show();
  }

  document.querySelector(".bar").hidden = false;
  slider.addEventListener("input", show);
  document.querySelectorAll("figure > svg").forEach(function (chart) {
    chart.addEventListener("pointerdown", move);
    chart.addEventListener("pointermove", function (event) { if (event.buttons & 1) move(event); });
  });
  show();

  document.querySelectorAll(".strip").forEach(function (strip) {
    var tokens = strip.querySelectorAll("i"), said = strip.parentElement.querySelector(".said"), at = -1;
    var summary = said.textContent;
    function point(index) {
      if (tokens[at]) tokens[at].classList.remove("on");
      at = index;
      if (!tokens[at]) { said.textContent = summary; return; }
      tokens[at].classList.add("on");
      said.textContent = "“" + (tokens[at].textContent) + "” " + tokens[at].title;
    }
    strip.tabIndex = 0;
    strip.addEventListener("pointerover", function (event) {
      if (event.target.tagName === "I") point(Array.prototype.indexOf.call(tokens, event.target));
    });
    strip.addEventListener("pointerleave", function () { point(-1); });
    strip.addEventListener("blur", function () { point(-1); });
    strip.addEventListener("keydown", function (event) {
      var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      point(Math.min(Math.max(at + step, 0), tokens.length - 1));
    });
  });
})();
