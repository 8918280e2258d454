import type { Logger, Meter } from '../../contract/environment.js';

/** Words of the code's log that tell of something which has to come about now and then, or it is not under test. */
const happenings: ReadonlyMap<string, string> = new Map([
  ['a copy is damaged', 'damage found by scrubbing'],
  ['a read goes to another storage node', 'reads handed over'],
  ['a storage node could not prepare a push', 'stores left out of a push'],
  ['a copy that went elsewhere was removed', 'copies removed from where they were'],
  ['the outcome of a commit could not be found out', 'commits of unknown outcome'],
]);

/** Counts them, and hands everything on to whoever reads it. */
export function countingLogger(happened: (what: string) => void, to: Logger | undefined): Logger {
  const say =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: object, message: string): void => {
      const what = happenings.get(message);
      if (what !== undefined) happened(what);
      to?.[level](fields, message);
    };
  return {
    debug: say('debug'),
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: (fields) => countingLogger(happened, to?.child(fields)),
  };
}

/** Counts the steps that are taken for replica sets. */
export function countingMeter(happened: (what: string) => void): Meter {
  return {
    count: (name, labels) => {
      if (name === 'replica_set_steps') happened(`step ${String(labels?.['step'])}`);
    },
    observe: () => undefined,
    gauge: () => undefined,
  };
}
