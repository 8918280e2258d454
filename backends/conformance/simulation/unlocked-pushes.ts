import type { Transaction } from '../../contract/coordinator.js';
import { keys } from '../../contract/keys.js';

/** What comes about with pushes that take no locks, in some seed. */
export const unlockedHappenings: readonly string[] = [
  'pushes without locks committed',
  'pushes without locks overtaken',
  'pushes without locks whose answer was lost',
];

/** What a transaction says of a push without locks, if it is about one. */
export function unlockedHappening(
  { compares, success }: Transaction,
  succeeded: boolean,
): string | undefined {
  const puts = success.flatMap((operation) => (operation.type === 'put' ? operation.key : []));
  if (puts.some((key) => key.startsWith(keys.allLogs))) {
    if (!compares.some(({ key }) => key.startsWith(keys.frontEnd('')))) return undefined;
    return `pushes without locks ${succeeded ? 'committed' : 'overtaken'}`;
  }
  const [only] = puts;
  if (success.length !== 1 || only?.startsWith(keys.head('')) !== true) return undefined;
  return 'pushes without locks whose answer was lost';
}
