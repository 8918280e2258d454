import { edit, type Mutation } from './mutation.js';

const restored = 'coordinator restored at the end';
const moving = ['node drains', 'node joins', 'repository moves', 'node removed', restored];

/** Those of `mutants` that are about going on from an older copy of the coordinator. */
export const recoveryMutants: readonly Mutation[] = [
  {
    name: 'an older coordinator: heads stay where it has them',
    troubles: [restored],
    edits: [
      edit(
        'replicated/cluster-recovery.js',
        String.raw`await backend\.recovery\?\.raise\(found\);`,
        'void found;',
      ),
    ],
  },
  {
    name: 'an older coordinator: only the stores that it names are asked',
    from: 230,
    troubles: moving,
    edits: [edit('replicated/head-recovery.js', String.raw`holders\.get\(id\) \?\? \[\]`, '[]')],
  },
  {
    name: 'an older coordinator: those vote that it names',
    troubles: moving,
    edits: [edit('replicated/head-recovery.js', String.raw`next\?\.record \?\? base`, 'base')],
  },
];
