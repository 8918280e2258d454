import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import type { Logger } from '../backends/contract/environment.js';
import { asQuorateError, QuorateError } from '../backends/contract/errors.js';
import type { ComposedServer, CompositionParts } from './composition.js';
import { loadConfig } from './config.js';
import type { Config, ConfigSources } from './config.js';
import { nodeFileName, openDataDirectory, serverFileName } from './data-directory.js';
import { systemClock, systemRandom } from './environment.js';
import { announcement, createFirstAdmin, nodeAnnouncement } from './first-start.js';
import { Lifecycle } from './lifecycle.js';
import { startGitEngine } from './git-engine.js';
import { createLogger } from './observe/logger.js';
import type { RootLogger } from './observe/logger.js';
import { createMetrics } from './observe/metrics.js';
import { ownCommand } from './own-command.js';
import type { NewHostKeys } from './ssh/host-keys.js';
import { Teardown } from './teardown.js';
import { version } from './version.js';

/** What `quorate serve` was given on the command line. */
export type ServeArguments = Pick<ConfigSources, 'file' | 'flags' | 'set'>;

/**
 * Time after the drain's grace in which everything must have closed. Then the process ends as it is: data is safe at
 * any instant, and a supervisor would kill it soon anyway.
 */
const teardownTimeoutMs = 15_000;

/** One Ctrl-C arrives twice under npm: from the terminal, and passed on by npm. Nobody presses it twice this fast. */
const sameSignalMs = 500;

/**
 * `quorate serve`: starts, serves until SIGTERM or SIGINT, drains, stops. Resolves with the exit status: 0 after a
 * drain, 2 when the configuration is wrong, 1 when the start failed (one sentence on stderr says why, and nothing is
 * left running). A second signal ends the process at once, with 1; so does an uncaught exception, after it was logged.
 */
export async function serve(given: ServeArguments): Promise<number> {
  let config: Config;
  try {
    config = loadConfig({ ...given, env: process.env, workingDirectory: process.cwd() });
  } catch (error) {
    sayFailure(error);
    return 2;
  }
  const logger = createLogger({ level: config['log.level'] });
  logWarnings(logger);
  // Nothing else keeps the process alive while parts are being closed; unfinished work must not end it silently.
  const alive = setInterval(() => undefined, 60_000);
  const signals = new StopSignals(logger);
  const lifecycle = new Lifecycle();
  const teardown = new Teardown({ clock: systemClock, logger });
  const stopping = new AbortController();
  let served = false;
  try {
    const server = await start({ config, logger, lifecycle, teardown, stopping: stopping.signal });
    lifecycle.enter({ phase: 'serving' });
    served = true;
    logger.info({ component: 'server', version, node: process.version }, 'serving');
    const signal = await signals.first;
    await drain({ server, config, logger, lifecycle, signal });
    return 0;
  } catch (error) {
    // An operating error is told in one sentence; only a bug wants its stack looked at.
    if (error instanceof QuorateError)
      logger.debug({ component: 'server', err: error }, 'no start');
    else logger.error({ component: 'server', err: error }, 'the server could not start');
    logger.flush();
    sayFailure(error);
    return 1;
  } finally {
    const overdue = setTimeout(
      () => endNow(logger, 'the server did not close in time'),
      teardownTimeoutMs,
    );
    stopping.abort();
    await teardown.run();
    clearTimeout(overdue);
    lifecycle.enter({ phase: 'stopped' });
    // Why a start was refused is the last that people are to read.
    if (served) logger.info({ component: 'server' }, 'stopped');
    logger.flush();
    signals.dispose();
    clearInterval(alive);
  }
}

interface Starting {
  readonly config: Config;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
  readonly teardown: Teardown;
  readonly stopping: AbortSignal;
}

/** What can be told to stop. */
type Running = Pick<ComposedServer, 'drain'>;

async function start(options: Starting): Promise<Running> {
  const { config, logger, teardown } = options;
  const data = await openDataDirectory(config.data);
  teardown.add('data directory', () => data.release());
  const metrics = createMetrics({ logger, version });
  // While its processes come up, the rest of the program is loaded: what the role needs of it.
  const { ready: engine } = await startGitEngine({ ...options, data, metrics });
  const parts = {
    ...options,
    data,
    metrics,
    engine,
    clock: systemClock,
    random: systemRandom,
    version,
  };
  return config.role === 'storage' ? startStorageNode(parts) : startServer(parts);
}

type StartedParts = Omit<CompositionParts, 'newHostKeys'>;

