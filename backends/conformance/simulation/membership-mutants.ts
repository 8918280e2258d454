import { edit, type Mutation } from './mutation.js';

const moving = ['node drains', 'node joins', 'repository moves', 'node removed'];

/** Those of `mutants` that are about replica sets which change, lose a majority and are recovered. */
export const membershipMutants: readonly Mutation[] = [
  {
    name: 'the mark of another push counts',
    from: 1105,
    troubles: ['majority lost', 'store crashes at a step', 'long outage'],
    edits: [edit('local/quarantine.js', String.raw`isMarkOf\(key, mark\) \? mark`, 'true ? mark')],
  },
  {
    name: 'a voter leaves although too few of the others have the head',
    from: 670,
    troubles: [...moving, 'store crashes'],
    edits: [
      edit(
        'replicated/reconcile.js',
        String.raw`return holdsHead\(view, rest\) \? (.*) : undefined;`,
        "return { type: 'remove-voter', storeId };",
      ),
    ],
  },
  {
    name: 'a wish for a node that is gone keeps a repository from being whole',
    troubles: [...moving, 'node lost for good'],
    edits: [
      edit(
        'replicated/set-view.js',
        String.raw`return fit === true \? target : undefined;`,
        'return target;',
      ),
    ],
  },
  {
    name: 'the word that a copy is to go is taken from a rewound coordinator',
    from: 240,
    troubles: [...moving, 'coordinator restored at the end'],
    edits: [
      edit(
        'replicated/evictions.js',
        String.raw`const counts = .*;`,
        'const counts = async () => true;',
      ),
    ],
  },
  {
    name: 'a recovery does not apply what can be applied',
    from: 250,
    troubles: ['majority lost', 'front-end crashes at a message'],
    edits: [
      edit(
        'replicated/set-loss.js',
        String.raw`const applying = replica\.apply\(id, head\.generation\);\s+await unlessHanging\([^;]*;\s+\}\);`,
        '',
      ),
    ],
  },
  {
    name: 'a recovery keeps nothing of what it overrules',
    from: 38,
    troubles: ['majority lost'],
    edits: [
      edit(
        'replicated/keep-overruled.js',
        String.raw`const commands = keepingCommands\(changes\);`,
        'const commands = [];',
      ),
    ],
  },
  {
    name: 'a lost store that comes back keeps its copy',
    from: 120,
    troubles: ['majority lost'],
    edits: [
      edit('replicated/set-recovery.js', String.raw`\.\.\.setAsideLost\(record, next\),`, ''),
    ],
  },
  {
    name: 'a copy that is made again is judged as the one before',
    troubles: [...moving],
    edits: [edit('git/ref-judge.js', String.raw`this\.#made\.delete\(gitDir\);`, '')],
  },
];
