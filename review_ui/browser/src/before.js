// @ts-check
// Runs before the App: it reads these when it starts. Items open where they can be answered, and no advertisement comes.

const [, dataset] = location.pathname.match(/\/datasets\/([^/]+)/) ?? [];
localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true");
if (dataset) localStorage.setItem(`${decodeURIComponent(dataset)}_modalMode`, JSON.stringify("annotate"));