async function startStorageNode(parts: StartedParts): Promise<Running> {
  const { data } = parts;
  const { composeStorageNode } = await import('./storage-composition.js');
  const node = await composeStorageNode(parts);
  const file = await node.start();
  await data.write(nodeFileName, `${JSON.stringify(file, undefined, 2)}\n`);
  process.stdout.write(nodeAnnouncement(file, data.path));
  return node;
}

async function startServer(parts: StartedParts): Promise<Running> {
  const { config, data } = parts;
  const newHostKeys = lacksHostKeys(parts) ? await hostKeysToBe() : undefined;
  const { compose } = await import('./composition.js');
  const server = await compose({ ...parts, newHostKeys });
  const admin = data.fresh
    ? await createFirstAdmin(server, data, placeOf(config, data.path))
    : undefined;
  const file = await server.listen();
  await data.write(serverFileName, `${JSON.stringify(file, undefined, 2)}\n`);
  process.stdout.write(
    announcement({
      config,
      server: file,
      dataDirectory: data.path,
      first: data.fresh,
      adminMade: admin?.made === true,
      command: ownCommand(process.argv[1] ?? '', process.cwd()),
      workingDirectory: process.cwd(),
    }),
  );
  return server;
}

/** Of a cluster, the first to start makes them, for all. */
function lacksHostKeys({ config, data }: StartedParts): boolean {
  const areOwn = config.coordinator.type === 'embedded' && config['ssh.hostKeys'] === undefined;
  return areOwn && data.fresh;
}

async function hostKeysToBe(): Promise<NewHostKeys> {
  const { beginHostKeys } = await import('./ssh/host-keys.js');
  return beginHostKeys();
}

/** A short name for this data directory among all that share a coordinator; undefined when it has its own. */
function placeOf(config: Config, directory: string): string | undefined {
  if (config.coordinator.type === 'embedded') return undefined;
  return createHash('sha256').update(`${hostname()}:${directory}`).digest('hex').slice(0, 12);
}

async function drain(options: {
  readonly server: Running;
  readonly config: Config;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
  readonly signal: NodeJS.Signals;
}): Promise<void> {
  const graceMs = options.config['shutdown.grace'];
  options.logger.info({ component: 'server', signal: options.signal, graceMs }, 'draining');
  const deadlineMs = systemClock.monotonicMs() + graceMs;
  options.lifecycle.enter({ phase: 'draining', deadlineMs });
  await options.server.drain(deadlineMs);
}

/** SIGTERM and SIGINT: the first asks to stop, the second ends at once. */
class StopSignals {
  readonly first: Promise<NodeJS.Signals>;
  readonly #handlers: (() => void)[] = [];

  constructor(logger: RootLogger) {
    let firstMs: number | undefined;
    this.first = new Promise((resolve) => {
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        this.#on(signal, () => {
          const nowMs = systemClock.monotonicMs();
          firstMs ??= nowMs;
          if (nowMs - firstMs > sameSignalMs) endNow(logger, 'a second signal ends the server');
          resolve(signal);
        });
      }
    });
    // Bugs crash: what state they left is unknown, while a restart recovers from any instant.
    const crash = (error: unknown): void => {
      logger.error({ component: 'server', err: error }, 'uncaught exception');
      endNow(logger, 'the server crashed');
    };
    process.on('uncaughtException', crash);
    this.#handlers.push(() => process.off('uncaughtException', crash));
    // Who reads our output may go away. That ends a command, but it is no reason to stop serving.
    for (const stream of [process.stdout, process.stderr]) {
      stream.removeAllListeners('error');
      stream.on('error', () => undefined);
    }
  }

  dispose(): void {
    for (const remove of this.#handlers) remove();
  }

  #on(signal: NodeJS.Signals, handler: () => void): void {
    process.on(signal, handler);
    this.#handlers.push(() => process.off(signal, handler));
  }
}

/** Node prints its warnings between the lines of the log, which are JSON. What a library should do otherwise is ours to read. */
function logWarnings(logger: RootLogger): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    const level = warning.name === 'DeprecationWarning' ? 'debug' : 'warn';
    logger[level]({ component: 'server', err: warning }, 'a warning of Node');
  });
}

function endNow(logger: RootLogger, why: string): never {
  logger.error({ component: 'server' }, why);
  try {
    logger.flush();
  } finally {
    process.exit(1);
  }
}

function sayFailure(error: unknown): void {
  process.stderr.write(`quorate: ${asQuorateError(error).message}\n`);
}
