"""The page at /docs: reads /openapi.json and shows it, to read and to try. It needs nothing from the internet."""

from __future__ import annotations

from fastapi import APIRouter, Response

router = APIRouter()

# Only this page's own script may run, and it may speak to this service only.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>rag-service API</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  body { color: #1a1a1a; background: #fff; }
  summary { cursor: pointer; padding: .3rem 0; } summary code { font-weight: 600; }
  details { border-top: 1px solid #ddd; } details > div { padding: 0 0 1rem 1rem; }
  textarea, pre, input { width: 100%; box-sizing: border-box; font: 13px/1.4 ui-monospace, monospace; }
  pre { background: #f4f4f4; padding: .6rem; overflow: auto; max-height: 30rem; white-space: pre-wrap; }
  label { display: block; margin: .4rem 0; } .verb { display: inline-block; width: 4.5rem; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    body { color: #e6e6e6; background: #161616; } pre { background: #242424; } details { border-color: #333; }
    textarea, input, button { color: inherit; background: #242424; border: 1px solid #444; }
  }
</style>
<h1>rag-service API</h1>
<p>Described by <a href="/openapi.json">/openapi.json</a>. Keys stay in this page.</p>
<label>Key <input id="key" type="password" autocomplete="off"></label>
<label>Team, with an admin key <input id="team" autocomplete="off"></label>
<main></main>
<script>
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (parent) parent.append(node);
  return node;
};
const field = (parent, label, tag) => make(tag, "", make("label", label + " ", parent));
const value = id => document.getElementById(id).value;

function show(api, path, verb, operation) {
  const box = make("details", "", document.querySelector("main"));
  const head = make("summary", "", box);
  make("span", verb.toUpperCase(), head).className = "verb";
  make("code", path, head);
  make("span", " " + operation.summary, head);
  const inside = make("div", "", box);
  make("p", operation.description, inside).style.whiteSpace = "pre-line";
  const inputs = (operation.parameters || []).filter(one => one.in === "path" || one.in === "query")
    .map(one => [one, field(inside, one.name + (one.description ? ": " + one.description : ""), "input")]);
  const json = ((operation.requestBody || {}).content || {})["application/json"];
  let body = null;
  if (json) {
    const schema = json.schema.$ref ? api.components.schemas[json.schema.$ref.split("/").pop()] : json.schema;
    body = field(inside, "Body", "textarea");
    body.rows = 8;
    body.value = JSON.stringify((schema.examples || [{}])[0], null, 2);
    make("pre", JSON.stringify(schema, null, 2), make("details", "", inside)).before(make("summary", "Its schema"));
  }
  const send = make("button", "Send", inside);
  const out = make("pre", "", inside);
  out.hidden = true;
  send.onclick = async () => {
    let address = path;
    const query = new URLSearchParams();
    for (const [one, input] of inputs) {
      if (one.in === "path") address = address.replace(`{${one.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(one.name, input.value);
    }
    const headers = {};
    if (value("key")) headers.Authorization = "Bearer " + value("key");
    if (value("team")) headers["X-Rag-Team"] = value("team");
    if (body) headers["Content-Type"] = "application/json";
    const asked = address + (query.size ? "?" + query : "");
    const answer = await fetch(asked, {method: verb.toUpperCase(), headers, body: body ? body.value : undefined});
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch {}
    out.hidden = false;
    out.textContent = answer.status + " " + answer.statusText + "\\n" + shown;
  };
}

fetch("/openapi.json").then(answer => answer.json()).then(api => {
  let tag = "";
  for (const [path, verbs] of Object.entries(api.paths)) for (const [verb, operation] of Object.entries(verbs)) {
    if (operation.tags[0] !== tag) make("h2", tag = operation.tags[0], document.querySelector("main"));
    show(api, path, verb, operation);
  }
});
</script>
"""


@router.get("/docs", include_in_schema=False)
def docs() -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})
