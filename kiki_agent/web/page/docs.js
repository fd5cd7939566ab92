"use strict";
/* Renders /openapi.json; loads nothing else. */

(async () => {
  const { make, say } = Draw;
  const about = document.getElementById("about");
  let api;
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`the agent answered ${answer.status}`);
    api = await answer.json();
  } catch (error) {
    say(about, `The description could not be loaded: ${error.message}.`);
    return;
  }
  say(document.getElementById("title"), `${api.info.title} ${api.info.version}`);
  say(about, `${api.info.summary} ${api.info.description}`);

  const nameOf = (reference) => reference.split("/").pop();
  const resolve = (schema) => (schema && schema.$ref ? api.components.schemas[nameOf(schema.$ref)] : schema);

  function typeOf(schema) {
    if (!schema) return "";
    if (schema.$ref) {
      const target = resolve(schema);
      return target.enum ? target.enum.join(" | ") : nameOf(schema.$ref);
    }
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
    if (schema.type === "array") return `${typeOf(schema.items)}[]`;
    if (schema.type === "object" && schema.additionalProperties) return `map of ${typeOf(schema.additionalProperties)}`;
    return schema.type || "any";
  }

  function fields(schema) {
    const whole = resolve(schema);
    const properties = Object.entries((whole && whole.properties) || {});
    if (!properties.length) return make("p", { class: "note" }, typeOf(schema));
    const required = whole.required || [];
    return table(properties.map(([name, each]) => [name, required.includes(name), each]));
  }

  function table(lines) {
    return make("table", {}, make("tbody", {}, ...lines.map(([name, required, schema, text]) => make("tr", {},
      make("th", { scope: "row" }, make("code", {}, name)),
      make("td", {}, make("code", {}, typeOf(schema)), required ? "" : " (optional)"),
      make("td", {}, text || (resolve(schema) || {}).description || schema.description || "")))));
  }

  function operation(path, method, each) {
    const inside = make("div", { class: "inside" }, make("p", { class: "note" }, `Permission: ${each["x-permission"]}`));
    if (each.parameters.length) {
      inside.append(make("h3", {}, "Parameters"),
        table(each.parameters.map((one) => [one.name, one.required, one.schema, `${one.in}. ${one.schema.description || ""}`])));
    }
    if (each.requestBody) {
      const [media, content] = Object.entries(each.requestBody.content)[0];
      inside.append(make("h3", {}, `Body (${media})`), fields(content.schema));
    }
    for (const [status, one] of Object.entries(each.responses)) {
      const [media, content] = Object.entries(one.content)[0];
      inside.append(make("h3", {}, `${status} ${one.description}`));
      if (Number(status) < 400) inside.append(media === "application/json" ? fields(content.schema) : make("p", { class: "note" }, media));
    }
    return make("details", { id: each.operationId },
      make("summary", {}, make("span", { class: "method", "data-method": method }, method.toUpperCase()), make("code", {}, path), make("span", { class: "note" }, each.summary)),
      inside);
  }

  const box = document.getElementById("endpoints");
  for (const tag of api.tags) {
    const found = [];
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, each] of Object.entries(methods)) if (each.tags.includes(tag.name)) found.push(operation(path, method, each));
    }
    if (found.length) box.append(make("section", {}, make("h2", {}, tag.description), ...found));
  }
})();
