// Built by `make js` from review_ui/browser/src: change it there.
"use strict";
(() => {
  // src/before.js
  var [, dataset] = location.pathname.match(/\/datasets\/([^/]+)/) ?? [];
  localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true");
  if (dataset) localStorage.setItem(`${decodeURIComponent(dataset)}_modalMode`, JSON.stringify("annotate"));
})();
