
(function () {
  "use strict";
  var root = document.documentElement, button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  function name() { button.textContent = dark ? "Light" : "Dark"; button.title = "Change to " + button.textContent.toLowerCase() + " colors"; }
  root.classList.add("js");
  button.hidden = false;
  button.addEventListener("click", function () {
    dark = !dark;
    root.dataset.theme = dark ? "dark" : "light";
    name();
  });
  name();
})();
