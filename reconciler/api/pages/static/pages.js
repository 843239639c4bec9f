// Live updates. Without this script the pages show what was true when they were loaded.
"use strict";
(() => {
  const PAUSE = 2000; // milliseconds between two updates of a page
  const KEPT = 1 << 20; // characters of a log that are kept on the page
  const pulse = document.getElementById("pulse");
  const say = (text) => { if (pulse && pulse.textContent !== text) pulse.textContent = text; };

  // A form that is open, or a text that is being selected, is not taken away.
  const busy = () =>
    document.hidden ||
    document.querySelector("#live .act[open]") !== null ||
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

  const address = document.body.dataset.stream;
  if (address && document.querySelector("#live[hx-get]")) {
    const source = new EventSource(address);
    let first = true;
    source.addEventListener("changed", () => {
      say("live");
      due = due || !first;
      first = false;
      update();
    });
    source.addEventListener("error", () => say("not live: connecting again"));
    source.addEventListener("open", () => say("live"));
    window.addEventListener("pagehide", () => source.close());
  }

  // Opened details stay open when their part of the page is replaced.
  let opened = [];
  const key = (details) => details.querySelector("summary").textContent;
  document.body.addEventListener("htmx:beforeSwap", () => {
    opened = [...document.querySelectorAll("#live details[open]")].map(key);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    for (const details of document.querySelectorAll("#live details")) {
      if (opened.includes(key(details))) details.open = true;
    }
  });

  const log = document.getElementById("log");
  if (log && log.dataset.follow) {
    const state = document.getElementById("log-state");
    const source = new EventSource(log.dataset.follow);
    const add = (text) => {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (log.textContent.length + text.length > KEPT) {
        log.textContent = log.textContent.slice(-KEPT / 2);
      }
      log.append(text);
      if (atEnd) log.scrollTop = log.scrollHeight;
    };
    source.addEventListener("text", (event) => add(JSON.parse(event.data)));
    source.addEventListener("anew", () => { log.textContent = ""; });
    source.addEventListener("skipped", () => add("\n… some lines were left out …\n"));
    source.addEventListener("end", () => { state.textContent = "It has ended."; source.close(); });
    source.addEventListener("open", () => { state.textContent = "It is followed live."; });
    window.addEventListener("pagehide", () => source.close());
    log.scrollTop = log.scrollHeight;
  }
})();
