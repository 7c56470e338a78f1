/** The API to read: what api_operations.ts says, as a page. */
import type { JSX } from "preact";
import { API_SECTIONS, type ApiOperation, COMMON_ERRORS } from "../api_operations.ts";
import { Brand } from "../ui/brand.tsx";
import { Badge } from "../ui/components/badge.tsx";

const ABOUT_ERRORS = 'Each is `{"error":{"code","message"}}`. Any call may answer with these.';

export function ApiDocsPage(): JSX.Element {
  return (
    <main class="page api-docs">
      <Brand />
      <h1 class="page__title">The HTTP API</h1>
      <p>
        Everything that the pages do, for scripts. Log in with <code>POST /api/v1/session</code>
        {" "}
        and keep the cookie, or send HTTP Basic with an app password from{" "}
        <a href="/account#app-passwords">your account</a>. As a file:{" "}
        <a href="/api/openapi.json">OpenAPI 3.1</a>.
      </p>
      {API_SECTIONS.map((section) => (
        <section key={section.name} class="api-docs__section" aria-labelledby={section.name}>
          <h2 id={section.name}>{section.name}</h2>
          <p class="muted">
            <Marked text={section.text} />
          </p>
          <div class="rows">
            {section.operations.map((operation) => (
              <Operation key={operation.method + operation.path} operation={operation} />
            ))}
          </div>
        </section>
      ))}
      <section class="api-docs__section" aria-labelledby="errors">
        <h2 id="errors">Errors</h2>
        <p class="muted">
          <Marked text={ABOUT_ERRORS} />
        </p>
        <div class="table-scroll">
          <table class="table">
            <thead>
              <tr>
                <th scope="col">Code</th>
                <th scope="col">Meaning</th>
              </tr>
            </thead>
            <tbody>
              {Object.entries(COMMON_ERRORS).map(([code, meaning]) => (
                <tr key={code}>
                  <td>
                    <code>{code}</code>
                  </td>
                  <td>{meaning}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </main>
  );
}

const TONES = {
  GET: "info",
  POST: "success",
  PUT: "warning",
  PATCH: "warning",
  DELETE: "danger",
  OPTIONS: "accent",
} as const;

function Operation({ operation }: { operation: ApiOperation }): JSX.Element {
  const { method, path, summary, query, json, bytes, answer, errors } = operation;
  return (
    <div class="api-docs__operation">
      <p class="api-docs__call">
        <Badge tone={TONES[method]}>{method}</Badge>
        <code>/api/v1{path}</code>
      </p>
      <p>
        <Marked text={summary} />
      </p>
      <dl class="api-docs__details">
        {query && (
          <Detail
            term="Query"
            text={Object.entries(query).map(([name, meaning]) => `\`${name}\` (${meaning})`).join(
              ", ",
            )}
          />
        )}
        {json && <Detail term="JSON" text={`\`{${Object.keys(json).join(", ")}}\``} />}
        {bytes && <Detail term="Body" text="the bytes of the file" />}
        <Detail term={String(answer[0])} text={answer[1]} />
        {errors && <Detail term="Errors" text={errors.map((code) => `\`${code}\``).join(", ")} />}
      </dl>
    </div>
  );
}

function Detail({ term, text }: { term: string; text: string }): JSX.Element {
  return (
    <div>
      <dt>{term}</dt>
      <dd>
        <Marked text={text} />
      </dd>
    </div>
  );
}

/** Text in which `code` stands between backticks. */
function Marked({ text }: { text: string }): JSX.Element {
  return (
    <>
      {text.split("`").map((part, index) =>
        index % 2 === 0 ? part : <code key={index}>{part}</code>
      )}
    </>
  );
}
