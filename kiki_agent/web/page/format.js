"use strict";
/* How numbers, times and ages read: one function each, so that a number looks the same wherever it stands. */

const Format = (() => {
  let currency = "USD";
  let decimals = 2;
  let zone = "UTC";
  let style = null;

  function locate(overview) {
    if (style && overview.currency === currency && overview.day.timezone === zone) return;
    currency = overview.currency;
    decimals = overview.decimals;
    zone = overview.day.timezone;
    style = new Intl.NumberFormat("en-US", {
      style: "currency", currency, minimumFractionDigits: decimals, maximumFractionDigits: decimals,
    });
  }

  const isAmount = (text) => /^-?[0-9]+(\.[0-9]+)?$/.test(text);
  const money = (text) => (isAmount(text) ? style.format(Number(text)) : text);
  const count = (value) => new Intl.NumberFormat("en-US").format(value);
  const ratio = (value) => value.toFixed(2);
  const percent = (share) => `${Math.round(share * 100)} %`;

  function signed(share) {
    const text = Math.abs(share * 100).toFixed(1);
    if (text === "0.0") return "at the average";
    return `${share < 0 ? "−" : "+"}${text} %`;
  }

  function ago(seconds) {
    const s = Math.max(0, Math.round(seconds));
    const [amount, unit] = s < 90 ? [s, "s"] : s < 5400 ? [s / 60, "min"] : s < 129600 ? [s / 3600, "h"] : [s / 86400, "days"];
    return `${Math.round(amount)}\u00a0${unit}\u00a0ago`;
  }

  const old = (seconds) => ago(seconds).replace(/ago$/, "old");

  function until(seconds) {
    const s = Math.max(0, Math.ceil(seconds));
    if (s === 0) return "now";
    const pad = (part) => String(part).padStart(2, "0");
    const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
    return h ? `${h}:${pad(m)}:${pad(s % 60)}` : `${m}:${pad(s % 60)}`;
  }

  function clock(iso, seconds) {
    const options = { timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    if (seconds) options.second = "2-digit";
    return new Intl.DateTimeFormat("en-GB", options).format(new Date(iso));
  }

  function moment(date) {
    return new Intl.DateTimeFormat("en-GB", {
      timeZone: zone, weekday: "short", day: "numeric", month: "short", year: "numeric",
      hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    }).format(date);
  }

  function plural(number, one, many) {
    return `${count(number)} ${number === 1 ? one : many}`;
  }

  return { locate, isAmount, money, count, ratio, percent, signed, ago, old, until, clock, moment, plural };
})();
