import type { Command } from 'commander';
import { type ApiClient, createApiClient, type Json, type Progress } from './api-client.js';
import { CliError } from './cli-error.js';
import { createProgressDisplay } from './progress-display.js';
import { findServer } from './server-address.js';
import { createTerminal, type Terminal } from './terminal.js';

/** What the action of a command works with. */
export interface CommandContext {
  readonly terminal: Terminal;
  /** One request to the admin API; `path` is below `/api/v1`. */
  readonly request: ApiClient['request'];
  /** An answer without an end, line by line, until Ctrl-C. */
  readonly follow: (path: string, told: (line: Json) => void) => Promise<void>;
  /**
   * Runs a long request with its progress on stderr, or told to `progress` instead. Ctrl-C ends it, here and on the
   * server.
   */
  readonly stream: (
    path: string,
    body?: Json,
    progress?: (progress: Progress) => void,
  ) => Promise<Json>;
}

/** The context of a command, by the options that every command takes. */
export function contextOf(command: Command): CommandContext {
  const { json, data } = globalOptions(command);
  const api = async () => createApiClient(await findServer(data, process.env));
  return {
    terminal: createTerminal(json),
    request: async (method, path, body) => await (await api()).request(method, path, body),
    follow: async (path, told) => {
      const { signal, stop } = interruption();
      try {
        await (await api()).follow(path, { signal, told });
      } finally {
        stop();
      }
    },
    stream: async (path, body, progress) => {
      const client = await api();
      const display =
        progress === undefined ? await createProgressDisplay(process.stderr) : undefined;
      const { signal, stop } = interruption();
      try {
        return await client.stream(path, {
          ...(body === undefined ? {} : { body }),
          signal,
          progress: progress ?? ((now) => display?.update(now)),
        });
      } catch (error) {
        if (signal.aborted) {
          throw new CliError('interrupted; the server has been told to stop', { exitCode: 130 });
        }
        throw error;
      } finally {
        display?.stop();
        stop();
      }
    },
  };
}

/** Aborted by Ctrl-C, until it is stopped. */
function interruption(): { readonly signal: AbortSignal; readonly stop: () => void } {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  return {
    signal: interrupted.signal,
    stop: () => void process.off('SIGINT', interrupt).off('SIGTERM', interrupt),
  };
}

export function globalOptions(command: Command): {
  readonly json: boolean;
  readonly data: string | undefined;
} {
  const { json, data }: Readonly<Record<string, unknown>> = command.optsWithGlobals();
  return { json: json === true, data: typeof data === 'string' ? data : undefined };
}

/** All rows of a list, page by page. `path` may have a query. */
export async function allRows(
  request: ApiClient['request'],
  path: string,
  name: string,
): Promise<readonly Json[]> {
  const found: Json[] = [];
  let page = `${path}${path.includes('?') ? '&' : '?'}limit=1000`;
  for (;;) {
    const answer = await request('GET', page);
    found.push(...rows(answer, name));
    const { next } = answer;
    if (typeof next !== 'string') return found;
    page = `${path}${path.includes('?') ? '&' : '?'}limit=1000&after=${encodeURIComponent(next)}`;
  }
}

/** `user` of an answer, checked to be an object. */
export function field(answer: Json, name: string): Json {
  const value = answer[name];
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new CliError(`the server's answer lacks "${name}"; is it of another version?`);
}

/** `users` of an answer, checked to be objects. */
export function rows(answer: Json, name: string): readonly Json[] {
  const value = answer[name];
  if (!Array.isArray(value)) {
    throw new CliError(`the server's answer lacks "${name}"; is it of another version?`);
  }
  return value.map((row: unknown) => (typeof row === 'object' && row !== null ? { ...row } : {}));
}
