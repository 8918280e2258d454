import type { Logger, Meter } from '../../contract/environment.js';
import { unlockedHappenings } from './unlocked-pushes.js';

/** Words of the code's log that tell of something which has to come about now and then, or it is not under test. */
const happenings: ReadonlyMap<string, string> = new Map([
  ['a copy is damaged', 'damage found by scrubbing'],
  ['a read goes to another storage node', 'reads handed over'],
  ['a storage node could not prepare a push', 'stores left out of a push'],
  ['a copy that went elsewhere was removed', 'copies removed from where they were'],
  ['the outcome of a commit could not be found out', 'commits of unknown outcome'],
  ['a quarantine stays until its push is known to be over', 'quarantines kept for a push in doubt'],
  ['a lock could not be released yet', 'locks released later'],
  ['work after a commit is put off', 'work after commits put off'],
  ['locks of a silent process are given to others', 'locks taken from the silent'],
]);

/**
 * What has to come about in a run of many seeds, besides every kind of trouble: else it tests less than it says. In 500
 * seeds each comes about twenty times or more, so that it is missing by no accident.
 */
export const expected: readonly string[] = [
  'pushes acknowledged',
  'pushes acknowledged in part',
  'pushes refused',
  'pushes failed: cancelled',
  'pushes failed: unavailable',
  'pushes unknown',
  'packs that came slowly',
  'commits on all voters',
  'commits on some of the voters',
  'pushes at the end that every voter prepared',
  'power cuts that lose everything',
  'power cuts that lose a suffix',
  'power cuts that lose any part',
  'stores killed',
  'stores killed while their disks hang',
  ...['everything', 'changes', 'syncs'].map((kind) => `disks hang: ${kind}`),
  ...['goes on', 'fails', 'power cut'].map((end) => `hanging disks: ${end}`),
  'pushes while a disk hangs',
  'pushes that a hanging disk keeps from their quorum',
  ...['fsync', 'rename', 'disk', 'message'].map((point) => `crashes at: ${point}`),
  'copies sent between stores',
  'bits flipped',
  'damage found by scrubbing',
  'eventual reads',
  'eventual reads with a token',
  'reads by old records',
  'nodes drained',
  'nodes joined',
  'nodes removed',
  'nodes switched off when empty',
  'repositories moved',
  'one machine without power',
  'one machine that keeps the updates of pushes',
  'the coordinator decides what nobody waits for',
  'names that another repository got',
  'forks made',
  'pools repacked',
  'pools given up',
  'sets recovered after a lost majority',
  'pushes overruled by a recovery',
  'lost stores that came back',
  'reads handed over',
  'stores left out of a push',
  'copies removed from where they were',
  ...['add-learner', 'fill', 'promote', 'demote', 'remove-voter', 'drop-learner', 'declare'].map(
    (step) => `step ${step}`,
  ),
  ...['add-reader', 'drop-reader'].map((step) => `step ${step}`),
  'reads from readers',
  ...unlockedHappenings,
  ...['with', 'without'].flatMap((some) => [
    `large pushes ${some} a pack`,
    `large pushes ${some} a pack committed after a store that keeps them started again`,
  ]),
  'large pushes kept by some of the voters',
  'stores that know no more of a large push',
];

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
