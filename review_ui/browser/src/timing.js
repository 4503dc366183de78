// @ts-check
// Every time that the review waits or counts, in milliseconds, and why it cannot be an event instead.

// How long people take: a key that comes sooner after a picture is painted was meant for the item before.
export const SEEN_MS = 150;
export const PAGE_SEEN_MS = 400; // the same for a page of crops

// What the App does without an event.
// The App changes its page in bursts; one look at the end of a burst is enough.
export const BURST_MS = 60;
// An edit shows nowhere until the App notes, so long after the last key or pointer, that it is not saved.
export const EDIT_MS = 250;
// While the App loads an item it drops clicks without a sign; they are repeated after this.
export const CLICK_MS = 400;
// A label that the App has not listed so long after its image came was deleted, and will not be listed.
export const LABEL_MS = 500;

// Limits on waiting, after which people get a message or may go on.
export const FORM_MS = 2_000; // for a form, menu or list of the App to open or close
export const SAVE_MS = 60_000; // for the App to save an edit
export const OPENING_MS = 5_000; // for the App to start to show the item that it was asked for
export const REOPEN_MS = 10_000; // for an item to be on the screen before another may be asked for
export const SLOW_MS = 1_000; // for an item to be painted: from here on it may be skipped unseen
export const LOAD_MS = 8_000; // for images to come
export const AGAIN_MS = 30_000; // for a page that was loaded again to fail again: then it is left as it is

// The clocks of the server.
export const RENEW_MS = 60_000; // leases are renewed so often while somebody works
export const IDLE_MS = 5 * 60_000; // without a key or a pointer for so long nobody works
export const ALIVE_MS = 3_000; // the server is asked so often whether it is there: its end sends no event
export const ANSWER_MS = 30_000; // for its answer: one that has ended refuses at once, a busy one takes its time
