import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkPushes } from './check-pushes.js';
import type { RecordedPush, Verdict } from './push-journal.js';
import { zeroOid } from './push-journal.js';

/* The checker must be able to fail: each doctored record tells of a server that lost, invented or tore something. */

const value = (letter: string): string => (letter === '-' ? zeroOid : letter.repeat(40));

/** `main:-a` moves main from absent to a. */
function push(verdict: Verdict, ...moves: readonly string[]): RecordedPush {
  return {
    client: 'client',
    repository: 'app',
    atomic: true,
    updates: moves.map((move) => {
      const [ref = '', path = ''] = move.split(':');
      return { ref, old: value(path.charAt(0)), new: value(path.charAt(1)), verdict };
    }),
  };
}

function refs(values: Readonly<Record<string, string>>): Map<string, Map<string, string>> {
  const present = Object.entries(values).map(([ref, letter]) => [ref, value(letter)] as const);
  return new Map([['app', new Map(present)]]);
}

const cases: readonly {
  readonly desc: string;
  readonly before?: Readonly<Record<string, string>>;
  readonly pushes: readonly RecordedPush[];
  readonly after: Readonly<Record<string, string>>;
  readonly problems: readonly RegExp[];
}[] = [
  {
    desc: 'a chain of acknowledged pushes',
    pushes: [push('acknowledged', 'main:-a'), push('acknowledged', 'main:ab')],
    after: { main: 'b' },
    problems: [],
  },
  {
    desc: 'pushes without a verdict may have happened, and may be built upon',
    pushes: [
      push('acknowledged', 'main:-a'),
      push('unknown', 'main:ab'),
      push('acknowledged', 'main:bc'),
      push('unknown', 'main:cd'),
    ],
    after: { main: 'c' },
    problems: [],
  },
  {
    desc: 'deleted and made again, one deletion without a verdict',
    before: { main: 'a' },
    pushes: [
      push('acknowledged', 'main:a-'),
      push('acknowledged', 'main:-b'),
      push('unknown', 'main:b-'),
    ],
    after: {},
    problems: [],
  },
  {
    desc: 'a refused push that did not happen',
    before: { main: 'a' },
    pushes: [push('acknowledged', 'main:ab'), push('refused', 'main:ac')],
    after: { main: 'b' },
    problems: [],
  },
  {
    desc: 'the last acknowledged push is lost',
    pushes: [push('acknowledged', 'main:-a'), push('acknowledged', 'main:ab')],
    after: { main: 'a' },
    problems: [/b{40} was acknowledged or found before, and is lost/, /it is a{40}, which nobody/],
  },
  {
    desc: 'an acknowledged push in the middle is lost',
    pushes: [push('acknowledged', 'main:-a'), push('unknown', 'main:bc')],
    after: { main: 'c' },
    problems: [/a{40} was acknowledged or found before, and is lost/, /started from b{40} won/],
  },
  {
    desc: 'two win the same race',
    before: { main: 'a' },
    pushes: [push('acknowledged', 'main:ab'), push('acknowledged', 'main:ac')],
    after: { main: 'c' },
    problems: [/b{40} was acknowledged or found before, and is lost/, /started from a{40} won/],
  },
  {
    desc: 'a refused push shows',
    before: { main: 'a' },
    pushes: [push('refused', 'main:ab')],
    after: { main: 'b' },
    problems: [/a{40} .* is lost/, /it is b{40}, which was refused to client/],
  },
  {
    desc: 'an acknowledged deletion comes back',
    before: { main: 'a' },
    pushes: [push('acknowledged', 'main:a-')],
    after: { main: 'a' },
    problems: [/it is a{40}, which nobody's pushes explain/, /its absence .* is lost/],
  },
  {
    desc: 'a creation was acknowledged while the ref was there',
    before: { main: 'a' },
    pushes: [push('acknowledged', 'main:-b'), push('acknowledged', 'main:b-')],
    after: { main: 'a' },
    problems: [/started from its absence won, which no path/, /started from b{40} won, which no/],
  },
  {
    desc: 'a ref changes that nobody pushed',
    before: { main: 'a', other: 'b' },
    pushes: [],
    after: { main: 'a' },
    problems: [/other: b{40} .* is lost/, /other: it is its absence, which nobody/],
  },
  {
    desc: 'an atomic push without a verdict is half applied',
    before: { main: 'a' },
    pushes: [push('unknown', 'main:ab', 'other:-c')],
    after: { main: 'b' },
    problems: [/of an atomic push of client only main took place/],
  },
  {
    desc: 'an atomic push is half applied, seen by what was built on it',
    before: { main: 'a' },
    pushes: [push('unknown', 'main:ab', 'other:-c'), push('acknowledged', 'main:bd')],
    after: { main: 'd' },
    problems: [/of an atomic push of client only main took place/],
  },
];

for (const { desc, before = {}, pushes, after, problems } of cases) {
  test(desc, () => {
    const found = checkPushes(refs(before), pushes, refs(after));
    assert.equal(found.length, problems.length, found.join('\n'));
    for (const problem of problems) assert.match(found.join('\n'), problem);
  });
}
