import type { CoordinatorMember } from '../../backends/contract/coordinator-members.js';

/** What the program knows of the coordinator, whether that answers or not. */
export interface CoordinatorView {
  /** Of an embedded one there are none. */
  readonly members: () => Promise<readonly CoordinatorMember[]>;
  /** For how long it has not answered; undefined while it does, or where nobody looks. */
  readonly lostForMs: () => number | undefined;
  /** `replication.readsWithoutCoordinator` */
  readonly readsWithoutMs: number;
}

/** For `quorate status`. `failure`: why what was asked of the coordinator was not answered. */
export function coordinatorState(
  view: CoordinatorView,
  members: readonly CoordinatorMember[],
  failure: Error | undefined,
): object {
  const lostForMs = view.lostForMs();
  return {
    answers: failure === undefined,
    members: members.map(({ problem, ...member }) => ({ ...member, problem: problem ?? null })),
    lostSeconds: failure === undefined || lostForMs === undefined ? null : seconds(lostForMs),
    problem:
      failure === undefined
        ? null
        : `${whatIsMissing(members, failure)}. ${whatItMeans(view)}. ${whatToDo(members)}`,
  };
}

function whatIsMissing(members: readonly CoordinatorMember[], failure: Error): string {
  const answering = members.filter(({ answers }) => answers);
  const silent = members.filter(({ answers }) => !answers).map(({ address }) => address);
  const count = `${answering.length} of ${members.length} members answer`;
  const named = silent.length === 0 ? count : `${count} (not: ${silent.join(', ')})`;
  if (answering.length * 2 <= members.length) return `etcd has no majority: ${named}`;
  const hasLeader = answering.some((member) => member.hasLeader);
  return hasLeader
    ? `etcd does not answer this server, though it has a leader: ${named}; ${failure.message}`
    : `etcd has no leader, so no majority of its members reaches each other: ${named}`;
}

function whatItMeans({ readsWithoutMs, lostForMs }: CoordinatorView): string {
  const leftMs = readsWithoutMs - (lostForMs() ?? 0);
  const reads =
    leftMs > 0
      ? `fetches at eventual consistency go on for ${minutes(leftMs)}, all others are refused`
      : 'fetches are refused as well';
  return `Nothing is committed: pushes and changes are refused, and safe to repeat; ${reads}; nothing that was acknowledged is lost`;
}

function whatToDo(members: readonly CoordinatorMember[]): string {
  const silent = members.some(({ answers }) => !answers);
  const first = silent
    ? 'Start the members that do not answer, each with its own data'
    : 'See to the network between the members, and to their logs';
  return `${first}; docs/operations.md, "When etcd has no majority", has the rest`;
}

const seconds = (ms: number): number => Math.ceil(ms / 1000);

function minutes(ms: number): string {
  const whole = Math.ceil(ms / 60_000);
  return whole === 1 ? 'a minute' : `${whole} minutes`;
}
