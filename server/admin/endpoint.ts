import type { ZodType } from 'zod';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Principal } from '../auth/principal.js';
import type { EventStream } from './event-stream.js';

/** One request, authenticated. */
export interface Call {
  readonly principal: Principal;
  readonly requestId: string;
  /** Aborted when the client is gone before it has its answer. */
  readonly signal: AbortSignal;
  /** A path parameter, percent-decoded. Hostile. */
  param(name: string): string;
  /** Facts for the audit event, besides the action and its arguments. Never a secret. */
  note(facts: Readonly<Record<string, unknown>>): void;
  /** Names the repository in the audit event and the log. */
  noteRepository(name: string): void;
  /** For long work: progress, and then the result, as one stream. A failure before its first line is a plain error. */
  readonly events: EventStream;
}

export interface Reply {
  readonly status: 200 | 201;
  readonly body: object;
}

export interface EndpointDefinition<Input extends object> {
  /** `get` only reads; every other method changes something and leaves an audit event. */
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** Below `/api/v1`. A repository's name is one percent-encoded segment: `/repositories/team%2Fapp`. */
  readonly path: string;
  /** Name in the audit trail: `repository.create`. */
  readonly action: string;
  /** Of the query for `get`, else of the body. Strict: unknown keys are refused. */
  readonly input: ZodType<Input>;
  /** Fields of the answer that are shown once, and kept nowhere: not for an `Idempotency-Key` either. */
  readonly secrets?: readonly string[];
  /** The body may have 1.5 MiB instead of 1. */
  readonly largeBody?: boolean;
  /**
   * It only reads, and answers something while the coordinator does not: who asks is judged then by what was last
   * known, or by the token in this server's data directory.
   */
  readonly withoutCoordinator?: boolean;
  /** The input as the audit trail may show it; without this it is shown whole. */
  readonly shown?: (input: Input) => Readonly<Record<string, unknown>>;
  /** Undefined when the answer went out through `call.events`. */
  readonly run: (call: Call, input: Input) => Promise<Reply | undefined>;
}

/** An endpoint whose input is checked by itself, so that endpoints of different inputs fit one list. */
export interface Endpoint {
  readonly largeBody: boolean;
  readonly withoutCoordinator: boolean;
  readonly secrets: readonly string[];
  /** As in its definition, for the OpenAPI document. */
  readonly input: ZodType;
  readonly method: EndpointDefinition<object>['method'];
  readonly path: string;
  readonly action: string;
  /** Throws `invalid-argument` when `raw` does not fit. */
  readonly handle: (call: Call, raw: unknown) => Promise<Reply | undefined>;
}

export function endpoint<Input extends object>(definition: EndpointDefinition<Input>): Endpoint {
  const { method, path, action, input, shown, run } = definition;
  return {
    method,
    path,
    action,
    input,
    largeBody: definition.largeBody ?? false,
    withoutCoordinator: definition.withoutCoordinator ?? false,
    secrets: definition.secrets ?? [],
    handle: async (call, raw) => {
      const parsed = parseInput(input, raw);
      call.note(shown?.(parsed) ?? Object.fromEntries(Object.entries(parsed)));
      return await run(call, parsed);
    },
  };
}

interface FieldProblem {
  readonly path: string;
  readonly problem: string;
}

/** Throws `invalid-argument` that names each field with what is wrong with it. */
export function parseInput<Input>(schema: ZodType<Input>, raw: unknown): Input {
  const result = schema.safeParse(raw ?? {});
  if (result.success) return result.data;
  const fields = result.error.issues.flatMap((issue): FieldProblem[] => {
    const path = issue.path.map(String);
    if (issue.code !== 'unrecognized_keys') {
      return [{ path: path.join('.'), problem: issue.message }];
    }
    return issue.keys.map((key) => ({ path: [...path, key].join('.'), problem: 'unknown field' }));
  });
  const sentence = fields
    .map(({ path, problem }) => (path === '' ? problem : `${path}: ${problem}`))
    .join('; ');
  throw new QuorateError('invalid-argument', sentence, { details: { fields } });
}
