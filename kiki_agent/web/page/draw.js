"use strict";
/* Small drawings and the making of elements. No markup is ever built from text that came over the wire. */

const Draw = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") element.className = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function level(share) {
    return share > 1 ? "over" : share > 0.9 ? "high" : "fine";
  }

  /* A bar of a share, with a mark where an even pace would be. */
  function meter(box, share, label, mark) {
    let fill = box.querySelector("i");
    if (!fill) {
      box.setAttribute("role", "img");
      fill = box.appendChild(make("i"));
    }
    fill.hidden = !(share > 0);
    fill.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
    box.dataset.level = level(share);
    box.setAttribute("aria-label", label);
    let even = box.querySelector("b");
    if (mark !== undefined && mark !== null) {
      if (!even) even = box.appendChild(make("b"));
      even.style.left = `calc(${Math.min(100, mark * 100)}% - 1px)`;
      even.title = "where an even pace would be";
    } else if (even) even.remove();
  }

  /* A bar to the left or right of the average; the dotted line is where a platform starts to give budget. */
  const REACH = 0.6;
  function lean(box, share, threshold, label) {
    const place = (value) => 50 + (Math.max(-REACH, Math.min(REACH, value)) / REACH) * 50;
    if (!box.firstChild) {
      box.setAttribute("role", "img");
      box.append(make("i"), make("u"), make("b"));
    }
    const [bar, limit] = [box.querySelector("i"), box.querySelector("u")];
    const at = place(share);
    bar.style.left = `${Math.min(50, at)}%`;
    bar.style.width = `${Math.abs(at - 50)}%`;
    bar.dataset.side = share < 0 ? "below" : "above";
    limit.style.left = `${place(-threshold)}%`;
    limit.title = "below this line a platform gives budget";
    box.setAttribute("aria-label", label);
  }

  /* A line through the last values, from the first that is known; gaps where nothing could be said. */
  function spark(box, history, label) {
    const values = history.slice(Math.max(0, history.findIndex((value) => value !== null)));
    const known = values.filter((value) => value !== null);
    const key = values.join();
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren();
    if (known.length < 3) return;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const span = Math.max(high - low, 0.04 * Math.abs(high), 1e-9);
    const middle = (high + low) / 2;
    const x = (index) => (index / (values.length - 1)) * 100;
    const y = (value) => 13 - ((value - middle) / span) * 20;
    let path = "";
    let pen = false;
    values.forEach((value, index) => {
      if (value === null) { pen = false; return; }
      path += `${pen ? "L" : "M"}${x(index).toFixed(2)} ${y(value).toFixed(2)}`;
      pen = true;
    });
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 26");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", path);
    svg.append(line);
    box.append(svg);
  }

  return { make, say, meter, lean, spark };
})();
