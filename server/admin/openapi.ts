import { z } from 'zod';
import { answers, problem } from './answers.js';
import { endpoint, type Endpoint } from './endpoint.js';
import { problemMediaType } from './error-map.js';
import { nothing } from './routes/fields.js';

type Json = Readonly<Record<string, unknown>>;

/** Actions whose answer is a stream of lines (docs/admin-api.md, "Streams"). */
const streams: ReadonlySet<string> = new Set([
  'repository.import',
  'repository.maintain',
  'repository.verify',
  'audit.follow',
]);

/**
 * `GET /openapi.json`: for everybody, since it says what is in the documentation anyway and a client may want it before
 * it has credentials. `all` is read at the first request: this endpoint is one of them.
 */
export function openapiEndpoint(all: () => readonly Endpoint[], version: string): Endpoint {
  let document: Json | undefined;
  return endpoint({
    method: 'get',
    path: '/openapi.json',
    action: 'openapi',
    input: nothing,
    run: async () => {
      document ??= openapiDocument(all(), version);
      return Promise.resolve({ status: 200, body: document });
    },
  });
}

/** The admin API as an OpenAPI 3.1 document, made of the schemas that judge its requests. */
export function openapiDocument(endpoints: readonly Endpoint[], version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const one of endpoints) {
    const path = one.path.replaceAll(/:(\w+)/g, '{$1}');
    (paths[path] ??= {})[one.method] = operation(one);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Quorate admin API', version },
    servers: [{ url: '/api/v1' }],
    security: [{}, { bearer: [] }, { basic: [] }],
    paths,
    components: {
      schemas: { Problem: schemaOf(problem, 'output') },
      responses: {
        Problem: {
          description: 'What went wrong (RFC 9457)',
          content: { [problemMediaType]: { schema: { $ref: '#/components/schemas/Problem' } } },
        },
      },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        basic: { type: 'http', scheme: 'basic', description: 'the token is the password' },
      },
    },
  };
}

function operation(one: Endpoint): Json {
  const input = schemaOf(one.input, 'input');
  const fields = isJson(input['properties']) ? input['properties'] : {};
  const required = Array.isArray(input['required']) ? input['required'] : [];
  const parameters = [
    ...[...one.path.matchAll(/:(\w+)/g)].map(([, name]) => ({
      name,
      in: 'path',
      required: true,
      schema: { type: 'string' },
    })),
    ...(one.method === 'get'
      ? Object.entries(fields).map(([name, schema]) => ({
          name,
          in: 'query',
          required: required.includes(name),
          schema,
        }))
      : []),
  ];
  const takesBody = one.method !== 'get' && Object.keys(fields).length > 0;
  return {
    operationId:
      one.action + (one.path.includes('/repositories/:repository/') ? '.of-repository' : ''),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(takesBody
      ? {
          requestBody: {
            required: required.length > 0,
            content: { 'application/json': { schema: input } },
          },
        }
      : {}),
    responses: { '2XX': success(one), default: { $ref: '#/components/responses/Problem' } },
  };
}

function success({ action }: Endpoint): Json {
  if (streams.has(action)) {
    const line = {
      type: 'string',
      description: 'JSON: progress, event, position, alive, result or error',
    };
    return {
      description: 'Progress, and at the end the result or an error; one per line',
      content: { 'application/x-ndjson': { schema: line } },
    };
  }
  const answer = answers[action];
  const schema = answer === undefined ? { type: 'object' } : schemaOf(answer, 'output');
  return { description: 'Done', content: { 'application/json': { schema } } };
}

/** JSON Schema 2020-12, which OpenAPI 3.1 takes as it is. What only code can judge is left out. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
