// Live updates. Without this script the pages show the state at the time of loading.
"use strict";
(() => {
  const PAUSE = 2000; // milliseconds between two updates of a page
  const KEPT = 1 << 20; // characters of a log kept on the page
  const LONGEST = 60000; // milliseconds between two attempts to connect
  const pulse = document.getElementById("pulse");
  const say = (text) => { if (pulse && pulse.textContent !== text) pulse.textContent = text; };

  // An open form or a text selection is never replaced.
  const busy = () =>
    document.hidden ||
    document.querySelector("main .act[open]") !== null ||
    (document.getSelection() !== null && String(document.getSelection()) !== "");

  let due = false;
  let last = 0;
  const update = () => {
    if (!due || busy() || Date.now() - last < PAUSE) return;
    due = false;
    last = Date.now();
    document.body.dispatchEvent(new CustomEvent("changed"));
  };
  setInterval(update, 500);

  // A browser has six connections to a server for all its tabs, and an open stream is one of them:
  // only the visible tab keeps its stream. `address` is called again for each connection.
  const follow = (address, events, tell) => {
    let source = null;
    let failures = 0;
    let again = 0;
    const close = () => {
      clearTimeout(again);
      if (source) source.close();
      source = null;
    };
    // The browser reconnects after a loss, but gives up after any response that is no stream, and
    // does not say which response it was.
    const refused = async () => {
      close();
      const stop = new AbortController();
      const status = await fetch(address(), { signal: stop.signal }).then((a) => a.status, () => 0);
      stop.abort();
      if (source || document.hidden) return;
      if (status === 401) return tell("sign in again");
      tell("connecting again");
      again = setTimeout(open, Math.min(1000 * 2 ** failures++, LONGEST));
    };
    const open = () => {
      close();
      const opened = source = new EventSource(address());
      opened.addEventListener("open", () => { failures = 0; tell(""); });
      opened.addEventListener("error", () => {
        if (opened !== source) return;
        if (opened.readyState === EventSource.CLOSED) refused();
        else tell("connecting again");
      });
      for (const [name, heard] of Object.entries(events)) opened.addEventListener(name, heard);
    };
    const look = () => { if (document.hidden) close(); else if (!source) open(); };
    const looks = [[document, "visibilitychange", look], [window, "pageshow", look]];
    for (const [where, name, heard] of looks) where.addEventListener(name, heard);
    window.addEventListener("pagehide", close);
    look();
    return () => {
      close();
      for (const [where, name, heard] of looks) where.removeEventListener(name, heard);
    };
  };

  const stream = document.body.dataset.stream;
  if (stream && document.querySelector("#live[hx-get]")) {
    let first = true; // the page itself is as new as its first message
    const changed = () => {
      due = due || !first;
      first = false;
      update();
    };
    follow(() => stream, { changed }, (why) => say(why ? `not live: ${why}` : "live"));
  }

  // Opened details stay open when their part of the page is replaced.
  let opened = [];
  const key = (details) => details.dataset.key || details.querySelector("summary").textContent;
  document.body.addEventListener("htmx:beforeSwap", () => {
    opened = [...document.querySelectorAll("main details[open]")].map(key);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    for (const details of document.querySelectorAll("main details")) {
      if (opened.includes(key(details))) details.open = true;
    }
    const icon = document.getElementById("live")?.dataset.icon; // the worst state of the fleet
    if (icon) document.getElementById("favicon").href = icon;
  });

  const log = document.getElementById("log");
  if (log && log.dataset.follow) {
    const state = document.getElementById("log-state");
    const address = new URL(log.dataset.follow, location.href);
    const add = (text) => {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (log.textContent.length + text.length > KEPT) {
        log.textContent = log.textContent.slice(-KEPT / 2);
      }
      log.append(text);
      if (atEnd) log.scrollTop = log.scrollHeight;
    };
    const heard = (act) => (event) => {
      address.searchParams.set("from", event.lastEventId);
      act(event);
    };
    const stop = follow(() => address, {
      text: heard((event) => add(JSON.parse(event.data))),
      anew: heard(() => { log.textContent = ""; }),
      skipped: heard(() => add("\n… some lines were left out …\n")),
      end: () => { state.textContent = "It has ended."; stop(); },
    }, (why) => { state.textContent = why ? `It is not followed: ${why}.` : "It is followed live."; });
    log.scrollTop = log.scrollHeight;
  }
})();
