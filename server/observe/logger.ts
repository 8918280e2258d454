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
const secretFields = ['token', 'secret', 'password', 'authorization', 'cookie', 'privateKey'];

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
  });
  // A closed stderr (the terminal is gone) must not end a server.
  destination.on('error', () => undefined);
  const logger = pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err, error: pino.stdSerializers.err },
      redact: {
        paths: secretFields.flatMap((field) => [field, `*.${field}`]),
        censor: '[redacted]',
      },
      hooks: { streamWrite: withoutUrlCredentials },
    },
    destination,
  );
  const ready = new Promise<void>((resolve) => {
    // A descriptor is open already, and says nothing.
    if (typeof options.destination === 'string') destination.once('ready', () => resolve());
    else resolve();
  });
  return { ...adapt(logger), flush: () => destination.flushSync(), ready };
}

function adapt(logger: PinoLogger): Logger {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => adapt(logger.child(fields)),
  };
}

/** `https://name:secret@host/` becomes `https://***@host/`. */
function withoutUrlCredentials(line: string): string {
  return line.includes('@') ? line.replaceAll(/:\/\/[^/\s"@:]*:[^/\s"@]+@/g, '://***@') : line;
}
