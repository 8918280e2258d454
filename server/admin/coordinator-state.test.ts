import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CoordinatorMember } from '../../backends/contract/coordinator-members.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { coordinatorState, type CoordinatorView } from './coordinator-state.js';

const lost = new QuorateError('unavailable', 'the coordinator at a, b, c does not answer: late');

function member(
  address: string,
  state: 'leads' | 'follows' | 'leaderless' | 'silent',
): CoordinatorMember {
  return {
    address,
    answers: state !== 'silent',
    leads: state === 'leads',
    hasLeader: state === 'leads' || state === 'follows',
    problem: state === 'silent' ? `nothing listens on ${address}` : undefined,
  };
}

function stateOf(
  members: readonly CoordinatorMember[],
  { failure, ...view }: Partial<CoordinatorView> & { readonly failure: Error | undefined } = {
    failure: lost,
  },
): { readonly answers: unknown; readonly lostSeconds: unknown; readonly problem: unknown } {
  const known: CoordinatorView = {
    members: () => Promise.resolve(members),
    lostForMs: () => 61_000,
    readsWithoutMs: 3_600_000,
    ...view,
  };
  const state: object = coordinatorState(known, members, failure);
  assert.ok('answers' in state && 'lostSeconds' in state && 'problem' in state);
  return state;
}

const cases = [
  {
    desc: 'too few answer',
    members: [member('a', 'leaderless'), member('b', 'silent'), member('c', 'silent')],
    says: /^etcd has no majority: 1 of 3 members answer \(not: b, c\)\. .*Start the members/,
  },
  {
    desc: 'half of them is no majority',
    members: [member('a', 'leaderless'), member('b', 'silent')],
    says: /^etcd has no majority: 1 of 2/,
  },
  {
    desc: 'enough answer, and do not reach each other',
    members: [member('a', 'leaderless'), member('b', 'leaderless'), member('c', 'silent')],
    says: /^etcd has no leader.*2 of 3 members answer \(not: c\)/,
  },
  {
    desc: 'they are well, and this server is not answered',
    members: [member('a', 'leads'), member('b', 'follows'), member('c', 'follows')],
    says: /^etcd does not answer this server, though it has a leader: 3 of 3 .*: late\. .*network/,
  },
];

for (const { desc, members, says } of cases) {
  test(`what a coordinator that does not answer lacks: ${desc}`, () => {
    const { answers, lostSeconds, problem } = stateOf(members);
    assert.deepEqual([answers, lostSeconds], [false, 61]);
    assert.match(String(problem), says);
    assert.match(String(problem), /Nothing is committed: .* safe to repeat/);
    assert.match(String(problem), /eventual consistency go on for 59 minutes/);
  });
}

test('after the time for reads without it, or where there is none, fetches are refused, too', () => {
  const members = [member('a', 'silent')];
  for (const view of [
    { lostForMs: () => 3_600_001 },
    { readsWithoutMs: 0, lostForMs: () => undefined },
  ]) {
    assert.match(
      String(stateOf(members, { failure: lost, ...view }).problem),
      /; fetches are refused as well;/,
    );
  }
});

test('one that answers has no problem, whichever member is away', () => {
  const members = [member('a', 'leads'), member('b', 'silent'), member('c', 'follows')];
  assert.deepEqual(
    { ...stateOf(members, { failure: undefined }), members: [] },
    { answers: true, members: [], lostSeconds: null, problem: null },
  );
});
