/** What `--troubles` takes, apart from the code that makes it: the command line is read before that is loaded. */

/** In place of troubles of a cluster: the other way to run Quorate. */
export const oneMachine = 'one machine';

/** What some worlds have, besides their troubles; the first three in the order in which they are drawn. */
export const worldKinds = [
  'names',
  'forks',
  'majority lost',
  'past reads',
  'large pushes',
] as const;

const faultKinds = [
  'node joins',
  'node drains',
  'node removed',
  'node lost for good',
  'repository moves',
  'store crashes',
  'store crashes at a step',
  'front-end crashes',
  'front-end crashes at a message',
  'partition',
  'bad network',
  'slow network',
  'maintenance',
  'leader lost',
  'long outage',
  'compaction',
  'compaction behind a cut',
  'coordinator restored at the end',
  'watches lag',
  'pause',
  'pause at a message',
  'pause under a lock',
  'stores restart while a push stands still',
  'repository deleted under a lock',
  'majority lost',
  'disk lost',
  'flipped bits',
  'disk full',
  'disk fails',
  'disk hangs',
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** All that a list of troubles may name. */
export const troubleKinds: readonly string[] = [
  ...new Set<string>([...faultKinds, ...worldKinds, oneMachine]),
].toSorted();
