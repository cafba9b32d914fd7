"use strict";

// Charts: a pointer over a picture reads the nearest step.
for (const figure of document.querySelectorAll(".chart")) {
  const { lines, across: [left, right, first, last] } = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg");
  const pointer = figure.querySelector(".pointer");
  const readout = figure.querySelector(".readout");
  const [, , width] = svg.getAttribute("viewBox").split(" ").map(Number);
  const steps = lines[0].steps;
  const nearest = (list, wanted) =>
    list.reduce((best, step, i) => (Math.abs(step - wanted) < Math.abs(list[best] - wanted) ? i : best), 0);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const step = steps[nearest(steps, first + ((x - left) / (right - left)) * (last - first))];
    const place = last === first ? (left + right) / 2 : left + ((step - first) / (last - first)) * (right - left);
    pointer.setAttribute("d", `M${place} 10V184`);
    const values = lines.map((line) => {
      const value = line.values[nearest(line.steps, step)];
      return lines.length > 1 ? `${line.name} ${value}` : value;
    });
    readout.textContent = `step ${step}: ${values.join(", ")}`;
  });
  svg.addEventListener("pointerleave", () => {
    pointer.setAttribute("d", "");
    readout.textContent = "";
  });
}

// The replay: one turn at a time. Without this script all turns stand below each other.
const replay = document.getElementById("replay");
if (replay) {
  const controls = replay.querySelector(".controls");
  const dialogues = [...replay.querySelectorAll(".dialogue")];
  const picker = controls.querySelector("select");
  const position = controls.querySelector(".position");
  const filters = [...controls.querySelectorAll("[data-filter]")];
  const [previous, next] = controls.querySelectorAll("[data-step]");
  const turnsOf = (dialogue) => [...dialogue.querySelectorAll(".turn")];
  let dialogue = dialogues[0];
  let current = null;

  const passes = (turn) => filters.every((box) => !box.checked || turn.dataset[box.dataset.filter] === "1");

  // The bank after a turn follows from the differences up to it.
  const showBanks = (turn) => {
    const past = turnsOf(dialogue).filter((one) => one.dataset.bank === turn.dataset.bank);
    past.length = past.indexOf(turn) + 1;
    for (const version of turn.querySelectorAll(".version")) {
      const bank = new Map();
      for (const one of past) {
        const same = [...one.querySelectorAll(".version")].find((v) => v.dataset.version === version.dataset.version);
        for (const change of same.querySelectorAll(".changes [data-slot]")) {
          const slot = Number(change.dataset.slot);
          const text = change.querySelector("ins");
          if (text) bank.set(slot, { text: text.textContent, kind: one === turn ? change.className : "" });
          else bank.delete(slot);
        }
      }
      const panel = version.querySelector(".bank");
      const items = [...bank].sort(([a], [b]) => a - b).map(([, { text, kind }]) => {
        const item = document.createElement("li");
        item.textContent = text;
        item.className = kind;
        return item;
      });
      panel.querySelector("summary").textContent = `The whole bank after this turn (${items.length})`;
      panel.querySelector("ul").replaceChildren(...items);
      panel.hidden = false;
    }
  };

  const show = (turn) => {
    for (const one of dialogues) one.classList.toggle("current", one === dialogue);
    for (const one of replay.querySelectorAll(".turn.current")) one.classList.remove("current");
    const turns = turnsOf(dialogue);
    const kept = turns.filter(passes);
    for (const link of dialogue.querySelectorAll(".strip a")) {
      const target = document.getElementById(link.hash.slice(1));
      link.classList.toggle("off", !passes(target));
      if (target === turn) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    current = turn;
    const place = kept.indexOf(turn);
    if (turn) {
      turn.classList.add("current");
      showBanks(turn);
    }
    position.textContent = turn ? `Turn ${place + 1} of ${kept.length}` : "No turn passes the filter";
    previous.disabled = place <= 0;
    next.disabled = place < 0 || place === kept.length - 1;
  };

  // The nearest turn that passes the filters, at or after the current one.
  const refresh = () => {
    const turns = turnsOf(dialogue);
    const start = Math.max(0, turns.indexOf(current));
    show(turns.slice(start).find(passes) ?? turns.slice(0, start).findLast(passes) ?? null);
  };

  const step = (by) => {
    const kept = turnsOf(dialogue).filter(passes);
    const turn = kept[kept.indexOf(current) + by];
    if (turn) show(turn);
  };

  const follow = () => {
    const turn = document.getElementById(location.hash.slice(1));
    if (!turn?.matches(".turn")) return;
    dialogue = turn.closest(".dialogue");
    picker.value = String(dialogues.indexOf(dialogue));
    if (!passes(turn)) for (const box of filters) box.checked = false;
    show(turn);
  };

  for (const button of [previous, next]) button.addEventListener("click", () => step(Number(button.dataset.step)));
  for (const box of filters) box.addEventListener("change", refresh);
  picker.addEventListener("change", () => {
    dialogue = dialogues[Number(picker.value)];
    current = null;
    refresh();
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest?.("select, .scroll")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined || !current) return;
    event.preventDefault();
    step(by);
  });
  replay.addEventListener("click", (event) => {
    const link = event.target.closest(".strip a");
    if (!link) return;
    event.preventDefault();
    show(document.getElementById(link.hash.slice(1)));
  });
  window.addEventListener("hashchange", follow);
  replay.classList.add("stepping");
  controls.hidden = false;
  refresh();
  follow();
}
