
(function () {
  "use strict";
  var dialog = document.getElementById("dialog"), place = document.getElementById("place");
  var details = document.getElementById("details");
  if (!dialog || !dialog.showModal) return;
  var open = null;

  function show(id) {
    var section = document.getElementById(id);
    if (!section || !section.classList.contains("detail")) return false;
    put();
    open = section;
    place.append(section);
    dialog.showModal();
    dialog.scrollTop = 0;
    return true;
  }

  function put() {
    if (open) details.append(open);
    open = null;
    if (dialog.open) dialog.close();
  }

  details.hidden = true;
  document.querySelectorAll(".matrix a").forEach(function (link) {
    link.addEventListener("click", function (event) {
      if (show(link.hash.slice(1))) event.preventDefault();
    });
  });
  dialog.addEventListener("close", put);
  dialog.addEventListener("click", function (event) { if (event.target === dialog) put(); });
  document.getElementById("close").addEventListener("click", put);
  show(window.location.hash.slice(1));
})();
