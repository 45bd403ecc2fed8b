// Fetches the page again and puts its main element in place of this one: nothing else is known here.
(() => {
  "use strict";
  const notice = document.getElementById("refresh");
  let since = new Date();

  function isBusy() {
    // Somebody marks a text to copy it: it must not vanish under the mouse.
    return document.hidden || !getSelection().isCollapsed;
  }

  async function refresh() {
    // Not location.href: it may carry credentials, with which nothing can be fetched.
    const response = await fetch(location.origin + location.pathname, { cache: "no-store" });
    if (!response.ok) throw new Error("the exporter answers " + response.status);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!fresh) throw new Error("the answer is not this page");
    if (isBusy()) return;
    const main = document.querySelector("main");
    for (const open of main.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector("#" + CSS.escape(open.id));
      if (same) same.open = true;
    }
    const focused = main.contains(document.activeElement) && document.activeElement.closest("details[id]");
    const top = scrollY;
    main.replaceWith(document.adoptNode(fresh));
    scrollTo(0, top);
    if (focused) document.getElementById(focused.id)?.querySelector("summary")?.focus({ preventScroll: true });
    since = new Date();
    notice.hidden = true;
  }

  async function tick() {
    if (!isBusy()) {
      try {
        await refresh();
      } catch (error) {
        notice.textContent =
          "This page could not be refreshed since " + since.toLocaleTimeString() + ": " + error.message +
          ". It shows what was known then.";
        notice.hidden = false;
      }
    }
    schedule();
  }

  function schedule() {
    setTimeout(tick, 1000 * Number(document.querySelector("main").dataset.refreshSeconds));
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh().catch(() => {}); // the next tick says so
  });
  schedule();
})();
