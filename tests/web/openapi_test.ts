/** The description of the API and the API itself say the same. */
import assert from "node:assert/strict";
import { createApp } from "../../web/app.ts";
import { openApiDocument, openApiPath } from "../../web/openapi.ts";
import { makeWeb } from "./web_fixture.ts";

interface Document {
  readonly paths: Record<string, Record<string, { responses: object; summary: string }>>;
}

Deno.test("openApiDocument() describes every route of the API and no other", () => {
  const app = createApp(makeWeb().context);
  const served = app.routes
    .filter((route) => route.path.startsWith("/api/v1/") && route.method !== "ALL")
    .map((route) => `${route.method} ${openApiPath(route.path.slice("/api/v1".length))}`);
  const { paths } = openApiDocument() as Document;
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)
  );
  assert.deepEqual(described.toSorted(), [...new Set(served)].toSorted());
});

Deno.test("/api/openapi.json and /api/docs are open to everybody", async () => {
  const client = makeWeb().client();
  const json = await client.request("/api/openapi.json");
  assert.equal((await json.json()).openapi, "3.1.0");
  const page = await client.request("/api/docs");
  assert.equal(page.status, 200);
  assert.match(await page.text(), /\/api\/v1\/drive\/items\/:id\/content/);
});
