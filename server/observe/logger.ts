import { pino } from 'pino';
import type { Logger as PinoLogger } from 'pino';
import type { Logger } from '../../backends/contract/environment.js';

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface RootLogger extends Logger {
  /** Writes what is buffered, synchronously. For the last moments of the process. */
  flush(): void;
  /** Resolves when the destination is open; lines before that are buffered, but cannot be flushed. */
  readonly ready: Promise<void>;
}

/** Field names whose values never reach the log, at the top or one level down. */
const secretFields: ReadonlySet<string> = new Set([
  'token',
  'secret',
  'password',
  'authorization',
  'cookie',
  'privateKey',
]);

const redacted = '[redacted]';

/**
 * Lines are written together: a system call for each would be a tenth of what a small request costs. A reader waits at
 * most this long for a line; errors go out at once.
 */
const flushAfterMs = 100;
const flushAtBytes = 4096;

/**
 * Lines that a stalled reader of stderr may leave in memory: 16 MiB, some 50,000 lines. Beyond it the newest lines
 * are dropped: losing log lines is better than stalling pushes or growing without end.
 */
const maxBufferedBytes = 16 * 1024 * 1024;

/**
 * The root logger: one JSON object per line, `time` in ISO 8601, `level` as a word. Fields named like secrets are
 * redacted, and so is `user:password@` inside any URL, wherever it stands in the line.
 * `destination` is a file descriptor (default 2, stderr: stdout belongs to people and to command output) or a path.
 */
export function createLogger(options: {
  level: LogLevel;
  destination?: number | string;
}): RootLogger {
  const destination = pino.destination({
    dest: options.destination ?? 2,
    sync: false,
    maxLength: maxBufferedBytes,
    minLength: flushAtBytes,
  });
  // A closed stderr (the terminal is gone) must not end a server.
  destination.on('error', () => undefined);
  const logger = pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: isoTimestamp(),
      formatters: {
        level: (label) => ({ level: label }),
        log: withoutSecrets,
      },
      serializers: { err: serializedError, error: serializedError },
      hooks: { streamWrite: withoutUrlCredentials },
    },
    destination,
  );
  const ready = new Promise<void>((resolve) => {
    // A descriptor is open already, and says nothing.
    if (typeof options.destination === 'string') destination.once('ready', () => resolve());
    else resolve();
  });
  const flush = (): void => {
    try {
      destination.flush();
    } catch {
      // Closed by its own trouble (see above): there is nowhere to write.
    }
  };
  return { ...adapt(logger, flusher(flush)), flush: () => destination.flushSync(), ready };
}

/** When lines go out that do not fill a write. */
interface Flusher {
  soon(): void;
  now(): void;
}

/** A timer only while lines wait, so that an idle server sleeps. pino itself flushes when the process exits. */
function flusher(flush: () => void): Flusher {
  let timer: NodeJS.Timeout | undefined;
  const due = (): void => {
    timer = undefined;
    flush();
  };
  return {
    soon: () => {
      timer ??= setTimeout(due, flushAfterMs).unref();
    },
    now: flush,
  };
}

function adapt(logger: PinoLogger, flusher: Flusher): Logger {
  return {
    debug: (fields, message) => {
      logger.debug(fields, message);
      flusher.soon();
    },
    info: (fields, message) => {
      logger.info(fields, message);
      flusher.soon();
    },
    warn: (fields, message) => {
      logger.warn(fields, message);
      flusher.soon();
    },
    error: (fields, message) => {
      logger.error(fields, message);
      flusher.now();
    },
    child: (fields) => adapt(logger.child(withoutSecrets({ ...fields })), flusher),
  };
}

/** pino's way of adding the time, with the text made once per millisecond. */
function isoTimestamp(): () => string {
  let madeAtMs = Number.NaN;
  let text = '';
  return () => {
    const nowMs = Date.now();
    if (nowMs !== madeAtMs) {
      madeAtMs = nowMs;
      text = `,"time":"${new Date(nowMs).toISOString()}"`;
    }
    return text;
  };
}

/**
 * The fields less what is named like a secret, here and one level down. There is none in practice, and then this is a
 * look at each name, where pino's own `redact` writes into and restores each object.
 */
function withoutSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  let copy: Record<string, unknown> | undefined;
  for (const key in fields) {
    if (!Object.hasOwn(fields, key)) continue;
    const value = fields[key];
    const clean = secretFields.has(key) ? redacted : redactedInside(value);
    if (clean === value) continue;
    copy ??= { ...fields };
    copy[key] = clean;
  }
  return copy ?? fields;
}

/** An error as fields, its own properties among them. */
function serializedError(error: Error): unknown {
  return redactedInside(pino.stdSerializers.err(error));
}

function redactedInside(value: unknown): unknown {
  // Its serializer looks inside.
  if (typeof value !== 'object' || value === null || value instanceof Error) return value;
  const found = Object.keys(value).filter((key) => secretFields.has(key));
  if (found.length === 0) return value;
  return { ...value, ...Object.fromEntries(found.map((key) => [key, redacted])) };
}

/** `https://name:secret@host/` becomes `https://***@host/`. */
function withoutUrlCredentials(line: string): string {
  return line.includes('@') ? line.replaceAll(/:\/\/[^/\s"@:]*:[^/\s"@]+@/g, '://***@') : line;
}
