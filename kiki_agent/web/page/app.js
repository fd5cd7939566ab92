"use strict";
/* Shows one snapshot, and keeps it fresh by live events. Everything on screen comes from the same snapshot. */

(() => {
  const { make, say, meter, lean, spark } = Draw;
  const at = (id) => document.getElementById(id);
  const FACTS = ["suggestion", "external", "control", "optimizer", "reallocation", "alert", "shield", "budget", "loop.faulted", "loop.recovered", "spend.frozen", "spend.thawed"];
  const FIRST = 8;

  let view = null;
  let received = 0;
  let lost = null;
  let shown = FIRST;
  let filter = "all";
  let stopping = false;
  const rows = new Map();

  /* -- time ---------------------------------------------------------------------------------------------------- */

  const now = () => Date.parse(view.at) + (performance.now() - received) * (view.speed || 1);
  const age = (iso, old) => Format[old ? "old" : "ago"]((now() - Date.parse(iso)) / 1000);

  function clockwork() {
    if (!view) return;
    for (const element of document.querySelectorAll("[data-since]")) {
      say(element, (element.dataset.before || "") + age(element.dataset.since, element.dataset.old));
    }
    const due = view.optimizer.next_run;
    const big = at("countdown");
    if (!view.optimizer.enabled) cannot(big, "switched off");
    else if (due === null) cannot(big, "not planned yet");
    else can(big, Format.until((Date.parse(due) - now()) / 1000));
    if (!at("simulated").hidden) {
      say(at("simulated"), `Simulated time ${Format.moment(new Date(now()))} · ${Format.count(view.speed)} × real time`);
    }
    if (lost !== null) {
      say(at("banner"), `No connection to the agent. What you see is ${Math.round((performance.now() - received) / 1000)} s old; the agent goes on by itself. Trying again.`);
    }
  }

  function aged(iso, before = "", old = null) {
    return make("span", { "data-since": iso, "data-before": before, "data-old": old }, before + age(iso, old));
  }

  function cannot(element, why) {
    element.classList.add("cannot");
    say(element, why);
  }

  function can(element, text, small) {
    element.classList.remove("cannot");
    if (!small) { say(element, text); return; }
    if (element.textContent !== `${text} ${small}`) element.replaceChildren(`${text} `, make("small", {}, small));
  }

  /* -- the snapshot ------------------------------------------------------------------------------------------- */

  function show(snapshot) {
    view = snapshot;
    received = performance.now();
    Format.locate(view);
    document.body.dataset.tone = view.status.tone;
    document.title = `${view.needs.length ? `(${view.needs.length}) ` : ""}${view.status.sentence} · kiki`;
    say(at("client"), view.client_id);
    say(at("mode"), view.mode_label);
    at("mode").dataset.mode = view.mode;
    at("mode").hidden = false;
    say(at("sentence"), view.status.sentence);
    at("simulated").hidden = view.speed === 1;
    lede();
    needs();
    figures();
    platforms();
    governance();
    actions();
    stopButton();
    record();
    clockwork();
  }

  function lede() {
    const { optimizer, bidding } = view;
    const parts = [];
    const moves = optimizer.shifts_today;
    parts.push(moves ? `${Format.plural(moves, "budget move", "budget moves")} today` : "No budget moved today");
    parts.push(bidding.bids_changed_today ? `${Format.plural(bidding.bids_changed_today, "bid", "bids")} changed` : "no bid changed");
    say(at("lede"), `${parts.join(", ")}.`);
  }

  function needs() {
    at("needs").hidden = view.needs.length === 0;
    redraw(at("needs-list"), view.needs, (item) =>
      make("li", { "data-severity": item.severity },
        item.since ? make("span", { class: "when" }, aged(item.since)) : null,
        make("strong", {}, item.title),
        make("p", {}, item.text)));
  }

  function figures() {
    const { totals, optimizer, bidding, day } = view;
    if (totals.spent_today === null) {
      cannot(at("spent"), `Cannot say, because ${totals.cannot_say}.`);
      at("spent-bar").hidden = true;
      say(at("spent-note"), totals.budget_today ? `Budget of the day: ${Format.money(totals.budget_today)}` : "");
    } else {
      can(at("spent"), Format.money(totals.spent_today), `of ${Format.money(totals.budget_today)}`);
      at("spent-bar").hidden = totals.share === null;
      if (totals.share !== null) {
        const text = `${Format.percent(totals.share)} of the day’s budget, ${Format.percent(day.elapsed)} of the day`;
        meter(at("spent-bar"), totals.share, text, day.elapsed);
      }
      note("spent-note", `${totals.share === null ? "" : `${Format.percent(totals.share)} of budget at ${Format.percent(day.elapsed)} of the day · `}`, aged(totals.as_of, "reported "));
    }
    if (optimizer.average_efficiency === null) {
      cannot(at("efficiency"), `Cannot say, because ${optimizer.last_run ? "no platform can be compared" : "no comparison was made"} yet.`);
      say(at("efficiency-note"), "");
    } else {
      can(at("efficiency"), Format.ratio(optimizer.average_efficiency));
      say(at("efficiency-note"), `customer value per 1 spent on winning them, mean of all platforms${optimizer.best_platform ? `; best is ${optimizer.best_platform}` : ""}`);
    }
    spark(at("efficiency-spark"), optimizer.average_history, "efficiency over the last cycles");
    at("efficiency-spark").hidden = !at("efficiency-spark").firstChild;
    say(at("countdown-note"), optimizer.last_run
      ? `every ${span(optimizer.interval_s)} · last: ${optimizer.last_words}`
      : `every ${span(optimizer.interval_s)}; the first is still to come`);
    const active = view.platforms.reduce((sum, each) => sum + each.active_campaigns, 0);
    if (bidding.state === "off") cannot(at("bidding"), "not started yet");
    else can(at("bidding"), Format.count(active), active === 1 ? "campaign on" : "campaigns on");
    const words = { failing: "failing, tried again", faulted: "does not run", paused: "paused by a person" }[bidding.state];
    if (view.speed > 2 && bidding.last_success && !words) {  // the age would be that of this page, not of the decision
      note("bidding-note", `decides every ${span(bidding.interval_s)} of simulated time`);
    } else if (bidding.last_success) {
      note("bidding-note", `${words ? `${words} · ` : ""}decided `, aged(bidding.last_success), `, every ${span(bidding.interval_s)}`);
    } else say(at("bidding-note"), words || "no decision yet");
  }

  function note(id, ...parts) {
    const box = at(id);
    const key = parts.map((part) => (typeof part === "string" ? part : `${part.dataset.before}${part.dataset.since}`)).join("|");
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...parts);
  }

  const span = (seconds) => (seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`);

  /* -- platforms ---------------------------------------------------------------------------------------------- */

  function platforms() {
    const body = at("platforms");
    const wanted = view.platforms.map((each) => each.connector);
    for (const [connector, row] of rows) {
      if (!wanted.includes(connector)) { row.tr.remove(); rows.delete(connector); }
    }
    view.platforms.forEach((each, index) => {
      let row = rows.get(each.connector);
      if (!row) { row = platformRow(); rows.set(each.connector, row); }
      if (body.children[index] !== row.tr) body.insertBefore(row.tr, body.children[index] || null);
      fill(row, each);
    });
    at("platforms-empty").hidden = view.platforms.length > 0;
    body.parentElement.hidden = view.platforms.length === 0;
    const limit = view.platforms.find((each) => each.window);
    if (limit) say(at("window-title"), `Last ${span(limit.window.window_s)}`);
    const { threshold, step_share: step } = view.optimizer;
    say(at("platforms-note"), `The thin line is the pace of an even day. A platform more than ${Math.round(threshold * 100)} % below the average gives ${Math.round(step * 100)} % of its budget to the best.`);
  }

  function platformRow() {
    const cell = (label, ...children) => make("td", { "data-label": label }, ...children);
    const row = {
      name: make("span"), tag: make("span", { class: "tag", hidden: true }), campaigns: make("div", { class: "note" }),
      spent: make("span", { class: "value" }), budget: make("span", { class: "of" }), bar: make("div", { class: "meter" }),
      spentNote: make("div", { class: "note" }),
      ratio: make("span", { class: "value" }), spark: make("span", { class: "spark" }), against: make("span", { class: "of" }), lean: make("div", { class: "lean" }),
      ratioNote: make("div", { class: "note" }),
      used: make("span", { class: "value" }), limit: make("span", { class: "of" }), windowBar: make("div", { class: "meter thin" }),
    };
    row.spentPair = make("div", { class: "pair" }, row.spent, row.budget);
    row.ratioPair = make("div", { class: "pair" }, row.ratio, row.spark, row.against);
    row.windowPair = make("div", { class: "pair" }, row.used, row.limit);
    row.tr = make("tr", {},
      make("th", { scope: "row" }, row.name, " ", row.tag, row.campaigns),
      cell("Spent today", row.spentPair, row.bar, row.spentNote),
      cell("Efficiency", row.ratioPair, row.lean, row.ratioNote),
      cell("Short-term limit", row.windowPair, row.windowBar));
    return row;
  }

  function fill(row, each) {
    say(row.name, each.label);
    const tag = { quarantined: "put aside", lost: "not connected", off: "off" }[each.state] || (each.best ? "best" : "");
    say(row.tag, tag);
    row.tag.className = each.state === "quarantined" || each.state === "lost" ? "tag bad" : "tag";
    row.tag.title = each.note || "";
    row.tag.hidden = !tag;
    say(row.campaigns, `${each.active_campaigns} of ${Format.plural(each.campaigns, "campaign", "campaigns")} on`);
    if (each.spent_today === null) {
      row.spentPair.hidden = true;
      row.bar.hidden = true;
      redraw(row.spentNote, [each.spend_cannot_say, each.budget], (text, index) =>
        document.createTextNode(index === 0 ? `Cannot say, because ${text}. ` : `The day’s budget is ${Format.money(text)}.`));
    } else {
      row.spentPair.hidden = false;
      say(row.spent, Format.money(each.spent_today));
      say(row.budget, `of ${Format.money(each.budget)}`);
      row.bar.hidden = each.share === null;
      if (each.share !== null) meter(row.bar, each.share, `${Format.percent(each.share)} of the day’s budget`, view.day.elapsed);
      const above = each.overshoot ? `${Format.money(each.overshoot)} above the cap` : each.share > 1 ? "above the budget, within the cap" : "";
      redraw(row.spentNote, [each.spend_as_of, above], (value, index) =>
        index === 0 ? aged(value, "reported ") : document.createTextNode(value ? ` · ${value}` : ""));
    }
    efficiencyOf(row, each);
    row.windowBar.hidden = !each.window || each.window.share === null;
    if (each.window) row.windowPair.parentElement.dataset.label = `Last ${span(each.window.window_s)}, of the limit`;
    if (each.window && each.window.limit !== null) {
      say(row.used, Format.money(each.window.spent));
      say(row.limit, `of ${Format.money(each.window.limit)}`);
      meter(row.windowBar, each.window.share, `${Format.percent(each.window.share)} of the limit used`);
    } else {
      say(row.used, "");
      say(row.limit, each.cap === null ? "no cap set: may not spend" : "not known yet");
    }
  }

  function efficiencyOf(row, each) {
    row.lean.hidden = each.against_average === null;
    spark(row.spark, each.efficiency_history, `efficiency of ${each.label} over the last cycles`);
    row.ratioPair.hidden = each.efficiency === null;
    if (each.efficiency === null) {
      redraw(row.ratioNote, [each.efficiency_cannot_say], (why) => document.createTextNode(`Cannot say, because ${why}.`));
      return;
    }
    say(row.ratio, Format.ratio(each.efficiency));
    say(row.against, each.against_average === null ? "" : Format.signed(each.against_average));
    if (each.against_average !== null) {
      lean(row.lean, each.against_average, view.optimizer.threshold, `${Format.signed(each.against_average)} against the average`);
    }
    const money = each.ltv !== null && each.cac !== null
      ? `worth ${Format.money(each.ltv)}, cost ${Format.money(each.cac)} a customer` : "";
    redraw(row.ratioNote, [each.held_by || money, each.efficiency_as_of], (value, index) =>
      index === 0 ? document.createTextNode(sentence(value)) : value ? aged(value, " · ", "yes") : document.createTextNode(""));
  }

  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function redraw(box, items, draw) {
    const key = JSON.stringify(items);
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...items.map(draw));
  }

  /* -- what was done ------------------------------------------------------------------------------------------ */

  function actions() {
    const fits = { all: () => true, budget: (each) => each.kind !== "bid" && each.kind !== "placed", bid: (each) => each.kind === "bid" || each.kind === "placed" }[filter];
    const chosen = view.actions.filter(fits);
    const grouped = filter === "all" ? together(chosen) : chosen;
    redraw(at("actions"), grouped.slice(0, shown), (each) => (each.bids ? bidGroup(each) : actionItem(each)));
    at("actions-empty").hidden = chosen.length > 0;
    say(at("actions-empty"), filter === "all" ? "Nothing yet today. Whatever the agent changes will stand here, with the reason." : "None of these today.");
    at("actions-more").hidden = grouped.length <= shown;
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    }
  }

  /* Bids in a row are told together, so that a budget move never drowns among them. */
  function together(items) {
    const found = [];
    for (const each of items) {
      const last = found[found.length - 1];
      if (each.kind !== "bid") found.push(each);
      else if (last && last.bids) last.bids.push(each);
      else found.push({ bids: [each] });
    }
    return found.map((each) => (each.bids && each.bids.length === 1 ? each.bids[0] : each));
  }

  function bidGroup({ bids }) {
    const raised = bids.filter((each) => each.what.startsWith("Raised")).length;
    const lowered = bids.length - raised;
    const open = bids.filter((each) => each.outcome !== "done").length;
    const parts = [raised ? `${raised} raised` : "", lowered ? `${lowered} lowered` : "", open ? `${open} not confirmed` : ""];
    const earlier = view.bidding.bids_changed_today - view.actions.filter((each) => each.kind === "bid").length;
    const more = earlier > 0 && bids.includes(view.actions.filter((each) => each.kind === "bid").at(-1)) ? earlier : 0;
    const [newest, oldest] = [bids[0].at, bids[bids.length - 1].at];
    return make("li", { "data-kind": "bids" },
      make("time", { datetime: newest }, Format.clock(newest, true)),
      make("details", {},
        make("summary", {}, `Changed ${Format.count(bids.length + more)} bids `, make("span", { class: "why" },
          `${more ? `the newest ${bids.length}, ` : ""}since ${Format.clock(oldest, true)}: ${parts.filter(Boolean).join(", ")}`)),
        make("ol", { class: "inner" }, ...bids.map(actionItem))));
  }

  const OUTCOMES = { waiting: "waiting for the platform", refused: "refused", unknown: "outcome unknown, being read back" };

  function actionItem(each) {
    const changes = each.changes.map((change, index) => make("span", {},
      change.name ? `${change.name} ` : null,
      make("s", {}, Format.money(change.before)), make("span", { class: "arrow", "aria-label": "to" }, "→"), Format.money(change.after),
      index === each.changes.length - 1 && each.unit ? ` ${each.unit}` : null));
    return make("li", { "data-kind": each.kind },
      make("time", { datetime: each.at }, Format.clock(each.at, true)),
      make("span", { class: "what" }, each.what),
      each.outcome === "done" ? make("span") : make("span", { class: "outcome", "data-outcome": each.outcome }, OUTCOMES[each.outcome]),
      changes.length ? make("span", { class: "changes" }, ...changes) : null,
      make("span", { class: "why" }, sentence(each.why)));
  }

  /* -- asked of people, and left alone -------------------------------------------------------------------------- */

  function governance() {
    const { governor } = view;
    const held = governor ? governor.levels.filter((each) => each.level !== "act" || each.frozen) : [];
    const quiet = !governor || (!held.length && !governor.suggestions_open && !governor.external_total);
    at("governance").hidden = quiet;
    if (quiet) return;
    const parts = held.map((each) => `${each.label}: ${each.frozen ? "frozen" : each.words}`);
    if (governor.left_alone) parts.push(`${Format.plural(governor.left_alone, "lever", "levers")} left alone`);
    say(at("governance-note"), parts.join(" · "));
    redraw(at("suggestions"), governor.suggestions, suggestion);
    const more = governor.suggestions_open - governor.suggestions.length;
    at("suggestions-more").hidden = more <= 0;
    say(at("suggestions-more"), more > 0 ? `and ${Format.count(more)} more: kiki-agent approvals list` : "");
    redraw(at("external"), governor.external, (each) => make("li", { "data-kind": "external" },
      make("time", { datetime: each.at }, Format.clock(each.at, true)),
      make("span", { class: "what" }, `Somebody else changed the ${each.what}`),
      make("span"),
      make("span", { class: "changes" }, make("s", {}, value(each.before)), make("span", { class: "arrow", "aria-label": "to" }, "→"), value(each.after)),
      make("span", { class: "why" }, "The agent leaves it alone.")));
  }

  const value = (text) => (/^[0-9.]+$/.test(text) ? Format.money(text) : text);

  function suggestion(each) {
    const approve = make("button", { type: "button", class: "quiet" }, "Approve");
    const decline = make("button", { type: "button", class: "text" }, "Decline");
    const buttons = make("span", { class: "outcome" }, approve, " ", decline);
    let sure = !each.raises;
    approve.addEventListener("click", () => {
      if (!sure) { sure = true; say(approve, "Yes, approve"); return; }
      decide(each.id, "approve", approve, decline);
    });
    decline.addEventListener("click", () => decide(each.id, "decline", approve, decline));
    return make("li", { "data-kind": "suggestion" },
      make("time", { datetime: each.made_at }, Format.clock(each.made_at, true)),
      make("span", { class: "what" }, each.what),
      buttons,
      each.changes.length ? make("span", { class: "changes" }, ...each.changes.map((change) => make("span", {},
        make("s", {}, value(change.before)), make("span", { class: "arrow", "aria-label": "to" }, "→"), value(change.after), each.unit ? ` ${each.unit}` : null))) : null,
      make("span", { class: "why" }, sentence(each.why)));
  }

  async function decide(id, verb, ...buttons) {
    for (const button of buttons) button.disabled = true;
    try {
      const answer = await fetch(`/api/v1/suggestions/${id}/${verb}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ comment: "decided on the page" }),
      });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.detail);
      tell(body.order && body.order.state !== "done" ? `The change is ${body.order.state}. ${body.order.note}` : "", "bad");
    } catch (error) {
      tell(`Not decided: ${error.message}.`, "bad");
    }
    await load();
  }

  /* -- stop, and back on in two steps -------------------------------------------------------------------------- */

  function stopButton() {
    const button = at("stop");
    if (stopping) return;
    button.disabled = !view.stop.available;
    button.dataset.on = String(view.stop.on);
    say(button, view.stop.on ? "Turn back on…" : "Stop spending");
    if (!view.stop.on) at("confirm").hidden = true;
  }

  async function turn(on) {
    const button = at("stop");
    stopping = true;
    say(button, on ? "Stopping…" : "Turning on…");
    try {
      const answer = await fetch("/admin/kill-switch", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ on, reason: on ? "stopped on the page" : "turned back on on the page" }),
      });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      tell("");
      at("confirm").hidden = true;
    } catch (error) {
      tell(on
        ? `Not stopped: ${error.message}. Press again; if it stays so, end the agent’s process and pause the campaigns at the platforms.`
        : `Not turned on: ${error.message}.`, "bad");
    } finally {
      stopping = false;
      if (view) stopButton();
    }
    await load();
  }

  at("stop").addEventListener("click", () => {
    if (stopping) return;
    if (!view || !view.stop.on) { turn(true); return; }
    const many = Format.plural(view.platforms.length, "platform", "platforms");
    say(at("confirm-text"), `The agent may raise bids and budgets on ${many} again at once, within their caps. Stopped because: ${view.stop.reason || "no reason given"}.`);
    at("confirm").hidden = false;
    at("confirm-title").focus();
    at("confirm").scrollIntoView({ block: "center" });
  });
  at("confirm-yes").addEventListener("click", () => turn(false));
  at("confirm-no").addEventListener("click", () => { at("confirm").hidden = true; at("stop").focus(); });

  /* -- the record ---------------------------------------------------------------------------------------------- */

  function record() {
    const { ledger } = view;
    say(at("record"), ledger ? `Record: ${Format.plural(ledger.entries, "entry", "entries")}, head ${ledger.head.slice(0, 8)}` : "Record: not open yet");
    at("verify").hidden = !ledger;
    say(at("version"), `kiki ${view.version}`);
    at("sign-out").hidden = !view.signed_in;
  }

  at("verify").addEventListener("click", async () => {
    say(at("verified"), "checking every entry…");
    try {
      const answer = await fetch("/api/v1/ledger/verify");
      const found = await answer.json();
      say(at("verified"), !answer.ok ? found.detail : found.ok ? `all ${Format.count(found.entries)} entries are sound` : `broken: ${found.problem}`);
    } catch {
      say(at("verified"), "no connection to the agent");
    }
  });

  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => { filter = button.dataset.filter; shown = FIRST; if (view) actions(); });
  }
  at("actions-more").addEventListener("click", () => { shown += 20; actions(); });

  /* -- staying fresh ------------------------------------------------------------------------------------------- */

  function tell(text, kind = "") {
    at("banner").hidden = !text;
    at("banner").dataset.kind = kind;
    say(at("banner"), text);
  }

  function link(state) {
    at("link").dataset.state = state;
    say(at("link-text"), { live: "Live", wait: "Connecting", lost: "Reconnecting" }[state]);
    document.body.dataset.lost = String(state === "lost");
    if (state === "lost" && lost === null && view) { lost = performance.now(); at("banner").hidden = false; at("banner").dataset.kind = ""; clockwork(); }
    if (state === "live" && lost !== null) { lost = null; tell(""); }
  }

  async function load() {
    try {
      const answer = await fetch("/api/v1/overview");
      if (answer.status === 401) { location.assign("/"); return; }
      if (answer.ok) show(await answer.json());
      else tell(`The agent answered, but not with its state: ${(await answer.json()).detail}. Trying again.`, "bad");
    } catch {
      link("lost");
    }
  }

  /* Facts that come together are one reason to look. */
  let looking = null;
  function soon() {
    if (looking === null) looking = setTimeout(() => { looking = null; load(); }, 150);
  }

  let source = null;
  function listen() {
    source = new EventSource(`/events?topics=${["overview", ...FACTS].join()}`);
    source.onopen = () => link("live");
    source.onerror = () => {
      link("lost");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => { listen(); load(); }, 3000);
    };
    source.addEventListener("overview", (event) => { link("live"); show(JSON.parse(event.data)); });
    for (const topic of [...FACTS, "reset"]) source.addEventListener(topic, soon);
  }

  setInterval(clockwork, 500);
  load().then(listen);
})();
