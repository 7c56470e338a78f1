/** The API's description in OpenAPI 3.1, made from api_operations.ts. */
import {
  API_SECTIONS,
  type ApiOperation,
  COMMON_ERRORS,
  type FieldType,
} from "./api_operations.ts";

const FIELD_SCHEMAS: Record<FieldType, object> = {
  string: { type: "string" },
  boolean: { type: "boolean" },
  integer: { type: "integer" },
  strings: { type: "array", items: { type: "string" } },
  addresses: {
    description: "One text with commas, or a list of addresses",
    anyOf: [
      { type: "string" },
      { type: "array", items: { anyOf: [{ type: "string" }, { type: "object" }] } },
    ],
  },
  object: { type: "object" },
  objects: { type: "array", items: { type: "object" } },
};

/** `/drive/items/:id` as OpenAPI writes it: `/api/v1/drive/items/{id}`. */
export const openApiPath = (path: string): string => `/api/v1${path.replaceAll(/:(\w+)/g, "{$1}")}`;

export function openApiDocument(): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const section of API_SECTIONS) {
    for (const operation of section.operations) {
      const path = paths[openApiPath(operation.path)] ??= {};
      path[operation.method.toLowerCase()] = describe(operation, section.name);
    }
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "PennCloud",
      version: "1",
      description: "Mail, files, accounts and the cluster. Errors are " +
        '`{"error":{"code","message"}}` with a fitting status; codes are stable, messages are for people.',
    },
    tags: API_SECTIONS.map(({ name, text }) => ({ name, description: text })),
    security: [{ session: [] }, { basic: [] }],
    paths,
    components: {
      securitySchemes: {
        session: { type: "apiKey", in: "cookie", name: "penncloud_session" },
        basic: { type: "http", scheme: "basic" },
      },
      schemas: {
        Error: {
          type: "object",
          required: ["error"],
          properties: {
            error: {
              type: "object",
              required: ["code", "message"],
              properties: { code: { type: "string" }, message: { type: "string" } },
            },
          },
        },
      },
    },
  };
}

function describe(operation: ApiOperation, tag: string): object {
  const { path, summary, query = {}, answer: [status, description], errors = [] } = operation;
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  const inQuery = Object.entries(query).map(([name, meaning]) => ({
    name,
    in: "query",
    description: meaning,
    schema: { type: "string" },
  }));
  const codes = [...errors, ...Object.keys(COMMON_ERRORS)].map((code) => `\`${code}\``).join(", ");
  return {
    tags: [tag],
    summary,
    ...(operation.open ? { security: [] } : {}),
    parameters: [...inPath, ...inQuery],
    ...requestBody(operation),
    responses: {
      [status]: { description },
      default: {
        description: `An error: ${codes}`,
        content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
      },
    },
  };
}

function requestBody({ json, bytes }: ApiOperation): object {
  if (bytes) {
    const schema = { type: "string", format: "binary" };
    return { requestBody: { content: { "application/octet-stream": { schema } } } };
  }
  if (json === undefined) return {};
  const properties: Record<string, object> = {}, required: string[] = [];
  for (const [written, type] of Object.entries(json)) {
    const name = written.replace(/\?$/, "");
    properties[name] = FIELD_SCHEMAS[type];
    if (name === written) required.push(name);
  }
  const schema = { type: "object", properties, required };
  return { requestBody: { required: true, content: { "application/json": { schema } } } };
}
